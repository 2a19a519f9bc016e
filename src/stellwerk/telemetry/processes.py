"""What the operating system says about processes that we started; nothing where it has no /proc."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path

import msgspec

from stellwerk.core.clock import Clock

_PROC = Path("/proc")


class ProcessLoad(msgspec.Struct, frozen=True, kw_only=True):
    resident_bytes: int
    cpu_percent: float
    """Of one core, so that eight busy ones are 800; since the look before, of the first look since its start."""


class ProcessLoads:
    """How busy processes were between two looks; remembers those of the last look only."""

    def __init__(self, clock: Clock, proc: Path = _PROC) -> None:
        self._clock = clock
        self._proc = proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._seen: dict[int, tuple[str, float, float]] = {}
        """By process: when it was started, our time of the look, and its seconds of work by then."""

    def look(self, pids: Iterable[int]) -> dict[int, ProcessLoad]:
        """Those of them that are alive."""
        now, seen, loads = self._clock.monotonic(), {}, {}
        for pid in pids:
            read = self._read(pid)
            if read is None:
                continue
            started, worked, uptime, resident = read
            known = self._seen.get(pid)
            if known is not None and known[0] == started:
                passed, done = now - known[1], worked - known[2]
            else:
                passed, done = uptime, worked
            # The kernel counts in hundredths of a second.
            percent = 100.0 * max(0.0, done) / passed if passed >= 1 / self._ticks else 0.0
            loads[pid] = ProcessLoad(resident_bytes=resident, cpu_percent=round(percent, 1))
            seen[pid] = (started, now, worked)
        self._seen = seen
        return loads

    def _read(self, pid: int) -> tuple[str, float, float, int] | None:
        """When it was started, its seconds of work and of life, and the bytes that it holds in memory."""
        try:
            # The name in brackets may hold anything, blanks and brackets too.
            fields = (self._proc / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            uptime = float((self._proc / "uptime").read_text("ascii").split()[0]) - int(fields[19]) / self._ticks
            worked = (int(fields[11]) + int(fields[12])) / self._ticks
            return fields[19], worked, uptime, int(fields[21]) * resource.getpagesize()
        except (OSError, ValueError, IndexError):
            return None
