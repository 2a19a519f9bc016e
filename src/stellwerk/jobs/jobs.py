"""The jobs of one gateway: takes them, tells what became of them, and keeps their table in order."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial

import msgspec
from sqlalchemy import Connection

from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest
from stellwerk.jobs import admission, ending, queues, reading, retention
from stellwerk.jobs.admission import MOST_TOGETHER, Bounds, Entry, open_body, open_result
from stellwerk.jobs.intake import Answers, Intake, Submit
from stellwerk.jobs.job import Attempt, Job, JobEvent, NewJob, QueueCounts, Standing, State
from stellwerk.jobs.leases import Leases
from stellwerk.jobs.notices import Notices
from stellwerk.jobs.noting import NoteEnd, noting_ends
from stellwerk.jobs.reading import Filter
from stellwerk.jobs.settings import JobSettings, Run
from stellwerk.jobs.upkeep import Upkeep
from stellwerk.storage.room import no_room
from stellwerk.storage.sealing import Seal, SealBroken

_CANCELLED_AT_ONCE = 200


class Jobs:
    """For the event loop's thread alone. Every method that asks the storage raises Unavailable.

    Who may see or change whose job is the caller's business. Unknown ids raise NotFound, code `job_not_found`.
    """

    def __init__(
        self,
        *,
        run: Run,
        submit: Submit,
        fetch: Run,
        seal: Seal,
        clock: Clock,
        settings: JobSettings | None = None,
        on_finished: Callable[[Job], None] | None = None,
        note_end: NoteEnd | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        """`run`, `submit` and `fetch` are those of the storage. `note_end` is told of every job that ends here with the
        transaction that ends it, `on_finished` after the commit; that does not raise. Without room on the disk no job
        is taken, and none begun."""
        self.has_room = has_room
        if note_end is not None:
            run = noting_ends(run, note_end)
        self.settings = settings or JobSettings()
        self.notices = Notices()
        if on_finished is not None:
            self.notices.hear_ends(on_finished)
        self.leases = Leases(run=run, fetch=fetch, seal=seal, clock=clock, settings=self.settings, notices=self.notices)
        self._run = run
        self._fetch = fetch
        self._seal = seal
        self._clock = clock
        self._bounds = Bounds(
            max_waiting=self.settings.max_waiting,
            max_waiting_per_client=self.settings.max_waiting_per_client,
            deadline_seconds=self.settings.deadline_seconds,
        )
        self._intake = Intake(submit, self._admit)
        self._upkeep = Upkeep(
            run=run,
            fetch=fetch,
            clock=clock,
            settings=self.settings,
            notices=self.notices,
            owner=self.leases.owner,
        )

    # --- queueing

    async def enqueue(self, new: NewJob) -> Job:
        """Returns after the commit. An idempotency key that was used for the same request returns that job.

        Raises Unavailable, codes `queue_full` and `storage_full`; Conflict, code `idempotency_key_reused`; BadRequest;
        NotFound when the parent does not exist or has ended.
        """
        return (await self.enqueue_all([new]))[0]

    async def enqueue_all(self, group: Sequence[NewJob]) -> list[Job]:
        """The same for many in one step: all of them, or none."""
        if len(group) > MOST_TOGETHER:
            raise BadRequest(f"At most {MOST_TOGETHER} jobs can be queued in one step.")
        for new in group:
            admission.check(new)
        if not self.has_room():
            raise no_room()
        made = await self._intake.add([Entry(str(uuid.uuid4()), new) for new in group])
        self.notices.tell_waiting()
        return made

    def _admit(self, connection: Connection, /, *, groups: list[Sequence[Entry]]) -> Answers:
        return admission.admit(connection, groups, self._bounds, self._seal, self._clock.now())

    # --- asking

    async def get(self, job_id: str, *, with_result: bool = False) -> Job:
        return await self._fetch(partial(self._get, job_id=job_id, with_result=with_result))

    async def list(
        self,
        *,
        key_id: str | None = None,
        user_id: int | None = None,
        queue: str | None = None,
        states: Collection[State] = (),
        batch_id: str | None = None,
        parent_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """The newest first, at most 1,000; `before` is the id of a job."""
        wanted = Filter(
            key_id=key_id,
            user_id=user_id,
            queue=queue,
            states=states,
            batch_id=batch_id,
            parent_id=parent_id,
            before=before,
            limit=limit,
        )
        return await self._fetch(partial(reading.list_jobs, wanted=wanted))

    async def body(self, job_id: str) -> bytes:
        """What it was asked with. Raises NotFound also when it has ended: nobody needs it any more."""
        sealed = await self._fetch(partial(reading.find_body, job_id=job_id))
        try:
            return await asyncio.to_thread(open_body, self._seal, job_id, sealed)
        except SealBroken:
            raise reading.job_not_found() from None

    async def children(self, job_id: str, *, with_result: bool = False) -> "Sequence[Job]":
        """In the order in which they were queued."""
        return await self._fetch(partial(self._children, job_id=job_id, with_result=with_result))

    async def attempts(self, job_id: str) -> Sequence[Attempt]:
        return await self._fetch(partial(reading.attempts, job_id=job_id))

    async def batch_counts(self, batch_id: str) -> dict[State, int]:
        return await self._fetch(partial(reading.batch_counts, batch_id=batch_id))

    async def standing(self, job_id: str) -> Standing | None:
        """None when it does not wait."""
        return await self._fetch(partial(reading.standing, job_id=job_id, now=self._clock.now()))

    async def counts(self, queue: str) -> QueueCounts:
        """Zeros for a queue that never had a job."""
        found = await self._fetch(partial(reading.count_queues, queue=queue))
        return found[0] if found else queues.empty(queue)

    async def waiting(self, queue: str) -> int:
        """Requests that wait for a model. Parts of one, such as the pages of a document, are not requests."""
        return await self._fetch(partial(admission.waiting_for, queue=queue))

    async def queues(self) -> Sequence[QueueCounts]:
        """Of every model that ever had a job, by name."""
        return await self._fetch(reading.count_queues)

    def _get(self, connection: Connection, *, job_id: str, with_result: bool) -> Job:
        job = reading.find(connection, job_id)
        return self._with_result(connection, job) if with_result else job

    def _children(self, connection: Connection, *, job_id: str, with_result: bool) -> Sequence[Job]:
        found = reading.children(connection, job_id)
        return [self._with_result(connection, job) for job in found] if with_result else found

    def _with_result(self, connection: Connection, job: Job) -> Job:
        sealed = reading.find_result(connection, job.id)
        if sealed is None:
            return job
        try:
            return msgspec.structs.replace(job, result=open_result(self._seal, job.id, sealed))
        except SealBroken:
            return msgspec.structs.replace(job, result_kept=False)

    # --- changing

    async def cancel(self, job_id: str) -> Job:
        """Ends a job that has not ended, whatever it is doing, and its children; an ended one stays as it is."""
        ended = await self._run(partial(ending.cancel, job_id=job_id, now=self._clock.now()))
        for job in ended:
            self.notices.tell_ended(job)
        return ended[0] if ended else await self.get(job_id)

    async def cancel_batch(self, batch_id: str) -> int:
        """Returns how many jobs this has ended."""
        count = 0
        work = partial(ending.cancel_batch, batch_id=batch_id, now=self._clock.now(), most=_CANCELLED_AT_ONCE)
        while ended := await self._run(work):
            count += len(ended)
            for job in ended:
                self.notices.tell_ended(job)
        return count

    async def forget(self, job_id: str) -> None:
        """Cancels a job that has not ended, and deletes it with its result."""
        await self.cancel(job_id)
        await self._run(partial(retention.forget, job_id=job_id))

    async def retry(self, job_id: str) -> Job:
        """Queues a dead job again, with all of its attempts and a new deadline.

        Raises Conflict, code `job_not_dead`, and Unavailable, code `queue_full`.
        """
        work = partial(queues.queue_again, job_id=job_id, bounds=self._bounds, now=self._clock.now())
        job = await self._run(work)
        self.notices.tell_changed(job_id)
        self.notices.tell_waiting()
        return job

    async def pause(self, queue: str) -> QueueCounts:
        """No job of this queue begins until it is resumed, also after a restart; running ones go on."""
        return await self._run(partial(queues.pause, queue=queue, paused=True))

    async def resume(self, queue: str) -> QueueCounts:
        counts = await self._run(partial(queues.pause, queue=queue, paused=False))
        self.notices.tell_waiting()
        return counts

    # --- watching

    async def wait(self, job_id: str, seconds: float, *, with_result: bool = True) -> Job:
        """The job when it has ended, or as it is after so many seconds."""
        with self.notices.watch(job_id) as watch, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (await self.get(job_id)).state.ended:
                    await watch.news()
        return await self.get(job_id, with_result=with_result)

    async def follow(self, job_id: str) -> AsyncIterator[JobEvent]:
        """How it stands now and everything that happens to it, up to its end."""
        with self.notices.watch(job_id) as watch:
            job = await self.get(job_id)
            yield JobEvent(type="state", job=job)
            told: Standing | None = None
            while True:
                for piece in watch.pieces():
                    yield piece
                if job.state.ended:
                    yield JobEvent(type="end", job=job)
                    return
                is_waiting = job.state is State.QUEUED
                standing = await self.standing(job_id) if is_waiting else None
                if standing is not None and standing != told:
                    yield JobEvent(type="position", standing=standing)
                told = standing
                await watch.news(self.settings.look_seconds if is_waiting else None)
                if watch.take_stale():
                    before, job = job, await self.get(job_id)
                    if job.progress is not None and job.progress != before.progress:
                        yield JobEvent(type="progress", progress=job.progress)
                    if not job.state.ended and (job.state, job.attempts) != (before.state, before.attempts):
                        yield JobEvent(type="state", job=job)

    # --- keeping

    async def recover(self) -> int:
        """Queues again what other owners have leased; returns how many jobs.

        For the start of the one process that serves, when every other owner is gone.
        """
        return await self._upkeep.recover()

    async def run(self) -> None:
        """Ends what is overdue, takes back what is lost, forgets what is old; until cancelled."""
        await self._upkeep.run()
