"""Where the console's facts come from: a seam with one class for each way of asking a gateway."""

from typing import Any, Protocol

from stellwerk.tui.connection import Connection
from stellwerk.tui.snapshot import Job, Model, Queue, Snapshot
from stellwerk.tui.trouble import ConsoleTrouble

NOT_OFFERED = frozenset({404, 405, 501})


class Source(Protocol):
    """A gateway. Every method raises ConsoleTrouble."""

    async def read(self) -> Snapshot:
        """What there is now, by one request after another."""

    async def start(self, model: Model) -> None:
        """Returns when the load has begun."""

    async def stop(self, model: Model, *, force: bool) -> None:
        """Returns when the model is gone. With `force` its calls are cut off."""

    async def set_resolution(self, resolution: str) -> None: ...

    async def set_paused(self, queue: Queue, paused: bool) -> None: ...

    async def cancel(self, job: Job) -> None: ...


class OptionalRoutes:
    """Routes that not every gateway has, or not for everybody: one that is refused is not asked again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._missing: set[str] = set()

    async def get(self, path: str, **query: Any) -> Any:
        """None where the gateway does not tell."""
        if path in self._missing:
            return None
        try:
            return await self._connection.get(path, **query)
        except ConsoleTrouble as trouble:
            if trouble.status not in NOT_OFFERED | {403}:
                raise
            self._missing.add(path)
            return None
