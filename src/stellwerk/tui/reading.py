"""Reading facts out of JSON that somebody else wrote: whatever is missing or of another kind is left out.

Names of models, clients and lines of crashes come from anywhere, so nothing that steers a terminal gets through.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

MOST_ROWS = 500
_STEERING = {code: None for start, end in ((0, 32), (127, 160), (0x200B, 0x2010), (0x2028, 0x202F), (0x2060, 0x2070))
             for code in range(start, end)} | {ord("\t"): " ", 0xFEFF: None}  # fmt: skip
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_LISTS = ("data", "items", "requests", "jobs", "queues", "crashes")


def clean(value: Any, longest: int = 300) -> str:
    """The text without control characters; empty for anything that is neither text nor number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return _SEQUENCE.sub("", str(value)[: 2 * longest]).translate(_STEERING)[:longest]


def first(row: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these keys that is there and not null."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def whole(value: Any) -> int:
    """A count; 0 for anything that is none."""
    found = number(value)
    return 0 if found is None else max(0, int(found))


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e15:
        return None
    return float(value)


def moment(value: Any) -> float | None:
    """Unix seconds of a time in ISO 8601, taken for UTC when it has no zone, or of a number."""
    if not isinstance(value, str):
        return number(value)
    try:
        parsed = datetime.fromisoformat(value)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def rows(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a list, or of the list that an object holds, at most `MOST_ROWS`."""
    if isinstance(value, Mapping):
        value = first(value, *_LISTS)
    if isinstance(value, list):
        yield from (row for row in value[:MOST_ROWS] if isinstance(row, Mapping))


def lines(value: Any, most: int = 40) -> tuple[str, ...]:
    """The last lines of a list of texts or of one text."""
    if isinstance(value, str):
        value = value[-16_384:].splitlines()
    if not isinstance(value, list):
        return ()
    return tuple(clean(line) for line in value[-most:])
