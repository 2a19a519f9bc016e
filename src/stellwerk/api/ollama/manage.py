"""What clients do to the models themselves: load, let go, copy and delete them, each where the model is."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.ollama.model_names import LATEST, is_public_name, no_such_model, short
from stellwerk.api.ollama.pull import Pulling
from stellwerk.api.ollama.pull import Source as PullSource
from stellwerk.api.ollama.remote import Remote, ask, find_remote
from stellwerk.api.ollama.requests import CopyBody, ShowBody, no_model, read
from stellwerk.core.errors import BadRequest, Conflict, NotFound
from stellwerk.core.plan import Model
from stellwerk.core.principal import ADMINS, Principal
from stellwerk.engines.slot import SlotStatus

LOCAL = "local"
"""The provider of the models that we run ourselves."""
_LOADED = frozenset({"ready", "restarting"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_DELETE = msgspec.json.Decoder(ShowBody)
_COPY = msgspec.json.Decoder(CopyBody)
Find = Callable[[Principal, str], Model | None]
"""The model that has exactly this name, if the caller may use it."""


class Engines(Protocol):
    """The models that we run ourselves."""

    def status(self) -> Sequence[SlotStatus]: ...

    async def load(self, model: str, *, wait_until: float | None = None) -> SlotStatus: ...

    async def unload(self, *, model: str | None = None) -> SlotStatus | None: ...

    def keep(self, model: str, seconds: float | None) -> None: ...

    async def remove(self, model: str) -> None: ...

    async def copy(self, model: str, name: str) -> None: ...


class Source(PullSource, Protocol):
    def candidates(self, name: str) -> Iterable[str]: ...


class Management:
    """Registers the routes that change which models there are, and does for the others what loads a model."""

    def __init__(
        self,
        engines: Engines | None,
        source: Source | None,
        remotes: Callable[[], Mapping[str, Remote]],
        refresh: Callable[[str], Awaitable[None]],
    ) -> None:
        """`engines` and `source` are None where we run no models ourselves; `remotes` are the Ollamas of the
        operator's by provider, and `refresh` looks again what one of them has."""
        self._engines = engines
        self._source = source
        self._remotes = remotes
        self._refresh = refresh
        self._pulling = Pulling(source, remotes, refresh)

    def register(self, routes: Routes, find: Find) -> None:
        async def delete(request: Request) -> None:
            exchange = request.exchange
            body = read(exchange.body, exchange.headers.get(b"content-type"), _DELETE)
            name = body.model or body.name
            if not name:
                raise no_model()
            model = find(request.caller, name)
            if model is None and request.caller.models is not None:
                raise no_such_model(name)
            await self._delete(name, model)
            exchange.respond(200, ((b"x-request-id", request.id.encode()),), b"")

        async def copy(request: Request) -> None:
            exchange = request.exchange
            body = read(exchange.body, exchange.headers.get(b"content-type"), _COPY)
            if not body.source or not body.destination:
                raise BadRequest("source and destination are required", code="missing_required_parameter")
            model = find(request.caller, body.source)
            if model is None and request.caller.models is not None:
                raise no_such_model(body.source)
            await self._copy(body, model)
            exchange.respond(200, ((b"x-request-id", request.id.encode()),), b"")

        self._pulling.register(routes, find)
        routes.add("DELETE", "/api/delete", ADMINS, delete)
        routes.add("POST", "/api/copy", ADMINS, copy)

    # --- for the routes that ask a model

    def candidates(self, name: str) -> Iterable[str]:
        """Names under which the catalogue may know what was pulled as `name`."""
        return () if self._source is None else self._source.candidates(name)

    def loaded(self, now: float) -> list[SlotStatus]:
        """What is in memory at `now` (Unix seconds) and stays there, the longest-lived first."""
        slots = () if self._engines is None else self._engines.status()
        found = [slot for slot in slots if slot.model is not None and slot.state in _LOADED and not _leaves(slot, now)]
        return sorted(found, key=lambda slot: -(float("inf") if slot.expires_at is None else slot.expires_at))

    def loads_itself(self, model: Model) -> bool:
        """Whether the model is an Ollama's: then it gets the request that asks nothing, as it is."""
        return model.provider in self._remotes()

    async def load(self, model: Model, seconds: float | None, *, until: float) -> None:
        """Returns when a model of ours is loaded, at `until` (monotonic seconds) at the latest, or, with no `seconds`
        to stay, when it has been told to go. Of all others there is nothing to load."""
        if self._engines is None or model.provider != LOCAL:
            return
        if seconds != 0:
            await self._engines.load(model.name, wait_until=until)
        # Also without a word about it: what an earlier client said counts no more.
        self._engines.keep(model.name, seconds)

    def keep(self, model: Model | None, seconds: float | None) -> None:
        """How long a loaded model of ours stays; the engines decide how much of that is granted."""
        if self._engines is not None and model is not None and model.provider == LOCAL and seconds is not None:
            self._engines.keep(model.name, seconds)

    # --- what there is

    async def _delete(self, name: str, model: Model | None) -> None:
        if model is not None and is_public_name(model):
            raise BadRequest(
                f"'{short(name)}' is a name of this gateway's configuration; delete the model that it leads to",
                code="unsupported_operation",
                param="model",
            )
        found = find_remote(self._remotes(), model, name)
        if found is not None and found.sure:
            await ask(self._remotes()[found.provider], "DELETE", "/api/delete", {"model": found.name})
            await self._refresh(found.provider)
            return
        if model is not None and model.provider != LOCAL:
            raise _foreign(name, "deleted")
        if self._engines is None:
            raise no_such_model(name)
        # A file that cannot be loaded is in no catalogue, and in the way all the same.
        await self._remove(self._engines, name, name.removesuffix(LATEST) if model is None else model.name)

    async def _remove(self, engines: Engines, asked: str, name: str) -> None:
        try:
            await engines.remove(name)
        except NotFound:
            raise no_such_model(asked) from None
        except Conflict as error:
            if error.code != "model_loaded":
                raise
            if any(slot.model == name and slot.leases for slot in engines.status()):
                raise Conflict(
                    f"model '{short(asked)}' is answering requests; try again when it is idle", code="model_busy"
                ) from None
            await engines.unload(model=name)
            await engines.remove(name)

    async def _copy(self, body: CopyBody, model: Model | None) -> None:
        found = find_remote(self._remotes(), model, body.source)
        if found is not None and found.sure:
            target = find_remote(self._remotes(), None, body.destination)
            named = target is not None and target.sure and target.provider == found.provider
            destination = target.name if target is not None and named else body.destination
            fields = {"source": found.name, "destination": destination}
            await ask(self._remotes()[found.provider], "POST", "/api/copy", fields)
            await self._refresh(found.provider)
            return
        if model is not None and model.provider != LOCAL:
            raise _foreign(body.source, "copied")
        if model is None or self._engines is None:
            raise no_such_model(body.source)
        destination = body.destination.removesuffix(LATEST).replace(":", "-")
        if not _NAME.fullmatch(destination):
            raise BadRequest(f"destination {short(body.destination)!r} is invalid", param="destination")
        await self._engines.copy(model.name, destination)


def _leaves(slot: SlotStatus, now: float) -> bool:
    """Whether its time is over: then it is about to be unloaded."""
    return slot.expires_at is not None and slot.expires_at <= now and not slot.leases


def _foreign(name: str, done: str) -> BadRequest:
    return BadRequest(
        f"model '{short(name)}' is a provider's: it cannot be {done} here", code="unsupported_operation", param="model"
    )
