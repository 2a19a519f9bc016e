"""How long a client wants its model to stay loaded."""

import re

from stellwerk.core.errors import BadRequest

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{0,15})?", re.ASCII)
_LONGEST_TEXT = 64
_MOST_SECONDS = 10 * 366 * 86_400.0


def keep_seconds(value: float | str | None) -> float | None:
    """Seconds from a number or a duration such as `1h30m`; below zero is for ever, None says nothing.

    Raises BadRequest in the words of Ollama.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = _seconds(value)
    return max(-1.0, min(float(value), _MOST_SECONDS))


def _seconds(text: str) -> float:
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    # Ollama wants a unit; clients that take their setting from a text field often send none.
    if _NUMBER.fullmatch(rest):
        return sign * float(rest)
    total, end = 0.0, 0
    for piece in _PIECE.finditer(rest[:_LONGEST_TEXT]):
        if piece.start() != end:
            break
        total += float(piece[1]) * _UNITS[piece[2]]
        end = piece.end()
    if not rest or end != len(rest):
        raise BadRequest(f'time: invalid duration "{text[:_LONGEST_TEXT]}"', param="keep_alive")
    return sign * total
