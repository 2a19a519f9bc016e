"""Which processes run on this machine: read from /proc on Linux, asked of `ps` elsewhere."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

MARK = "STELLWERK_ENGINE"
"""Variable in the environment of engines and of all that they start: a random text, new at every start."""

_PROC = Path("/proc")
_COLUMNS = "pid=,pgid=,stat=,rss=,lstart="
_PS_SECONDS = 5.0
_LISTENS = "0A"
"""The state of a socket, as /proc/net/tcp has it."""
_MOST_ENVIRONMENT = 1 << 20


class ProcessEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A living process; one that has ended and was not yet waited for is none."""

    pid: int
    group: int
    session: int
    """The group's number where the system does not tell sessions."""
    started: str
    """Together with `pid` it means the same process as long as the machine is not started anew."""
    rss_kib: int


def read_table() -> list[ProcessEntry]:
    """Every process. Takes some milliseconds: not for the event loop."""
    if sys.platform != "linux":
        return list(parse_ps(_ps("-A")))
    found = (_read_stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [entry for entry in found if entry is not None]


def find_process(pid: int) -> ProcessEntry | None:
    if sys.platform != "linux":
        return next(parse_ps(_ps("-p", str(pid))), None)
    return _read_stat(pid)


def members(leader: int, table: Iterable[ProcessEntry]) -> list[ProcessEntry]:
    """The processes of the group and session that `leader` founded."""
    return [entry for entry in table if leader in (entry.group, entry.session)]


def memory_mib(leader: int) -> float | None:
    """What the group of `leader` holds in memory, files that it has mapped included; None when there is none."""
    group = members(leader, read_table())
    return sum(entry.rss_kib for entry in group) / 1024 if group else None


def marked_processes(mark: str) -> list[int]:
    """Processes whose environment holds `mark`, wherever they have moved to; only Linux tells."""
    if sys.platform != "linux":
        return []
    wanted = f"{MARK}={mark}".encode()
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and _is_marked(entry, wanted)]


def listens(leader: int, mark: str, port: int) -> bool:
    """Whether `port` is listened on by the group of `leader` or by what bears `mark`; True where nobody can tell."""
    if sys.platform != "linux":
        return True
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    pids = {entry.pid for entry in members(leader, read_table())} | set(marked_processes(mark))
    return any(sockets.intersection(_open_files(pid)) for pid in pids)


def boot_id() -> str:
    """Changes with every start of the machine."""
    if sys.platform != "linux":
        return _run("sysctl", "-n", "kern.boottime").strip()
    return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def parse_ps(text: str) -> Iterator[ProcessEntry]:
    """The lines of `ps -o pid=,pgid=,stat=,rss=,lstart=`."""
    for line in text.splitlines():
        pid, group, state, rss, *started = line.split()
        if not state.startswith("Z"):
            yield ProcessEntry(
                pid=int(pid), group=int(group), session=int(group), started=" ".join(started), rss_kib=int(rss)
            )


def _read_stat(pid: int) -> ProcessEntry | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name before it is free text that may hold spaces and parentheses.
    state, _, group, session, *rest = text[text.rindex(b")") + 2 :].split()
    if state in (b"Z", b"X"):
        return None
    return ProcessEntry(
        pid=pid,
        group=int(group),
        session=int(session),
        started=rest[15].decode(),
        rss_kib=int(rest[17]) * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


def _listening(port: int) -> Iterator[str]:
    """The kernel's numbers of the sockets that listen on `port`."""
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / table).read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    yield words[9]


def _open_files(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink())


def _is_marked(entry: Path, wanted: bytes) -> bool:
    with contextlib.suppress(OSError), (entry / "environ").open("rb") as file:
        return wanted in file.read(_MOST_ENVIRONMENT).split(b"\0")
    return False


def _ps(*selection: str) -> str:
    return _run("ps", *selection, "-o", _COLUMNS)


def _run(*command: str) -> str:
    """Standard output; empty when the program is missing, fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 — fixed words and numbers
            command,
            capture_output=True,
            timeout=_PS_SECONDS,
            check=False,
            env={"PATH": "/bin:/usr/bin:/usr/sbin:/sbin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("ascii", "replace")
