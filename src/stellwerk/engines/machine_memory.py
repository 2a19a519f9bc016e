"""How much memory this machine, or the container that we run in, has for engines."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

_MIB = 1 << 20
_UNLIMITED = 1 << 60
_RESERVE_SHARE, _LEAST_RESERVE, _MOST_RESERVE = 0.1, 384.0, 4096.0


class MachineMemory(msgspec.Struct, frozen=True, kw_only=True):
    """MiB, of the machine or of the container where that has less."""

    total: float | None
    """None where the system does not tell."""
    available: float | None
    """What could be used now without anything being swapped out; files in the cache count as available."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What engines may take, in MiB; None is without a bound that we know."""

    all: float | None
    """Together."""
    now: float | None
    """In addition to what they already have."""


class MemoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What engines have and may have, in MiB; None where nobody knows a bound."""

    capacity_mib: float | None
    reserved_mib: float
    available_mib: float | None
    """What the machine could give them in addition."""


def reserve(total: float) -> float:
    """MiB that are left to the system and to the gateway itself."""
    return min(_MOST_RESERVE, max(_LEAST_RESERVE, total * _RESERVE_SHARE), total / 2)


def capacity(machine: MachineMemory, configured_mib: float) -> Capacity:
    """`configured_mib` is the operator's own bound, 0 without one. It replaces the machine's size, but nobody can use
    memory that is not there."""
    kept = 0.0 if machine.total is None else reserve(machine.total)
    everything = configured_mib or (None if machine.total is None else machine.total - kept)
    # Of a bound that somebody set, we need not keep the whole reserve: they know their machine.
    spared = kept / 4 if configured_mib else kept / 2
    now = None if machine.available is None else max(0.0, machine.available - spared)
    return Capacity(all=everything, now=now)


def read_machine_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> MachineMemory:
    """Looks now; takes less than a millisecond."""
    total, available = _read_meminfo(proc / "meminfo")
    for limit, used in _read_limits(proc / "self/cgroup", cgroups):
        total = limit if total is None else min(total, limit)
        left = max(0.0, limit - used)
        available = left if available is None else min(available, left)
    return MachineMemory(total=total, available=available)


def _read_meminfo(path: Path) -> tuple[float | None, float | None]:
    try:
        lines = path.read_text("ascii").splitlines()
        figures = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return figures["MemTotal"], figures["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        pass
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _MIB, None
    return None, None


def _read_limits(membership: Path, root: Path) -> Iterator[tuple[float, float]]:
    """Limit and use of every control group that we are in, version 1 and 2, each with all that stand above it."""
    try:
        rows = [line.split(":", 2) for line in membership.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return
    for row in rows:
        if len(row) != 3:
            continue
        _, controllers, path = row
        if "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _climb(root / "memory", path, names)
        elif not controllers:
            yield from _climb(root, path, ("memory.max", "memory.current", "inactive_file"))


def _climb(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[tuple[float, float]]:
    """Inside a container the path may be the host's and lead nowhere; the root is then the container's own."""
    parts = [part for part in path.split("/") if part not in ("", "..")][:32]
    for depth in range(len(parts), -1, -1):
        found = _read_limit(root.joinpath(*parts[:depth]), *names)
        if found is not None:
            yield found


def _read_limit(folder: Path, limit_name: str, used_name: str, cache_name: str) -> tuple[float, float] | None:
    try:
        limit, used = int((folder / limit_name).read_text()), int((folder / used_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        cached = int(stat.get(cache_name, 0))
    except (OSError, ValueError):
        # Also for the word `max`, which is no limit.
        return None
    return (limit / _MIB, max(0, used - cached) / _MIB) if limit < _UNLIMITED else None
