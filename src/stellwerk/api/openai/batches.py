"""OpenAI's /v1/batches: thousands of requests in one file, answered within a day."""

import asyncio
import hashlib
import os
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api._bodies import decode_body
from stellwerk.api._guard import Request, Routes
from stellwerk.api.jobs.intake import Intake, headers_of_call, new_job
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.openai.batch_lines import ENDPOINTS
from stellwerk.api.openai.batch_performer import BATCH, QUEUE, AskedBatch, BatchPerformer, make_batch
from stellwerk.api.openai.file_store import FileStore
from stellwerk.api.openai.files import FilesAPI, read_id, read_query, respond, show_list
from stellwerk.core.errors import BadRequest, Conflict, NotFound
from stellwerk.core.principal import CALLERS, READERS, Priority
from stellwerk.jobs.job import State
from stellwerk.jobs.jobs import Jobs
from stellwerk.records import batches
from stellwerk.records.batches import StoredBatch

_MOST_LABELS = 16


class NewBatch(msgspec.Struct, kw_only=True):
    """POST /v1/batches."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=40)]
    endpoint: str
    completion_window: Literal["24h"]
    metadata: dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]] | None = None
    output_expires_after: Any = None


class ListQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[str, Meta(max_length=40)] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


_NEW = msgspec.json.Decoder(NewBatch)


class BatchesAPI:
    def __init__(
        self,
        jobs: Jobs,
        intake: Intake,
        store: FileStore,
        files: FilesAPI,
        performer: BatchPerformer,
        ownership: Ownership,
    ) -> None:
        self._jobs = jobs
        self._intake = intake
        self._store = store
        self._files = files
        self._performer = performer
        self._ownership = ownership
        self._turn = asyncio.Lock()

    def register(self, routes: Routes) -> None:
        routes.add("POST", "/v1/batches", CALLERS, self._create)
        routes.add("GET", "/v1/batches", READERS, self._list)
        routes.add("GET", "/v1/batches/{batch_id}", READERS, self._show)
        routes.add("POST", "/v1/batches/{batch_id}/cancel", CALLERS, self._cancel)

    async def _create(self, request: Request) -> None:
        exchange, caller = request.exchange, request.caller
        body = decode_body(exchange.body, exchange.headers.get(b"content-type"), _NEW)
        if body.endpoint not in ENDPOINTS:
            raise BadRequest(f"'endpoint' is one of {', '.join(ENDPOINTS)}.", param="endpoint")
        if body.metadata and len(body.metadata) > _MOST_LABELS:
            raise BadRequest(f"'metadata' has {_MOST_LABELS} pairs at most.", param="metadata")
        file = await self._files.find(request, body.input_file_id)
        if file.purpose != "batch":
            raise BadRequest("The input file's purpose is not 'batch'.", param="input_file_id")
        asked = AskedBatch(
            id=_batch_id(caller.key_id, exchange.headers.get(b"idempotency-key")),
            endpoint=body.endpoint,
            input_file_id=file.id,
            labels=body.metadata,
        )
        content = msgspec.json.encode(asked)
        new = new_job(
            request,
            kind=BATCH,
            queue=QUEUE,
            path="/v1/batches",
            body=content,
            labels={"batch": asked.id},
            # Who does not say has time.
            priority=None if b"x-stellwerk-priority" in headers_of_call(exchange.headers) else Priority.LOW,
        )
        # One after the other: else many at once would all find the same room.
        async with self._turn:
            whose = self._files.whose(request)
            if await self._store.fetch(partial(batches.count_open, whose=whose)) >= batches.MOST_OPEN:
                raise Conflict(f"{batches.MOST_OPEN} batches at most go on at a time.", code="too_many_batches")
            job = await self._jobs.enqueue(new)
            batch = await self._store.run(partial(batches.ensure, batch=make_batch(job, content)))
        respond(request, await self._describe(batch))

    async def _list(self, request: Request) -> None:
        query = read_query(request, ListQuery)
        whose = self._files.whose(request)
        found = await self._store.fetch(
            partial(batches.list_batches, whose=whose, after=query.after, limit=query.limit + 1)
        )
        rows = [await self._describe(batch) for batch in found[: query.limit]]
        respond(request, show_list(rows, len(found) > query.limit))

    async def _show(self, request: Request) -> None:
        respond(request, await self._describe(await self._find(request)))

    async def _cancel(self, request: Request) -> None:
        batch = await self._find(request)
        if batch.status is not None:
            raise Conflict(f"The batch is {batch.status} already.", code="batch_ended")
        now = self._store.clock.now()

        def note(connection: Connection) -> None:
            batches.change(connection, batch.id, cancelling_at=now)

        await self._store.run(note)
        await self._jobs.cancel(batch.job_id)
        respond(request, await self._describe(await self._performer.settle(batch)))

    async def _find(self, request: Request) -> StoredBatch:
        """Raises NotFound, in the same words for what is not there and for what is not his."""
        batch = await self._store.fetch(partial(batches.find, batch_id=read_id(request, 3)))
        if not self._ownership.may_see(request.caller, batch):
            raise batches.batch_not_found()
        return batch

    async def _describe(self, batch: StoredBatch) -> dict[str, Any]:
        """How it stands. One whose job has ended without it, in a crash say, is brought to its end first."""
        if batch.status is None and batch.job_id:
            try:
                job = await self._jobs.get(batch.job_id)
            except NotFound:
                return show_batch(batch, {})
            if job.state.ended:
                batch = await self._performer.settle(batch)
        counts = {} if batch.status is not None else await self._jobs.batch_counts(batch.id)
        return show_batch(batch, counts)


def _batch_id(key_id: str, idempotency_key: bytes | None) -> str:
    """The same one for a request that is sent again."""
    if idempotency_key is None:
        return f"batch_{os.urandom(12).hex()}"
    return f"batch_{hashlib.sha256(key_id.encode() + b' ' + idempotency_key).hexdigest()[:24]}"


def show_batch(batch: StoredBatch, counts: dict[State, int]) -> dict[str, Any]:
    """`counts` are the states of its jobs, as long as it goes on."""
    completed, failed = batch.completed, batch.failed
    if batch.status is None:
        completed, failed = counts.get(State.DONE, 0), counts.get(State.FAILED, 0) + counts.get(State.DEAD, 0)
    status = batch.status or _open_status(batch, counts)
    ended = None if batch.ended_at is None else int(batch.ended_at)
    begun = int(batch.created_at) if batch.total or counts else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": None if batch.errors is None else {"object": "list", "data": batch.errors},
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "in_progress_at": begun,
        "expires_at": int(batch.expires_at),
        "finalizing_at": ended if status in ("completed", "expired") else None,
        "completed_at": ended if status == "completed" else None,
        "failed_at": ended if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": None if batch.cancelling_at is None else int(batch.cancelling_at),
        "cancelled_at": ended if status == "cancelled" else None,
        "request_counts": {"total": batch.total, "completed": completed, "failed": failed},
        "metadata": batch.labels,
    }


def _open_status(batch: StoredBatch, counts: dict[State, int]) -> str:
    if batch.cancelling_at is not None:
        return "cancelling"
    if not counts:
        return "validating"
    return "in_progress" if any(not state.ended for state in counts) else "finalizing"
