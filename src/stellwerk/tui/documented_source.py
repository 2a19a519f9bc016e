"""A gateway asked through the routes that AI Gateway documents, `/admin/models` and its neighbours."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from stellwerk.core.clock import Clock
from stellwerk.tui.admin_source import cancel, set_paused, set_resolution
from stellwerk.tui.connection import ACT_SECONDS, Connection
from stellwerk.tui.facts import advice_of, crashes_of, jobs_of, names_of, queue_of, state_of
from stellwerk.tui.reading import clean, number, rows, whole
from stellwerk.tui.snapshot import Job, Model, Queue, Snapshot
from stellwerk.tui.source import NOT_OFFERED, OptionalRoutes
from stellwerk.tui.trouble import ConsoleTrouble

_MOST_QUEUES = 16
"""Every queue is a request of its own here."""


class DocumentedSource:
    """Fills the seam `Source`; what is not documented is shown and done where the gateway offers it all the same."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._routes = OptionalRoutes(connection)

    async def read(self) -> Snapshot:
        told = await self._connection.get("/admin/models")
        models = tuple(_model(name, row) for name, row in names_of(told))
        details = await self._routes.get("/health/details")
        details = details if isinstance(details, Mapping) else {}
        more = await self._routes.get("/admin/api/queues")
        queues = await self._read_queues(models, more)
        jobs = await self._routes.get("/api/requests", limit=100)
        crashes = await self._routes.get("/admin/crashes", limit=50)
        advice = await self._routes.get("/admin/api/auto-switch")
        in_flight = number(details.get("in_flight"))
        return Snapshot(
            at=self._clock.now(),
            version=clean(details.get("version"), 30),
            models=models,
            queues=queues,
            jobs=jobs_of(jobs),
            crashes=crashes_of(crashes),
            advice=advice_of(advice),
            in_flight=None if in_flight is None else int(in_flight),
        )

    async def start(self, model: Model) -> None:
        query = {"resolution": model.resolution} if model.resolution else {}
        await self._connection.ask("POST", _path(model, "start"), query, seconds=ACT_SECONDS)

    async def stop(self, model: Model, *, force: bool) -> None:
        query = {"graceful": "false" if force else "true"}
        await self._connection.ask("POST", _path(model, "stop"), query, seconds=ACT_SECONDS)

    async def set_resolution(self, resolution: str) -> None:
        await set_resolution(self._connection, resolution)

    async def set_paused(self, queue: Queue, paused: bool) -> None:
        await set_paused(self._connection, "/admin/queue", queue, paused)

    async def cancel(self, job: Job) -> None:
        await cancel(self._connection, job)

    async def _read_queues(self, models: tuple[Model, ...], more: Any) -> tuple[Queue, ...]:
        known = {queue.name: queue for row in rows(more) if (queue := queue_of(row)).name}
        queues = []
        for model in models[:_MOST_QUEUES]:
            told = await self._routes.get(f"/admin/queue/{quote(model.name, safe='')}")
            if isinstance(told, Mapping):
                stored = known.pop(model.name, None)
                paused = told.get("paused") is True or (stored is not None and stored.paused)
                queues.append(queue_of({**told, "model": model.name, "paused": paused}))
        return (*queues, *known.values())


async def is_offered(connection: Connection) -> bool:
    """Whether the address has these routes at all. Raises ConsoleTrouble when it cannot be asked."""
    try:
        await connection.get("/admin/models")
    except ConsoleTrouble as trouble:
        if trouble.status in NOT_OFFERED:
            return False
        raise
    return True


def _path(model: Model, verb: str) -> str:
    return f"/admin/models/{quote(model.name, safe='')}/{verb}"


def _model(name: str, row: Mapping[str, Any]) -> Model:
    healthy, state = row.get("is_healthy"), state_of(row.get("status"))
    return Model(
        name=clean(name),
        state=state,
        port=whole(row.get("port")) or None,
        uptime=number(row.get("uptime_seconds")),
        resolution=clean(row.get("resolution"), 20),
        # Nothing is wrong with a model that nobody has loaded.
        healthy=healthy if isinstance(healthy, bool) and state != "stopped" else None,
        memory_mib=number(row.get("memory_mb")),
        error=clean(row.get("error")),
    )
