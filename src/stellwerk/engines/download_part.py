"""A partial file on the disk with the checksum of what is in it. Everything here blocks; one thread at a time."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from stellwerk.core.errors import Conflict, GatewayError, Unavailable

_BLOCK = 4 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFull(Unavailable):
    """Nothing more fits; what is there stays."""

    code = "disk_full"


def trouble(error: OSError) -> GatewayError:
    """The error that a person is shown; no path stands in it."""
    if error.errno in _FULL:
        return DiskFull("The disk of the models folder is full. Make room, then resume the download.")
    return GatewayError(f"The models folder cannot be used ({error.strerror or type(error).__name__}).")


class PartFile:
    """`open`, then `hash_some` until it says so, then `write` and `keep`; `close` always.

    The file is locked while it is open: two processes never write into one.
    """

    def __init__(self, path: Path, sync_bytes: int) -> None:
        self._path = path
        self._sync_bytes = sync_bytes
        self._descriptor = -1
        self._unsynced = 0
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes on the disk."""
        self.hashed = 0
        """Bytes of them that are in the checksum; the same number once everything has been read."""

    def open(self) -> None:
        """Raises OSError; Conflict when another process is at it or when something else has that name."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict("Another process is fetching this file.") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Conflict("Something that is no file has the name of the partial file.")
        self.size = status.st_size

    def clear(self) -> None:
        """Begins anew."""
        os.ftruncate(self._descriptor, 0)
        self.size = self.hashed = 0
        self._digest = hashlib.sha256()

    def hash_some(self) -> bool:
        """Reads a block of what was there already; whether all of it has been read."""
        data = os.pread(self._descriptor, min(_BLOCK, self.size - self.hashed), self.hashed)
        self._digest.update(data)
        self.hashed += len(data)
        if not data:
            self.size = self.hashed
        return self.hashed >= self.size

    def write(self, data: bytes) -> None:
        """Appends; on an error, what has reached the disk counts."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, self.size)
            self._digest.update(view[:written])
            self.size += written
            self.hashed = self.size
            self._unsynced += written
            view = view[written:]
        if self._unsynced >= self._sync_bytes:
            self.keep()

    def keep(self) -> None:
        """Returns when what was written would outlive a power cut."""
        os.fsync(self._descriptor)
        self._unsynced = 0

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def same_file(path: Path, size: int, sha256: str | None, wanted: Callable[[], bool]) -> bool:
    """Whether a file is there with exactly that content; False as soon as `wanted` says no.

    Raises Conflict when the name is taken by something else.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size != size or sha256 is None:
        raise _taken()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_BLOCK):
            if not wanted():
                return False
            digest.update(data)
    if digest.hexdigest() != sha256:
        raise _taken()
    return True


def _taken() -> Conflict:
    return Conflict("Another file of that name is in the models folder; delete or rename it first.")
