"""Performs jobs: as many at a time as there are workers, and of each model as many as it takes."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, RateLimited, Unavailable
from stellwerk.jobs.finishing import TIMED_OUT
from stellwerk.jobs.job import Job, JobError, Leased, Performed
from stellwerk.jobs.jobs import Jobs
from stellwerk.jobs.leases import Held
from stellwerk.jobs.rests import Rests
from stellwerk.jobs.schedule import may_grow
from stellwerk.jobs.sink import Sink

_TAKEN_AT_ONCE = 16

_log = logging.getLogger(__name__)

Perform = Callable[[Leased, Sink], Awaitable[Performed]]


class _Running:
    __slots__ = ("abandoned", "leased", "sink", "task")

    def __init__(self, leased: Leased, sink: Sink, task: asyncio.Task[Performed]) -> None:
        self.leased = leased
        self.sink = sink
        self.task = task
        """What the performer does."""
        self.abandoned = False
        """What comes of it does not count any more."""

    @property
    def key(self) -> tuple[int, int]:
        return self.leased.lease.number, self.leased.lease.fence

    def abandon(self) -> None:
        self.abandoned = True
        self.task.cancel()


class Workers:
    """For the event loop's thread alone."""

    def __init__(
        self,
        jobs: Jobs,
        perform: Perform,
        widths: Callable[[str], int | None] | None = None,
        *,
        clock: Clock,
    ) -> None:
        """`perform` does one attempt; an error that it raises counts as its outcome. `widths` says how many jobs of a
        queue may run at a time, None for as many as there are workers."""
        self._jobs = jobs
        self._perform = perform
        self._widths = widths or (lambda _: None)
        self._clock = clock
        self._settings = jobs.settings
        self._leases = jobs.leases
        self._running: dict[str, _Running] = {}
        self._works: set[asyncio.Task[None]] = set()
        self._known: Held = set()
        """Leases that somebody here works on, or whose outcome is being stored."""
        self._rests = Rests(clock)
        self._wake = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()
        self._orphans: Held = set()
        self._beat_at = clock.monotonic()
        jobs.notices.hear_waiting(self._wake.set)
        jobs.notices.hear_ends(self._hear_end)

    @property
    def running(self) -> int:
        return len(self._works)

    async def run(self) -> None:
        """Takes and performs jobs until `stop`."""
        beating = asyncio.create_task(self._beat())
        try:
            while not self._stopping:
                self._wake.clear()
                await self._take_all()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.look_seconds):
                        await self._wake.wait()
            await self._stopped.wait()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def stop(self, seconds: float = 30.0) -> None:
        """Takes no more jobs, waits so long for those that run, and gives back the rest: they lose no attempt."""
        self._stopping = True
        self._wake.set()
        if self._works:
            await asyncio.wait(self._works, timeout=seconds)
        for running in self._running.values():
            running.abandon()
        if self._works:
            _, stuck = await asyncio.wait(self._works, timeout=seconds)
            for work in stuck:
                work.cancel()
        # Without the storage the leases end by themselves.
        with contextlib.suppress(Unavailable):
            await self._leases.give_back()
        self._stopped.set()

    # --- taking

    async def _take_all(self) -> None:
        try:
            while not self._stopping and await self._take():
                pass
        except Unavailable:
            # Readiness reports the storage; jobs wait.
            pass
        except Exception:  # noqa: BLE001 - the supervisor: jobs wait, and the next look may succeed
            _log.exception("jobs cannot be taken")

    async def _take(self) -> bool:
        """Starts what there is a worker for; whether there may be more."""
        room = self._settings.workers - len(self._works)
        # What a job leaves behind may be large.
        if room <= 0 or not self._jobs.has_room():
            return False
        widths: dict[str, int] = {}
        for waiting in await self._leases.waiting():
            width = self._width(waiting.queue)
            if width > waiting.running and may_grow(waiting.running, room):
                widths[waiting.queue] = width
        if not widths:
            return False
        taken = await self._leases.take(widths, min(room, _TAKEN_AT_ONCE), room, self._rests.keys())
        for leased in taken:
            self._start(leased)
        return bool(taken)

    def _width(self, queue: str) -> int:
        if self._rests.rests(queue):
            return 0
        width = self._widths(queue)
        return self._settings.workers if width is None else width

    def _start(self, leased: Leased) -> None:
        sink = Sink(leased.job, self._jobs.notices)
        task = asyncio.ensure_future(self._perform(leased, sink))
        running = self._running[leased.job.id] = _Running(leased, sink, task)
        self._known.add(running.key)
        work = asyncio.create_task(self._work(running))
        self._works.add(work)
        work.add_done_callback(self._end_work)

    def _end_work(self, work: asyncio.Task[None]) -> None:
        self._works.discard(work)
        self._wake.set()
        if not work.cancelled() and (error := work.exception()) is not None:
            _log.error("what came of a job could not be stored", exc_info=error)

    # --- performing

    async def _work(self, running: _Running) -> None:
        try:
            performed = await self._await_performer(running)
        finally:
            # From here on a new lease of the same job may run beside this one.
            if self._running.get(running.leased.job.id) is running:
                del self._running[running.leased.job.id]
            running.sink.close()
        try:
            if performed is not None:
                self._rests.note(running.leased.job, performed)
                await self._store(running.leased, performed)
        finally:
            self._known.discard(running.key)

    async def _await_performer(self, running: _Running) -> Performed | None:
        """What came of the attempt; None when nobody wants to know any more."""
        task = running.task
        try:
            done, _ = await asyncio.wait({task}, timeout=self._settings.attempt_seconds)
            if not done:
                task.cancel()
                await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        if running.abandoned:
            return None
        if task.cancelled():
            seconds = self._settings.attempt_seconds
            return _failure(504, TIMED_OUT, f"The attempt took longer than {seconds:g} seconds.") if not done else None
        return _outcome(running.leased.job, task)

    async def _store(self, leased: Leased, performed: Performed) -> None:
        """Tries until the storage takes it; a lease that is lost meanwhile ends this too."""
        while True:
            try:
                await self._leases.finish(leased.lease, performed)
            except Unavailable:
                await asyncio.sleep(self._settings.look_seconds)
            else:
                return

    def _hear_end(self, job: Job) -> None:
        running = self._running.get(job.id)
        if running is not None:
            running.abandon()

    # --- keeping leases

    async def _beat(self) -> None:
        while True:
            try:
                await self._keep()
            except Unavailable:
                pass
            except Exception:  # noqa: BLE001 - the supervisor: without heartbeats every lease would be lost
                _log.exception("the leases of jobs cannot be renewed")
            await asyncio.sleep(self._settings.look_seconds)

    async def _keep(self) -> None:
        """Renews the leases in time, ends what is not ours any more, and stores how far the rest is."""
        running = {one.key: one for one in self._running.values()}
        known = set(self._known)
        now = self._clock.monotonic()
        if now >= self._beat_at:
            held = await self._leases.heartbeat()
            self._beat_at = now + self._settings.heartbeat_seconds
        elif known or self._orphans:
            held = await self._leases.held()
        else:
            return
        for lease, one in running.items():
            if lease not in held:
                one.abandon()
        await self._return_orphans(held - known)
        said = [(one.leased.lease, one.sink.take_progress()) for one in running.values() if not one.abandoned]
        if unsaved := [(lease, progress) for lease, progress in said if progress is not None]:
            await self._leases.save_progress(unsaved)

    async def _return_orphans(self, orphans: Held) -> None:
        """Gives back leases that nobody here works on: seen twice, it is not one that is only just beginning."""
        if lost := (orphans & self._orphans) - self._known:
            await self._leases.give_back(only={number for number, _ in lost})
        self._orphans = orphans


def _outcome(job: Job, task: "asyncio.Future[Performed]") -> Performed:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, GatewayError):
        performed = _failure(error.status, error.code, error.message, retry_after=error.retry_after)
        may_pass = error.status >= 500 or isinstance(error, RateLimited)
        return msgspec.structs.replace(performed, retry=may_pass)
    _log.error("the job %s could not be performed", job.id, exc_info=error)
    return _failure(500, "internal_error", "The gateway failed in a way that nobody foresaw.")


def _failure(status: int, code: str, message: str, *, retry_after: float | None = None) -> Performed:
    error = JobError(code=code, message=message)
    return Performed(status=status, error=error, retry=True, retry_after=retry_after)
