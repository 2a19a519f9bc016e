"""What administrators see and switch: models, queues, crashes, and models that somebody asked for in vain."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec
from sqlalchemy import Connection

from stellwerk.api._guard import Request, Routes
from stellwerk.api._transactions import RunInTransaction
from stellwerk.api.ai_gateway.models import Models, naive
from stellwerk.api.ai_gateway.names import ModelNames
from stellwerk.api.ai_gateway.requests import read_limit, read_query, read_resolution, read_switch
from stellwerk.api.ai_gateway.resolution import Resolution
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.principal import ADMINS
from stellwerk.engines.crashes import MOST_CRASHES, Crash, list_crashes
from stellwerk.http.exchange import Headers
from stellwerk.jobs.job import QueueCounts
from stellwerk.records import audit
from stellwerk.records.audit import Actor
from stellwerk.records.missing_models import MissingModel, list_missing

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_MOST_ROWS = 10_000


class Queues(Protocol):
    """The part of `Jobs` that is needed here."""

    async def counts(self, queue: str) -> QueueCounts: ...

    async def pause(self, queue: str) -> QueueCounts: ...

    async def resume(self, queue: str) -> QueueCounts: ...


class AdministrationAPI:
    def __init__(
        self,
        *,
        models: Models,
        names: ModelNames,
        jobs: Queues,
        resolution: Resolution,
        run: RunInTransaction,
        fetch: RunInTransaction,
        clock: Clock,
        queue_of: Callable[[str], str],
        width: Callable[[str], int | None],
        workers: int,
        max_waiting: int,
    ) -> None:
        """`queue_of` says in whose queue the jobs of a model are, `width` how many of them may run at the same time;
        None is as many as there are `workers`. `max_waiting` is how many may wait."""
        self._models = models
        self._names = names
        self._jobs = jobs
        self._resolution = resolution
        self._run = run
        self._fetch = fetch
        self._clock = clock
        self._queue_of = queue_of
        self._width = width
        self._workers = workers
        self._max_waiting = max_waiting

    def register(self, routes: Routes) -> None:
        routes.add("GET", "/admin/models", ADMINS, self._show_models)
        routes.add("POST", "/admin/models/{name}/start", ADMINS, self._start)
        routes.add("POST", "/admin/models/{name}/stop", ADMINS, self._stop)
        routes.add("POST", "/admin/ocr/resolution", ADMINS, self._switch_resolution)
        routes.add("GET", "/admin/queue/{name}", ADMINS, self._show_queue)
        routes.add("POST", "/admin/queue/{name}/pause", ADMINS, self._pause_queue)
        routes.add("POST", "/admin/queue/{name}/resume", ADMINS, self._resume_queue)
        routes.add("GET", "/admin/crashes", ADMINS, self._show_crashes)
        routes.add("GET", "/admin/missing-models", ADMINS, self._show_missing)

    # --- models

    async def _show_models(self, request: Request) -> None:
        _respond(request, self._models.show_all())

    async def _start(self, request: Request) -> None:
        name, query = _name(request, "start"), read_query(request.exchange)
        resolution = query.get("resolution")
        if resolution is not None:
            read_resolution(resolution)
        await self._record(request, "model.start", f"model:{name}", {"resolution": resolution})
        await asyncio.shield(self._models.start(name))
        if resolution is not None and self._names.reads(name):
            self._resolution.switch(resolution)
        _respond(request, {"status": "started", "model": name})

    async def _stop(self, request: Request) -> None:
        name = _name(request, "stop")
        graceful = read_switch(read_query(request.exchange), "graceful", default=True)
        await self._record(request, "model.stop", f"model:{name}", {"graceful": graceful})
        # Whoever leaves early must not leave a model half unloaded.
        await asyncio.shield(self._models.stop(name, graceful=graceful))
        _respond(request, {"status": "stopped", "model": name})

    async def _switch_resolution(self, request: Request) -> None:
        query = read_query(request.exchange)
        given = query.get("resolution")
        if given is None:
            raise BadRequest("Missing required parameter: 'resolution'.", param="resolution")
        # Nothing is restarted, so there is nobody to be graceful with; each request is read as it was queued.
        read_switch(query, "graceful", default=True)
        resolution = read_resolution(given)
        await self._record(request, "ocr.resolution", "ocr", {"resolution": resolution})
        self._resolution.switch(resolution)
        message = f"OCR resolution switched to {resolution}"
        _respond(request, {"status": "switched", "resolution": resolution, "message": message})

    # --- records

    async def _show_queue(self, request: Request) -> None:
        name = _name(request)
        self._respond_queue(request, name, await self._jobs.counts(self._queue(name)))

    async def _pause_queue(self, request: Request) -> None:
        name = _name(request, "pause")
        queue = self._queue(name)
        await self._record(request, "queue.pause", f"queue:{queue}", {})
        self._respond_queue(request, name, await self._jobs.pause(queue))

    async def _resume_queue(self, request: Request) -> None:
        name = _name(request, "resume")
        queue = self._queue(name)
        await self._record(request, "queue.resume", f"queue:{queue}", {})
        self._respond_queue(request, name, await self._jobs.resume(queue))

    def _queue(self, name: str) -> str:
        """Raises NotFound in the documented words."""
        meant = self._names.any(name)
        if meant.model is None and name not in self._names.shorts:
            raise NotFound(f"Queue for {name[:200]} not found", code="queue_not_found")
        return name if meant.model is None else self._queue_of(meant.model)

    def _respond_queue(self, request: Request, name: str, counts: QueueCounts) -> None:
        width = self._width(counts.queue) or self._workers
        body = {
            "model": name,
            "processing": counts.processing,
            "waiting": counts.waiting,
            "max_concurrent": width,
            "max_waiting": self._max_waiting,
            "total_processed": counts.total_processed,
            "total_failed": counts.total_failed,
            "total_timeout": counts.total_timeout,
            "utilization": min(1.0, counts.processing / width),
        }
        if counts.paused:
            # Only then: otherwise the answer is as documented.
            body["paused"] = True
        _respond(request, body)

    async def _show_crashes(self, request: Request) -> None:
        limit = read_limit(read_query(request.exchange), MOST_CRASHES)
        found = await self._fetch(lambda connection: list_crashes(connection, limit=limit))
        _respond(request, [_show_crash(crash) for crash in found])

    async def _show_missing(self, request: Request) -> None:
        limit = read_limit(read_query(request.exchange), _MOST_ROWS)
        found = await self._fetch(lambda connection: list_missing(connection, limit))
        _respond(request, [_show_missing(row) for row in found])

    async def _record(self, request: Request, action: str, subject: str, details: dict[str, Any]) -> None:
        """Before the deed: nothing of what follows is undone when the storage cannot be reached."""
        caller, now = request.caller, self._clock.now()
        actor = Actor(name=caller.name, key_id=caller.key_id, peer=request.exchange.peer)
        said = {name: value for name, value in details.items() if value is not None}

        def append(connection: Connection) -> None:
            audit.append(connection, actor, action, subject[:200], said, now=now)

        await self._run(append)


def _name(request: Request, last: str = "") -> str:
    """The name in the path, before its last part."""
    path = request.exchange.path.removesuffix(f"/{last}") if last else request.exchange.path
    return unquote(path.rpartition("/")[2], errors="replace")


def _show_crash(crash: Crash) -> dict[str, Any]:
    return {
        "timestamp": naive(crash.at),
        "error": crash.reason,
        "model": crash.model,
        "request_id": crash.request_ids[0] if crash.request_ids else None,
        "stack_trace": "\n".join(crash.last_lines),
    }


def _show_missing(row: MissingModel) -> dict[str, Any]:
    return {"model_name": row.name, "client_id": row.client_id or row.key_id, "timestamp": naive(row.last_at)}


def _respond(request: Request, body: Any) -> None:
    headers = ((b"x-request-id", request.id.encode()), *_JSON)
    request.exchange.respond(200, headers, msgspec.json.encode(body))
