"""Sessions as files that people may read, edit and remove while the gateway runs.

The lock is on the folder of the owner, not on the file: a file is replaced as a whole and may be removed at any time.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from stellwerk.sessions.history import (
    LARGEST_FILE,
    Message,
    decode_history,
    encode_history,
    keep_newest,
    make_exchange,
)
from stellwerk.sessions.names import session_file_name
from stellwerk.storage.failures import storage_unavailable

MOST_SESSIONS = 10_000
"""Of one owner; a new one beyond them takes the place of the one that was not used for longest."""

_FRESH = ".new"
"""One a folder, whose lock its writer holds: a process that is killed leaves no more than this behind."""

_LOCK_SECONDS = 20.0
"""A lock is held for some milliseconds, unless its process has been stopped in the middle."""

_LOCK_PAUSE = 0.005

_FOLDER_TRIES = 3

_NOT_OURS = frozenset({errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM})
"""Opening found a link, a socket, or what somebody else may read only."""

_log = logging.getLogger(__name__)


class _Broken(Exception):
    """There is something under the name of the session that is no history."""


class FileSessions:
    """`<folder>/<owner>/<model>-<session id>.json`; the owner is "" (no folder of its own) or the digits of a user id.

    Safe for threads and for several processes. Everything here waits for the disk and raises Unavailable, code
    `storage_unavailable`, when that fails, and BadRequest for a bad session id.
    """

    def __init__(
        self, folder: Path, *, most_sessions: int = MOST_SESSIONS, lock_seconds: float = _LOCK_SECONDS
    ) -> None:
        self._folder = folder
        self._most_sessions = most_sessions
        self._lock_tries = max(1, round(lock_seconds / _LOCK_PAUSE))

    def read(self, owner_folder: str, model: str, session_id: str) -> list[Message]:
        """Empty when there is no file. One that is no history is put aside."""
        path = self._path(owner_folder, model, session_id)
        with _disk():
            try:
                return _load(path)
            except _Broken:
                # Under the lock, because somebody may have put a good one in its place by now.
                with contextlib.suppress(FileNotFoundError), _locked(path.parent, self._lock_tries):
                    return _load_or_put_aside(path)
                return []

    def append(self, owner_folder: str, model: str, session_id: str, user: str, assistant: str) -> None:
        """Adds a question and its answer to whatever is in the file by then; too large ones are logged and left out."""
        path = self._path(owner_folder, model, session_id)
        exchange = make_exchange(user, assistant)
        if exchange is None:
            _log.warning("an exchange of %s is too large to be kept", path.name)
            return
        with _disk():
            for tries_left in reversed(range(_FOLDER_TRIES)):
                try:
                    self._add(path, exchange)
                except FileNotFoundError:
                    if not tries_left:
                        raise
                else:
                    return

    def _path(self, owner_folder: str, model: str, session_id: str) -> Path:
        if owner_folder and not (owner_folder.isascii() and owner_folder.isdigit()):
            raise ValueError(f"{owner_folder!r} is not the id of a user")
        return self._folder / owner_folder / session_file_name(model, session_id)

    def _add(self, path: Path, exchange: tuple[Message, Message]) -> None:
        """Raises FileNotFoundError when somebody removes the folder meanwhile."""
        self._prepare(path.parent)
        with _locked(path.parent, self._lock_tries) as folder:
            messages = keep_newest([*_load_or_put_aside(path), *exchange])
            if not path.exists():
                _make_room(path.parent, self._most_sessions)
            _replace(path, encode_history(messages), folder)

    def _prepare(self, folder: Path) -> None:
        # One after the other, because `parents` would make the outer one open to everybody.
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.error("a session cannot be read or written: %s", error)
        raise storage_unavailable() from error


@contextlib.contextmanager
def _locked(folder: Path, tries: int) -> Iterator[int]:
    """Yields the folder's descriptor, for which nobody else holds the lock, in this process or another."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(tries):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_LOCK_PAUSE)
        else:
            raise TimeoutError(errno.ETIMEDOUT, "another process keeps the sessions locked", str(folder))
        if os.fstat(descriptor).st_ino != folder.stat().st_ino:
            raise FileNotFoundError(errno.ENOENT, "the folder was removed", str(folder))
        yield descriptor
    finally:
        os.close(descriptor)


def _load_or_put_aside(path: Path) -> list[Message]:
    try:
        return _load(path)
    except _Broken as error:
        aside = path.with_name(f"{path.name}.broken")
        with contextlib.suppress(FileNotFoundError):
            path.replace(aside)
            _log.warning("%s is put aside as %s: %s", path, aside.name, error)
        return []


def _load(path: Path) -> list[Message]:
    """Raises _Broken."""
    try:
        # A pipe would be waited for, and a link may lead anywhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise _Broken(error.strerror) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Broken("it is not a file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(LARGEST_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST_FILE:
        raise _Broken(f"it is larger than {LARGEST_FILE} bytes")
    try:
        return decode_history(content)
    except ValueError as error:
        raise _Broken(str(error)) from None


def _replace(path: Path, content: bytes, folder: int) -> None:
    """The file is the old or the new one at every moment, also after a power cut."""
    fresh = path.with_name(_FRESH)
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    os.fsync(folder)


def _make_room(folder: Path, most: int) -> None:
    with os.scandir(folder) as entries:
        files = [Path(entry.path) for entry in entries if entry.name.endswith(".json") and not entry.is_dir()]
    too_many = len(files) - most + 1
    if too_many <= 0:
        return
    for path in sorted(files, key=_changed_at)[:too_many]:
        path.unlink(missing_ok=True)
    _log.warning("%d sessions went, because %s holds no more than %d", too_many, folder, most)


def _changed_at(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.lstat().st_mtime_ns
    return 0
