"""Runs a batch: makes a job of every line, and files of their answers when all have ended.

The batch is a job itself, which waits for those of its lines: it survives whatever they survive.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Connection

from stellwerk.api.jobs.intake import Intake, holder_of
from stellwerk.api.jobs.performer import CALL, FindPrincipal
from stellwerk.api.openai.batch_lines import (
    MOST_ERRORS,
    MOST_LINES,
    Line,
    Problem,
    is_answered,
    is_expired,
    read_lines,
    write_line,
)
from stellwerk.api.openai.file_store import KEPT_SECONDS, FileStore, FileWriter
from stellwerk.core.errors import GatewayError, NotFound
from stellwerk.core.principal import Principal
from stellwerk.jobs.job import Job, JobError, Leased, NewJob, Performed, State
from stellwerk.jobs.jobs import Jobs
from stellwerk.jobs.sink import Sink
from stellwerk.records import batches, files
from stellwerk.records.batches import StoredBatch
from stellwerk.records.files import StoredFile

BATCH = "batch"
"""The kind of these jobs, and the queue that they are in is `batches`."""
QUEUE = "batches"
_CHECKED_AT_ONCE = 20
_WINDOW_SECONDS = 24 * 3600.0


class AskedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What the job's body says; the rest follows from the job."""

    id: str
    endpoint: str
    input_file_id: str
    labels: dict[str, str] | None


def make_batch(job: Job, body: bytes) -> StoredBatch:
    asked = msgspec.json.decode(body, type=AskedBatch)
    return StoredBatch(
        id=asked.id,
        job_id=job.id,
        key_id=job.key_id,
        user_id=job.user_id,
        endpoint=asked.endpoint,
        input_file_id=asked.input_file_id,
        labels=asked.labels,
        created_at=job.created_at,
        expires_at=job.created_at + _WINDOW_SECONDS,
    )


class BatchPerformer:
    def __init__(self, jobs: Jobs, intake: Intake, store: FileStore, find_principal: FindPrincipal) -> None:
        self._jobs = jobs
        self._intake = intake
        self._store = store
        self._find_principal = find_principal
        self._settling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, leased: Leased, _sink: Sink) -> Performed:
        job = leased.job
        batch = await self._store.run(partial(batches.ensure, batch=make_batch(job, leased.body)))
        if batch.status is None and not await self._jobs.children(job.id):
            return await self._split(job, batch)
        await self.settle(batch)
        return Performed(status=200)

    async def _split(self, job: Job, batch: StoredBatch) -> Performed:
        principal = self._find_principal(job.key_id, job.user_id)
        lines, problems = await self._read(principal, batch)
        if not lines and not problems:
            problems = [Problem(code="empty_file", message="The input file has no requests.")]
        if problems:
            await self._end(batch, "failed", errors=[msgspec.to_builtins(problem) for problem in problems])
            return Performed(status=400, error=JobError(code=problems[0].code, message=problems[0].message))
        await self._store.run(partial(batches.change, batch_id=batch.id, total=len(lines)))
        seconds = max(batch.expires_at - self._store.clock.now(), 1.0)
        await self._jobs.enqueue_all(
            [
                NewJob(
                    kind=CALL,
                    queue=queue,
                    path=batch.endpoint,
                    body=line.body,
                    key_id=job.key_id,
                    user_id=job.user_id,
                    client_id=job.client_id,
                    holder=holder_of(principal),
                    priority=job.priority,
                    deadline_seconds=seconds,
                    parent_id=job.id,
                    batch_id=batch.id,
                    labels={"custom_id": line.custom_id},
                )
                for line, queue in lines
            ]
        )
        return Performed.wait_for_children()

    async def _read(self, principal: Principal, batch: StoredBatch) -> tuple[list[tuple[Line, str]], list[Problem]]:
        """The lines with their queues; of those that are wrong as many as a client is told."""
        try:
            file = await self._store.find(batch.input_file_id)
            content = await self._store.read(file.id)
        except NotFound as error:
            return [], [Problem(code="file_not_found", message=error.message, param="input_file_id")]
        lines: list[tuple[Line, str]] = []
        problems: list[Problem] = []
        for count, line in enumerate(read_lines(content, batch.endpoint), start=1):
            if count > MOST_LINES:
                problems.append(Problem(code="too_many_requests", message=f"A batch has {MOST_LINES} lines at most."))
            if len(problems) >= MOST_ERRORS or count > MOST_LINES:
                break
            if count % _CHECKED_AT_ONCE == 0:
                # Thousands of lines must not hold up everybody else.
                await asyncio.sleep(0)
            if isinstance(line, Problem):
                problems.append(line)
                continue
            try:
                checked = await self._intake.check(principal, batch.endpoint, line.body)
            except GatewayError as error:
                problems.append(Problem(code=error.code, message=error.message, line=line.number, param=error.param))
            else:
                lines.append((line, checked.queue))
        return lines, problems

    # --- the end

    async def settle(self, batch: StoredBatch) -> StoredBatch:
        """Makes the files of a batch whose jobs have all ended. What is done once is not done again."""
        lock = self._settling.setdefault(batch.id, asyncio.Lock())
        async with lock:
            batch = await self._store.fetch(partial(batches.find, batch_id=batch.id))
            if batch.status is None:
                await self._settle(batch)
            return await self._store.fetch(partial(batches.find, batch_id=batch.id))

    async def _settle(self, batch: StoredBatch) -> None:
        children = await self._jobs.children(batch.job_id)
        if not children:
            await self._end_without_lines(batch)
            return
        cancelled = batch.cancelling_at is not None
        writers = await self._open(batch, "output"), await self._open(batch, "error")
        completed = 0
        expired = False
        for child in children:
            # One by one: together the answers of thousands would not fit into memory.
            job = await self._jobs.get(child.id, with_result=True) if child.result_kept else child
            answered = is_answered(job)
            completed += answered
            expired = expired or is_expired(job)
            await writers[0 if answered else 1].write(write_line(job, cancelled=cancelled))
        status = "cancelled" if cancelled else "expired" if expired else "completed"
        await self._end(
            batch,
            status,
            writers=writers,
            total=len(children),
            completed=completed,
            failed=sum(child.state in (State.FAILED, State.DEAD) for child in children),
        )

    async def _end_without_lines(self, batch: StoredBatch) -> None:
        job = await self._jobs.get(batch.job_id)
        if batch.cancelling_at is not None or job.state is State.CANCELLED:
            await self._end(batch, "cancelled")
            return
        error = job.error or JobError(code="failed", message="The batch could not be begun.")
        problem = Problem(code=error.code, message=error.message)
        await self._end(batch, "failed", errors=[msgspec.to_builtins(problem)])

    async def _open(self, batch: StoredBatch, kind: str) -> FileWriter:
        now = self._store.clock.now()
        # The same id in every attempt: what an earlier one has left goes.
        file = StoredFile(
            id=f"file-{batch.id.removeprefix('batch_')}{kind[0]}",
            key_id=batch.key_id,
            user_id=batch.user_id,
            purpose="batch_output",
            name=f"{batch.id}_{kind}.jsonl",
            size=0,
            created_at=now,
            expires_at=now + KEPT_SECONDS,
        )
        return await self._store.begin(file)

    async def _end(
        self, batch: StoredBatch, status: str, *, writers: Sequence[FileWriter] = (), **columns: object
    ) -> None:
        for writer in writers:
            await writer.flush()
        now = self._store.clock.now()

        def end(connection: Connection) -> None:
            ids: list[str | None] = []
            for writer in writers:
                if writer.size:
                    files.complete(connection, writer.file_id, writer.size)
                else:
                    files.delete_file(connection, writer.file_id)
                ids.append(writer.file_id if writer.size else None)
            output, error = ids or (None, None)
            batches.change(
                connection,
                batch.id,
                status=status,
                ended_at=now,
                output_file_id=output,
                error_file_id=error,
                **columns,
            )

        await self._store.run(end)
