"""A gateway asked through its administration, `/admin/api/…`."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from stellwerk.core.clock import Clock
from stellwerk.tui.connection import ACT_SECONDS, Connection
from stellwerk.tui.facts import advice_of, calls_of, crashes_of, jobs_of, queues_with_gates, state_of
from stellwerk.tui.reading import clean, moment, number, rows, whole
from stellwerk.tui.snapshot import LIVE, Job, Model, Queue, Snapshot
from stellwerk.tui.source import NOT_OFFERED, OptionalRoutes
from stellwerk.tui.trouble import ConsoleTrouble

_MOST_JOBS = 100
_MOST_CRASHES = 50
_RARELY = 5
"""The models folder is read from the disk and the advice from the ledger: once in so many looks."""


class AdminSource:
    """Fills the seam `Source`."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._routes = OptionalRoutes(connection)
        self._looks = 0
        self._files: Any = None
        self._advice: Any = None

    async def read(self) -> Snapshot:
        slots = await self._connection.get("/admin/api/slots")
        details = await self._routes.get("/health/details")
        details = details if isinstance(details, Mapping) else {}
        if self._looks % _RARELY == 0:
            self._files = await self._routes.get("/admin/api/models/local")
            self._advice = await self._routes.get("/admin/api/auto-switch")
        system = await self._routes.get("/admin/api/system")
        queues = await self._routes.get("/admin/api/queues")
        jobs = await self._routes.get("/api/requests", limit=_MOST_JOBS)
        calls = await self._routes.get("/admin/api/calls")
        crashes = await self._routes.get("/admin/api/crashes", limit=_MOST_CRASHES)
        # Counted at the end: what a failure left out is asked for again.
        self._looks += 1
        memory = system.get("models") if isinstance(system, Mapping) else None
        memory = memory if isinstance(memory, Mapping) else {}
        now = self._clock.now()
        in_flight = number(details.get("in_flight"))
        return Snapshot(
            at=now,
            version=clean(details.get("version"), 30),
            models=_models(slots, self._files, now),
            queues=None if queues is None and not details else queues_with_gates(queues, details.get("gates")),
            jobs=None if jobs is None and calls is None else (*calls_of(calls, now), *(jobs_of(jobs) or ())),
            crashes=crashes_of(crashes),
            advice=advice_of(self._advice),
            in_flight=None if in_flight is None else int(in_flight),
            memory_used_mib=number(memory.get("reserved_mb")),
            memory_capacity_mib=number(memory.get("capacity_mb")),
        )

    async def start(self, model: Model) -> None:
        body = {"model": model.name, "wait": False}
        await self._connection.ask("POST", "/admin/api/slots/load", body=body, seconds=ACT_SECONDS)
        self._looks = 0

    async def stop(self, model: Model, *, force: bool) -> None:
        query = {"graceful": "false"} if force else {}
        path = f"/admin/api/slots/{model.port}/unload"
        await self._connection.ask("POST", path, query, seconds=ACT_SECONDS)
        self._looks = 0

    async def set_resolution(self, resolution: str) -> None:
        await set_resolution(self._connection, resolution)

    async def set_paused(self, queue: Queue, paused: bool) -> None:
        await set_paused(self._connection, "/admin/api/queues", queue, paused)

    async def cancel(self, job: Job) -> None:
        await cancel(self._connection, job)


async def set_resolution(connection: Connection, resolution: str) -> None:
    await connection.ask("POST", "/admin/ocr/resolution", {"resolution": resolution}, seconds=ACT_SECONDS)


async def set_paused(connection: Connection, path: str, queue: Queue, paused: bool) -> None:
    """`path` is that of all queues."""
    verb = "pause" if paused else "resume"
    await connection.ask("POST", f"{path}/{quote(queue.name, safe='')}/{verb}")


async def cancel(connection: Connection, job: Job) -> None:
    path = "/admin/api/calls" if job.kind == LIVE else "/api/requests"
    await connection.ask("DELETE", f"{path}/{quote(job.id, safe='')}")


def _models(slots: Any, files: Any, now: float) -> tuple[Model, ...]:
    """What is in the slots, then the other models of the folder by name."""
    loaded = [_loaded(row, now) for row in rows(slots) if row.get("model_name")]
    names = {model.name for model in loaded}
    others = [
        Model(name=name, state="unusable" if problem else "stopped", error=problem)
        for row in rows(files)
        if (name := clean(row.get("name"))) and name not in names and row.get("detected_type") != "mmproj"
        for problem in (clean(row.get("problem")),)
    ]
    return (*loaded, *others)


def _loaded(row: Mapping[str, Any], now: float) -> Model:
    since = moment(row.get("loaded_at"))
    state = state_of(row.get("status"))
    return Model(
        name=clean(row["model_name"]),
        state=state,
        port=whole(row.get("port")),
        uptime=None if since is None else max(0.0, now - since),
        healthy={"running": True, "draining": True, "crashed": False}.get(state),
        memory_mib=number(row.get("ram_mb")),
        error=clean(row.get("error")),
    )


async def is_offered(connection: Connection) -> bool:
    """Whether the address has these routes at all. Raises ConsoleTrouble when it cannot be asked."""
    try:
        await connection.get("/admin/api/slots")
    except ConsoleTrouble as trouble:
        if trouble.status in NOT_OFFERED:
            return False
        raise
    return True
