"""Loads of models that somebody asked for: each goes on whether its client waits or not, and can be asked after."""

import asyncio
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Literal

from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, NotFound, Unavailable
from stellwerk.engines.slot import SlotStatus

MOST_LOADS = 100
"""Loads that are remembered; the oldest that have ended are forgotten first."""


@dataclass(kw_only=True)
class Load:
    """One load. Times are Unix seconds."""

    id: str
    model: str
    slot: int | None
    """Where it was to go; None for any."""
    started: float
    task: "asyncio.Task[SlotStatus]" = field(repr=False)
    ended: float | None = None

    @property
    def state(self) -> Literal["loading", "loaded", "failed"]:
        if not self.task.done():
            return "loading"
        return "failed" if self.task.cancelled() or self.task.exception() is not None else "loaded"

    @property
    def status(self) -> SlotStatus | None:
        """The slot once it is loaded."""
        return self.task.result() if self.state == "loaded" else None

    @property
    def error(self) -> GatewayError | None:
        """Why it failed."""
        if self.state != "failed":
            return None
        error = None if self.task.cancelled() else self.task.exception()
        if isinstance(error, GatewayError):
            return error
        return GatewayError("The load failed for an internal reason.") if error else Unavailable("The gateway stopped.")


class Loads:
    """Owns the loads of one gateway, on its event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loads: dict[str, Load] = {}

    def start(self, model: str, slot: int | None, work: Awaitable[SlotStatus]) -> Load:
        """Lets `work` run. Raises Unavailable when too many do."""
        ended = [load.id for load in self._loads.values() if load.task.done()]
        while len(self._loads) >= MOST_LOADS and ended:
            del self._loads[ended.pop(0)]
        if len(self._loads) >= MOST_LOADS:
            if asyncio.iscoroutine(work):
                work.close()
            raise Unavailable("Too many models are being loaded.", retry_after=10)
        task = asyncio.ensure_future(work)
        load = Load(
            id=f"load_{secrets.token_hex(8)}",
            model=model,
            slot=slot,
            started=self._clock.now(),
            task=task,
        )
        self._loads[load.id] = load
        task.add_done_callback(lambda _: self._end(load))
        return load

    def get(self, load_id: str) -> Load:
        """Raises NotFound."""
        load = self._loads.get(load_id)
        if load is None:
            raise NotFound("There is no such load.", code="load_not_found")
        return load

    async def stop(self) -> None:
        """Ends those that still run."""
        tasks = [load.task for load in self._loads.values() if not load.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _end(self, load: Load) -> None:
        load.ended = self._clock.now()
        # Looked at here, so that a failure that nobody asks after is no stray exception.
        if not load.task.cancelled():
            load.task.exception()
