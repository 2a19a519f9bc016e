"""Numbers and times as people read them."""

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def duration(seconds: float | None) -> str:
    """`42s`, `5m 07s`, `2h 5m`, `3d 4h`; a dash for None."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"


def memory(mib: float | None) -> str:
    """`812 MiB` or `4.9 GiB`; a dash for None and 0."""
    if not mib:
        return "–"
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def count(number: int) -> str:
    """At most six characters: `9999`, `12.3k`, `4.5M`."""
    if number < 10_000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"


def clock_time(at: float | None) -> str:
    """Day and time, in UTC as in the gateway's log."""
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def bar(part: float, cells: int = 10) -> str:
    filled = round(max(0.0, min(1.0, part)) * cells)
    return "█" * filled + "░" * (cells - filled)


def bar_colour(part: float) -> str:
    if part < 0.7:
        return "green"
    return "yellow" if part < 0.9 else "red"
