"""Where the gateway of a data folder listens, told to the programs beside it by the gateway itself.

The note is worth its word only while the gateway that wrote it serves: it holds a lock on the file, which the kernel
takes away when it ends, however it ends. The lock is older than the file's name, so that nobody finds a note of this
name that is locked and not the gateway's.
"""

import contextlib
import fcntl
import os
import socket
import stat
from ipaddress import ip_address
from pathlib import Path

import msgspec

NOTE_NAME = "gateway.address"
_MOST_BYTES = 1024
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


class _Note(msgspec.Struct, frozen=True):
    host: str
    port: int
    network: str


class AddressNote:
    """The gateway's side: `write` once requests are answered, `remove` before the port is given back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NOTE_NAME
        self._descriptor = -1

    def write(self, host: str, port: int) -> None:
        """Replaces whatever note a gateway before left. Raises OSError."""
        fresh = self._path.with_name(f"{NOTE_NAME}.new")
        # Of a gateway that was killed while it wrote: one at a time serves from the folder.
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = msgspec.json.encode(_Note(host, port, _this_network()))
            if os.write(descriptor, content) != len(content):
                raise OSError("the note was not written whole")
            fresh.replace(self._path)
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor

    def remove(self) -> None:
        """Harmless when that has happened already, or nothing was written."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(descriptor)


def noted_address(folder: Path) -> tuple[str, int] | None:
    """Host and port of the gateway that serves from this folder now; None when none has said so."""
    try:
        # A pipe of this name would keep whoever opens it waiting.
        descriptor = os.open(folder / NOTE_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not _is_locked(descriptor):
            return None
        note = msgspec.json.decode(os.read(descriptor, _MOST_BYTES), type=_Note)
        ip_address(note.host)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
    # Behind the same port of another network, such as that of a container, somebody else may listen.
    return (note.host, note.port) if 0 < note.port < 65536 and note.network == _this_network() else None


def _is_locked(descriptor: int) -> bool:
    """The gateway's lock is exclusive, that of readers is shared and lasts as long as this takes."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _this_network() -> str:
    """The same for processes that share their ports, another for other machines and containers."""
    try:
        return f"{_BOOT_ID.read_text(encoding='ascii').strip()}/{_NETWORK.stat().st_ino}"
    except OSError:
        return socket.gethostname()
