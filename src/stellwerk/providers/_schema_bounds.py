"""How much a JSON schema may ask of an engine of ours.

llama.cpp makes a grammar of it and holds it against every token that could come next, for one request while all others
of the model wait: a pattern of a few hundred optional letters takes minutes.
"""

import re
from collections.abc import Mapping

import msgspec

from stellwerk.core.errors import BadRequest

_MOST_VALUES = {"response_format": 3_000, "json_schema": 3_000, "tools": 20_000}
"""By field: objects, lists and what they hold. Tools weigh less: a grammar for one is needed when it is called."""
_LONGEST_PATTERN = 1_000
_MOST_CHOICES = 64
"""Places of a pattern at which a text may go on or not: what they take grows with the fourth power of their number."""
_TOKEN = re.compile(
    r"\\.|\[(?:\\.|[^\]\\])*+\]|(?P<open>\((?:\?:)?)|(?P<close>\))"
    r"|(?P<some>[*+?])|\{(?P<least>[0-9]{0,9})(?P<comma>,)?(?P<most>[0-9]{0,9})\}|.",
    re.DOTALL,
)


def check_schemas(fields: Mapping[str, msgspec.Raw]) -> None:
    """Raises BadRequest that names the field."""
    for name, most in _MOST_VALUES.items():
        if name in fields:
            _check(name, bytes(fields[name]), most)


def _check(name: str, raw: bytes, most: int) -> None:
    try:
        waiting = [msgspec.json.decode(raw)]
    except (ValueError, RecursionError):
        raise BadRequest(f"'{name}' holds text that cannot be read.", param=name) from None
    seen = 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > most:
            raise _refused(name, f"holds more than {most} values")
        if isinstance(value, dict):
            pattern = value.get("pattern")
            if isinstance(pattern, str):
                _check_pattern(name, pattern)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_pattern(name: str, pattern: str) -> None:
    if len(pattern) > _LONGEST_PATTERN:
        raise _refused(name, f"has a pattern of more than {_LONGEST_PATTERN} characters")
    if count_choices(pattern) > _MOST_CHOICES:
        raise _refused(name, f"has a pattern with more than {_MOST_CHOICES} optional or repeated parts")


def count_choices(pattern: str) -> int:
    """Places at which a text may go on or not, those of a group as often as it may be repeated."""
    groups = [0]
    last = 0
    """Choices within what a quantifier would stand behind."""
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            groups.append(0)
            last = 0
        elif token["close"]:
            last = groups.pop() if len(groups) > 1 else 0
            groups[-1] += last
        elif token["some"]:
            groups[-1] += 1
            last += 1
        elif token["least"] is not None:
            added = _added(last, token["least"], token["most"], comma=token["comma"] is not None)
            groups[-1] += added
            last += added
        else:
            last = 0
    return sum(groups)


def _added(inner: int, least: str, most: str, *, comma: bool) -> int:
    """What `{least,most}` adds to the choices within the part that it repeats."""
    times = int(most or least or 1)
    varies = comma and most != least
    return inner * (max(times, 1) - 1) + varies


def _refused(name: str, what: str) -> BadRequest:
    return BadRequest(f"'{name}' {what}: too much for a local model.", param=name, code="unsupported_value")
