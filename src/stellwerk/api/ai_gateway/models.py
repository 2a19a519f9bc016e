"""The state of models as AI Gateway's administration shows it, and what starts and stops them."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import msgspec

from stellwerk.api.ai_gateway.names import READER, ModelNames
from stellwerk.api.ai_gateway.resolution import Resolution
from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError
from stellwerk.core.plan import Model
from stellwerk.engines.slot import SlotStatus

Word = Literal["stopped", "starting", "running", "stopping", "error"]
_WORDS: Final[Mapping[str, Word]] = {
    "ready": "running",
    "loading": "starting",
    "restarting": "starting",
    "draining": "stopping",
    "failed": "error",
}
LOCAL = "local"
"""The provider of the models that run here."""
_START_SECONDS = 120.0
_DRAIN_SECONDS = 60.0


class Engines(Protocol):
    """The part of `Slots` that is needed here."""

    def models(self) -> Any: ...

    def status(self) -> tuple[SlotStatus, ...]: ...

    def load(self, model: str, *, wait_until: float | None = None) -> Awaitable[Any]: ...

    def unload(self, *, model: str | None = None, drain_seconds: float = 30.0) -> Awaitable[Any]: ...


class Reader(Protocol):
    """The reader of pages that runs here."""

    def is_ready(self) -> bool: ...

    async def load(self) -> None: ...

    async def unload(self, drain_seconds: float) -> None: ...


class ModelState(msgspec.Struct, kw_only=True):
    """One model; times are naive UTC, and null unless it runs here."""

    name: str
    status: Word
    port: int | None = None
    started_at: str | None = None
    uptime_seconds: int | None = None
    resolution: str | None = None
    is_healthy: bool = False


class Models:
    def __init__(
        self,
        *,
        names: ModelNames,
        engines: Engines,
        reader: Reader | None,
        find: Callable[[str], Model | None],
        is_broken: Callable[[Model], bool],
        resolution: Resolution,
        clock: Clock,
    ) -> None:
        """`find` asks the catalogue, `is_broken` whether the provider of a model has failed lately. Without a `reader`
        no page is read here."""
        self._names = names
        self._engines = engines
        self._reader = reader
        self._find = find
        self._is_broken = is_broken
        self._resolution = resolution
        self._clock = clock

    def show_all(self) -> dict[str, ModelState]:
        """The short names, then the models of this machine that have none, and who reads pages."""
        shown = {short: self._show(short) for short in self._names.shorts}
        named = {self._names.any(short).model for short in self._names.shorts}
        own = [model.id for model in self._engines.models()]
        if self._reader is not None:
            own.append(READER)
        return shown | {name: self._show(name) for name in own if name not in shown and name not in named}

    async def start(self, name: str) -> None:
        """Returns when it answers; what runs elsewhere has to answer already. Raises GatewayError in the documented
        words."""
        failed = GatewayError("Failed to start model", code="model_failed")
        if self._answers_elsewhere(name):
            return
        model = self._own(name, failed)
        try:
            if model is None:
                assert self._reader is not None
                await self._reader.load()
            else:
                await self._engines.load(model, wait_until=self._clock.monotonic() + _START_SECONDS)
        except GatewayError as error:
            raise failed from error

    async def stop(self, name: str, *, graceful: bool) -> None:
        """Returns when it is gone; `graceful` lets running requests end. Raises GatewayError, as `start`."""
        failed = GatewayError("Failed to stop model", code="model_failed")
        model = self._own(name, failed)
        drain_seconds = _DRAIN_SECONDS if graceful else 0.0
        try:
            if model is None:
                assert self._reader is not None
                await self._reader.unload(drain_seconds)
            else:
                await self._engines.unload(model=model, drain_seconds=drain_seconds)
        except GatewayError as error:
            raise failed from error

    def _own(self, name: str, failed: GatewayError) -> str | None:
        """What a name means to the engines; None is the reader of pages. Raises `failed` for what is not ours."""
        meant = self._names.any(name).model
        if meant == READER and self._reader is not None:
            return None
        model = None if meant is None else self._find(meant)
        if model is None or model.provider != LOCAL:
            raise failed
        return model.name

    def _answers_elsewhere(self, name: str) -> bool:
        meant = self._names.any(name).model
        model = None if meant is None or meant == READER else self._find(meant)
        return model is not None and model.provider != LOCAL and not self._is_broken(model)

    def _show(self, name: str) -> ModelState:
        meant = self._names.any(name).model
        short = self._names.shorts.get(name)
        port = None if short is None else short.port
        resolution = self._resolution.now if self._names.reads(name) else None
        if meant == READER and self._reader is not None:
            ready = self._reader.is_ready()
            status: Word = "running" if ready else "stopped"
            return ModelState(name=name, status=status, resolution=resolution, is_healthy=ready)
        model = None if meant is None else self._find(meant)
        if model is not None and model.provider == LOCAL:
            return self._show_slot(name, model.name, resolution)
        healthy = model is not None and not self._is_broken(model)
        status = "stopped" if model is None else "running" if healthy else "error"
        return ModelState(name=name, status=status, port=port, resolution=resolution, is_healthy=healthy)

    def _show_slot(self, name: str, model: str, resolution: str | None) -> ModelState:
        slot = next((each for each in self._engines.status() if each.model == model), None)
        if slot is None:
            return ModelState(name=name, status="stopped", resolution=resolution)
        since = slot.loaded_at
        return ModelState(
            name=name,
            status=_WORDS.get(slot.state, "stopped"),
            port=slot.port,
            started_at=None if since is None else naive(since),
            uptime_seconds=None if since is None else max(0, int(self._clock.now() - since)),
            resolution=resolution,
            is_healthy=slot.state == "ready",
        )


def naive(at: float) -> str:
    """UTC without saying so, with microseconds: how AI Gateway writes times."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
