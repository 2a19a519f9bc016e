"""Whether a model that transcribes a page has begun to repeat itself: the one way in which all of them fail. Pure."""

import re

_LONGEST_UNIT = 600
"""Characters of what is repeated."""
_LEAST_TIMES, _LEAST_LENGTH = 6, 240
"""How often and over how many characters: forms and tables repeat themselves a little, too."""
_LEAST_BLANK_LENGTH = 1500
"""The same for what has no letters, such as leaders, rules and empty cells of tables."""
_LEAST_COUNTED_TIMES, _LEAST_COUNTED_LENGTH = 40, 800
"""The same where only numbers differ: a calendar may have that many rows, a loop that counts never ends."""
_LEAST_LINES = 10
_DIGITS = re.compile(r"[0-9]+")
_MARKUP = re.compile(r"</?t[dhr][^>]{0,40}>|[\W_]+")


def find_loop(text: str) -> int | None:
    """Where the text begins to repeat itself, after the first time that it says it; None when it does not.

    Looks at the end of the text, and for lines that are repeated anywhere in it.
    """
    ends = text.rstrip()
    place = _find_periodic_end(ends, _LEAST_TIMES, _LEAST_LENGTH)
    if place is not None:
        return place
    place = _find_repeated_lines(text)
    if place is not None:
        return place
    tail = ends[-_LONGEST_UNIT * 8 :]
    counted = _DIGITS.sub("0", tail)
    if counted != tail and _find_periodic_end(counted, _LEAST_COUNTED_TIMES, _LEAST_COUNTED_LENGTH) is not None:
        return len(ends) - len(tail)
    return None


def _find_periodic_end(text: str, times: int, length: int) -> int | None:
    """Where the second of at least so many repetitions begins with which the text ends."""
    size = len(text)
    for unit in range(1, min(_LONGEST_UNIT, size // times) + 1):
        span = max(unit * times, length)
        if span > size or text[-unit:] != text[-2 * unit : -unit]:
            continue
        if not _has_letters(text[-unit:]):
            span = max(span, _LEAST_BLANK_LENGTH)
            if span > size:
                continue
        if text[-span:-unit] == text[unit - span :]:
            return _begin_of_period(text, unit, size - span)
    return None


def _begin_of_period(text: str, unit: int, known: int) -> int:
    place = known
    while place > 0 and text[place - 1] == text[place - 1 + unit]:
        place -= 1
    return place + unit


def _find_repeated_lines(text: str) -> int | None:
    place, before, count, second = 0, "", 1, 0
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if bare:
            if bare == before and _has_letters(bare):
                count += 1
                if count == 2:
                    second = place
                if count >= _LEAST_LINES:
                    return second
            else:
                before, count = bare, 1
        place += len(line)
    return None


def _has_letters(text: str) -> bool:
    return bool(_MARKUP.sub("", text))
