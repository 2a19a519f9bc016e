"""What the operating system says about the machine; nothing where it has no /proc."""

from pathlib import Path

import msgspec

_STAT = Path("/proc/stat")
_MEMINFO = Path("/proc/meminfo")
_IDLE = (3, 4)
"""Of the figures of a processor in /proc/stat: idle, and waiting for a disk."""
_SUMMED = 8
"""What guests take is counted among the others already."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. What the system would give back when asked counts as free."""

    used: int
    total: int


class Processor:
    """How busy all cores together were between two looks."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._seen = _read_times(stat)
        self._busy: float | None = None

    def busy(self) -> float | None:
        """Percent since the look before, of which the first was at the start; None where the system does not tell."""
        now = _read_times(self._stat)
        if now is None or self._seen is None:
            return None
        total, idle = now[0] - self._seen[0], now[1] - self._seen[1]
        # The kernel counts in hundredths of a second: two looks in the same one say nothing new.
        if total > 0:
            self._seen = now
            self._busy = round(min(100.0, max(0.0, 100.0 * (total - idle) / total)), 1)
        return self._busy


class Cores:
    """How busy each core was between two looks."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._seen = _read_core_times(stat)
        self._busy = [0.0] * len(self._seen)

    def busy(self) -> list[float]:
        """Percent by core since the look before, of which the first was at the start; none where nobody tells."""
        now = _read_core_times(self._stat)
        if len(now) != len(self._seen):
            self._seen, self._busy = now, [0.0] * len(now)
            return self._busy
        for place, (new, old) in enumerate(zip(now, self._seen, strict=True)):
            total, idle = new[0] - old[0], new[1] - old[1]
            if total > 0:
                self._seen[place] = new
                self._busy[place] = round(min(100.0, max(0.0, 100.0 * (total - idle) / total)), 1)
        return list(self._busy)


def read_memory(meminfo: Path = _MEMINFO) -> Memory | None:
    """None where the system does not tell."""
    try:
        lines = meminfo.read_text("ascii").splitlines()
        figures = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        total, available = figures["MemTotal"], figures["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return Memory(used=total - available, total=total)


def _read_times(stat: Path) -> tuple[int, int] | None:
    """Ticks since the machine started: all, and idle ones."""
    try:
        figures = [int(text) for text in stat.read_text("ascii").splitlines()[0].split()[1:]][:_SUMMED]
        return sum(figures), sum(figures[place] for place in _IDLE)
    except (OSError, ValueError, IndexError):
        return None


def _read_core_times(stat: Path) -> list[tuple[int, int]]:
    """As `_read_times`, of each core."""
    times = []
    try:
        for line in stat.read_text("ascii").splitlines()[1:]:
            name, *texts = line.split()
            if not name.startswith("cpu"):
                break
            figures = [int(text) for text in texts][:_SUMMED]
            times.append((sum(figures), sum(figures[place] for place in _IDLE)))
    except (OSError, ValueError, IndexError):
        return []
    return times
