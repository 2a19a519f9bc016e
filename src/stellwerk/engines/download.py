"""One download as it is shown, and as it is kept while the process lives."""

import asyncio
from collections import deque

import msgspec

from stellwerk.engines.download_list import State, StoredDownload
from stellwerk.engines.hub_files import Kind

FINAL = frozenset({"done", "failed", "cancelled"})
_SPEED_WINDOW = 5.0
_TELL = 0.2
"""Seconds between two reports of progress; a change of state is told at once."""


class DownloadFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a download. Sizes are bytes."""

    name: str
    """In the models folder."""
    size: int
    completed: int
    sha256: str | None
    kind: Kind


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """A download as it stands now. Times are Unix seconds, sizes bytes."""

    id: str
    reference: str
    repo: str
    revision: str
    files: tuple[DownloadFile, ...]
    model_id: str
    state: State
    total: int
    completed: int
    bytes_per_second: float | None
    eta_seconds: float | None
    error: str | None
    started: float
    finished: float | None
    error_code: str | None = None
    """Which kind of failure it was."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


class Entry:
    """What `Downloads` owns of each; everything happens on the event loop."""

    def __init__(self, stored: StoredDownload) -> None:
        self.stored = stored
        self.completed = [0] * len(stored.files)
        """Bytes on the disk, by file."""
        self.changed = asyncio.Event()
        """Set once, at the next thing that is worth telling."""
        self.task: asyncio.Task[None] | None = None
        self.order = asyncio.Lock()
        """Held by whoever pauses, resumes or cancels."""
        self._samples: deque[tuple[float, int]] = deque(maxlen=64)
        self._told = float("-inf")
        self._later: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self.stored.state not in FINAL

    @property
    def total(self) -> int:
        return sum(file.size for file in self.stored.files)

    @property
    def left(self) -> int:
        return self.total - sum(self.completed)

    def turn(self, state: State) -> None:
        self.stored.state = state
        self._samples.clear()
        self._told = float("-inf")

    def tell(self) -> None:
        """Wakes everyone who follows."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self.changed.set()
        self.changed = asyncio.Event()

    def progress(self, number: int, completed: int, now: float) -> None:
        """`completed` bytes of a file are on the disk; `now` is monotonic."""
        forward = completed >= self.completed[number]
        self.completed[number] = completed
        if not forward:
            self._samples.clear()
        if now - self._told < _TELL:
            if self._later is None:
                self._later = asyncio.get_running_loop().call_later(_TELL, self.tell)
            return
        self._told = now
        self._samples.append((now, sum(self.completed)))
        while now - self._samples[0][0] > _SPEED_WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        self.tell()

    def _speed(self) -> float | None:
        if len(self._samples) < 2 or self.stored.state != "running":
            return None
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else None

    def snapshot(self) -> Download:
        stored = self.stored
        total, left = self.total, self.left
        speed = self._speed()
        return Download(
            id=stored.id,
            reference=stored.reference,
            repo=stored.repo,
            revision=stored.revision,
            files=tuple(
                DownloadFile(name=file.local, size=file.size, completed=done, sha256=file.sha256, kind=file.kind)
                for file, done in zip(stored.files, self.completed, strict=True)
            ),
            model_id=stored.model_id,
            state=stored.state,
            total=total,
            completed=total - left,
            bytes_per_second=speed,
            eta_seconds=left / speed if speed else None,
            error=stored.error,
            error_code=stored.error_code,
            started=stored.started,
            finished=stored.finished,
        )
