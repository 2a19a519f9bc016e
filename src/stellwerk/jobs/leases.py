"""The workers' side of the queue: takes jobs, keeps them and says what became of them."""

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from sqlalchemy import Connection

from stellwerk.core.clock import Clock
from stellwerk.jobs import finishing, leasing, reading
from stellwerk.jobs.admission import open_body
from stellwerk.jobs.finishing import FinishRules
from stellwerk.jobs.job import Job, JobError, Lease, Leased, Performed, Progress
from stellwerk.jobs.leasing import Given
from stellwerk.jobs.notices import Notices
from stellwerk.jobs.reading import Waiting
from stellwerk.jobs.settings import JobSettings, Run
from stellwerk.storage.sealing import Seal, SealBroken

_OPENED_HERE_BYTES = 64 * 1024
"""A larger body is opened in a thread, where it delays nobody."""

Held = set[tuple[int, int]]


class Leases:
    """Of one process. For the event loop's thread alone; every method raises Unavailable."""

    def __init__(
        self, *, run: Run, fetch: Run, seal: Seal, clock: Clock, settings: JobSettings, notices: Notices
    ) -> None:
        self.owner = secrets.token_hex(8)
        self._run = run
        self._fetch = fetch
        self._seal = seal
        self._clock = clock
        self._settings = settings
        self._notices = notices
        self._rules = FinishRules(
            attempts=settings.attempts,
            result_bytes=settings.result_bytes,
            result_seconds=settings.result_hours * 3600,
        )

    async def waiting(self) -> list[Waiting]:
        """Queues in which something waits."""
        return await self._fetch(reading.waiting_queues)

    async def take(
        self,
        widths: Mapping[str, int],
        count: int,
        free: int | None = None,
        resting: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> list[Leased]:
        """Up to `count` jobs; of each queue in `widths` at most so many run at a time, and none of a key that is
        `resting` in it. `free` is how many workers have nothing to do, as many as there are without it."""
        now = self._clock.now()
        until = now + self._settings.lease_seconds
        work = partial(
            leasing.lease,
            owner=self.owner,
            widths=widths,
            count=count,
            free=self._settings.workers if free is None else free,
            now=now,
            until=until,
            resting=resting,
        )
        leased = []
        for given in await self._run(work):
            self._notices.tell_changed(given.job.id)
            body = await self._open(given)
            if body is None:
                error = JobError(code="body_unreadable", message="The gateway cannot read its copy of the request.")
                await self.finish(given.lease, Performed(status=500, error=error))
            else:
                leased.append(Leased(job=given.job, body=body, lease=given.lease, attempt=given.attempt))
        return leased

    async def _open(self, given: Given) -> bytes | None:
        body = given.body
        if body is None:
            return None
        try:
            if len(body) <= _OPENED_HERE_BYTES:
                return open_body(self._seal, given.job.id, body)
            return await asyncio.to_thread(open_body, self._seal, given.job.id, body)
        except SealBroken:
            return None

    async def finish(self, lease: Lease, performed: Performed) -> Job | None:
        """Stores what came of an attempt. None: the lease is lost, or the job was cancelled."""
        work = partial(
            finishing.finish,
            given=lease,
            performed=performed,
            rules=self._rules,
            seal=self._seal,
            now=self._clock.now(),
        )
        job = await self._run(work)
        if job is None:
            return None
        if job.state.ended:
            self._notices.tell_ended(job)
        else:
            self._notices.tell_changed(job.id)
            self._notices.tell_waiting()
        return job

    async def heartbeat(self) -> Held:
        """Renews all leases; returns number and fence of those that are still held."""
        until = self._clock.now() + self._settings.lease_seconds
        return await self._run(partial(leasing.heartbeat, owner=self.owner, until=until))

    async def held(self) -> Held:
        return await self._fetch(partial(leasing.held, owner=self.owner))

    async def give_back(self, only: Collection[int] | None = None) -> int:
        """What is not finished, or `only` these numbers, is next again and loses no attempt; returns how many."""
        work = partial(leasing.give_back, owner=self.owner, now=self._clock.now(), only=only)
        returned = await self._run(work)
        for job_id in returned:
            self._notices.tell_changed(job_id)
        if returned:
            self._notices.tell_waiting()
        return len(returned)

    async def save_progress(self, said: Sequence[tuple[Lease, Progress]]) -> None:
        await self._run(partial(_save_progress, said=said))
        for lease, _ in said:
            self._notices.tell_changed(lease.job_id)


def _save_progress(connection: Connection, *, said: Sequence[tuple[Lease, Progress]]) -> None:
    for lease, progress in said:
        finishing.set_progress(connection, lease, progress)
