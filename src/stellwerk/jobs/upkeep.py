"""What has to be done for jobs every now and then, whoever works on them."""

import asyncio
import logging
from functools import partial

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.jobs import leasing, reading
from stellwerk.jobs.job import Job
from stellwerk.jobs.notices import Notices
from stellwerk.jobs.reading import Sight
from stellwerk.jobs.retention import PRUNED_AT_ONCE, prune
from stellwerk.jobs.settings import JobSettings, Run

_log = logging.getLogger(__name__)


class Upkeep:
    """For the event loop's thread alone."""

    def __init__(
        self, *, run: Run, fetch: Run, clock: Clock, settings: JobSettings, notices: Notices, owner: str
    ) -> None:
        self._run = run
        self._fetch = fetch
        self._clock = clock
        self._settings = settings
        self._notices = notices
        self._owner = owner
        self._seen: dict[str, Sight] = {}
        self._prune_at = clock.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Unavailable:
                # Readiness reports the storage; the next look may succeed.
                pass
            except Exception:  # noqa: BLE001 - the supervisor: jobs wait, and the next look may succeed
                _log.exception("the jobs cannot be looked after")
            await asyncio.sleep(self._settings.look_seconds)

    async def look(self) -> None:
        """Raises Unavailable."""
        await self._end_overdue()
        await self._look_at_watched()
        now = self._clock.monotonic()
        if now >= self._prune_at:
            history_seconds = self._settings.history_days * 24 * 3600
            pruned = await self._run(partial(prune, now=self._clock.now(), history_seconds=history_seconds))
            self._prune_at = now if pruned >= PRUNED_AT_ONCE else now + self._settings.prune_seconds

    async def recover(self) -> int:
        """Takes back what every other owner has leased; returns how many jobs."""
        recovered = 0
        while back := await self._take_back(at_once=True):
            recovered += len(back)
            if len(back) < leasing.LOST_AT_ONCE:
                break
        return recovered

    async def _end_overdue(self) -> None:
        now = self._clock.now()
        if not await self._fetch(partial(reading.has_overdue, owner=self._owner, now=now)):
            return
        for job in await self._run(partial(leasing.expire, now=now)):
            self._notices.tell_ended(job)
        await self._take_back(at_once=False)

    async def _take_back(self, *, at_once: bool) -> list[Job]:
        work = partial(
            leasing.take_back_lost,
            now=self._clock.now(),
            but=self._owner,
            attempts=self._settings.attempts,
            at_once=at_once,
        )
        back = await self._run(work)
        for job in back:
            if job.state.ended:
                _log.error("the job %s is given up: the gateway ended while it worked on it, every time", job.id)
                self._notices.tell_ended(job)
            else:
                self._notices.tell_changed(job.id)
        if back:
            self._notices.tell_waiting()
        return back

    async def _look_at_watched(self) -> None:
        """Finds what other processes have changed."""
        watched = self._notices.watched
        if not watched:
            self._seen = {}
            return
        seen = await self._fetch(partial(reading.look_at, ids=watched))
        for job_id in watched:
            if seen.get(job_id) != self._seen.get(job_id):
                self._notices.tell_changed(job_id)
        self._seen = seen
