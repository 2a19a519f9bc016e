"""Tells those who watch a job that something has happened to it, and what its answer says so far.

Only what happens in this process; changes by others are found by looking.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from stellwerk.core.errors import Unavailable
from stellwerk.jobs.job import Job, JobEvent

MOST_WATCHES = 10_000
TAPE_BYTES = 256 * 1024
"""What is kept of an answer for those who come late or read slowly."""
_PIECE_BYTES = 64 * 1024


class Heard(Protocol):
    def __call__(self, job: Job, /) -> None: ...


class Tape:
    """The end of an answer that is being written."""

    __slots__ = ("_data", "start")

    def __init__(self) -> None:
        self.start = 0
        """Bytes that are not kept any more."""
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data
        if (excess := len(self._data) - TAPE_BYTES) > 0:
            del self._data[:excess]
            self.start += excess

    def read(self, offset: int) -> tuple[int, bytes]:
        """The next piece after `offset`, or after what is lost, and where it begins; b"" at the end."""
        begin = max(offset, self.start)
        return begin, bytes(self._data[begin - self.start : begin - self.start + _PIECE_BYTES])


class Watch:
    """One who watches one job."""

    __slots__ = ("_news", "_offset", "stale", "tape")

    def __init__(self, tape: Tape | None) -> None:
        self._news = asyncio.Event()
        self.tape = tape
        self._offset = 0
        self.stale = False
        """The job has changed since it was read."""

    def rewind(self, tape: Tape) -> None:
        """Another attempt writes its answer from now on."""
        self.tape, self._offset = tape, 0

    def tell(self, *, changed: bool) -> None:
        self.stale = self.stale or changed
        self._news.set()

    def take_stale(self) -> bool:
        """Whether the job has changed since the last time."""
        stale, self.stale = self.stale, False
        return stale

    async def news(self, within: float | None = None) -> None:
        """Returns when something has happened since the last time, or after `within` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._news.wait()
        self._news.clear()

    def pieces(self) -> Iterator[JobEvent]:
        """What the answer says since the last time."""
        while self.tape is not None:
            offset, data = self.tape.read(self._offset)
            if not data:
                return
            self._offset = offset + len(data)
            yield JobEvent(type="piece", data=data, offset=offset)


class Notices:
    """For the event loop's thread alone."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}
        self._count = 0
        self._tapes: dict[str, Tape] = {}
        self._ended: list[Heard] = []
        self._waiting: list[Callable[[], None]] = []

    def hear_ends(self, heard: Heard) -> None:
        """`heard` is called for every job that ends; it does not raise."""
        self._ended.append(heard)

    def hear_waiting(self, heard: Callable[[], None]) -> None:
        """`heard` is called when something may be waiting that was not before; it does not raise."""
        self._waiting.append(heard)

    @contextlib.contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Raises Unavailable, code `too_many_watchers`."""
        if self._count >= MOST_WATCHES:
            raise Unavailable("Too many jobs are being watched. Try again later.", code="too_many_watchers")
        watch = Watch(self._tapes.get(job_id))
        self._watches.setdefault(job_id, set()).add(watch)
        self._count += 1
        try:
            yield watch
        finally:
            self._count -= 1
            self._watches[job_id].discard(watch)
            if not self._watches[job_id]:
                del self._watches[job_id]

    @property
    def watched(self) -> tuple[str, ...]:
        return tuple(self._watches)

    def tell_changed(self, job_id: str) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.tell(changed=True)

    def tell_ended(self, job: Job) -> None:
        for heard in self._ended:
            heard(job)
        self.tell_changed(job.id)
        if job.parent_id is not None:
            self.tell_changed(job.parent_id)
            self.tell_waiting()

    def tell_waiting(self) -> None:
        for heard in self._waiting:
            heard()

    def begin_tape(self, job_id: str) -> None:
        tape = self._tapes[job_id] = Tape()
        for watch in self._watches.get(job_id, ()):
            watch.rewind(tape)

    def write_tape(self, job_id: str, data: bytes) -> None:
        tape = self._tapes.get(job_id)
        if tape is not None:
            tape.write(data)
            for watch in self._watches.get(job_id, ()):
                watch.tell(changed=False)

    def end_tape(self, job_id: str) -> None:
        """Who watches already can still read it."""
        self._tapes.pop(job_id, None)
