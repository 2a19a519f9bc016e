"""What an upstream's refusal says about the key that was sent: why it was refused, and for how long."""

import re
from collections.abc import Callable
from enum import StrEnum

import msgspec

from stellwerk.providers._refusals import read_seconds

_DURATION = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)(?![a-z])|(\d{1,9}(?:\.\d{1,9})?)\s*(millisecond|second|sec|minute|min|hour|hr|day)s?\b"
)
_WAIT = re.compile(r"(?:again|retry|retrying|wait|resets?)\b(?:\s+(?:in|after|for|at least|about))?\s+(?=\d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class RefusalKind(StrEnum):
    """Why an upstream refused a key, where another key of the same upstream may do better."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    HOURLY_QUOTA = "hourly_quota"
    SESSION_QUOTA = "session_quota"
    WEEKLY_QUOTA = "weekly_quota"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    """For this request; it says nothing about the next one."""


class Refusal(msgspec.Struct, frozen=True):
    kind: RefusalKind
    wait: float | None = None
    """Seconds that the upstream asks for; None when it does not say."""


def read_key_refusal(status: int, body: bytes, header: Callable[[bytes], bytes | None], now: float) -> Refusal | None:
    """What a refusal says about the key that was sent; None when another key would fare no better.

    `header` looks up the answer's headers; `now` in Unix seconds reads an absolute Retry-After.
    """
    if status == 401:
        return Refusal(RefusalKind.UNAUTHORIZED)
    if status == 403:
        return Refusal(RefusalKind.FORBIDDEN)
    if status not in (402, 429):
        return None
    text = body[:65536].decode("utf-8", "replace").lower()
    return Refusal(_read_kind(status, text), _read_wait(text, header, now))


def _read_kind(status: int, text: str) -> RefusalKind:
    """Quotas are told apart by their words alone: no vendor has a status or a header for them."""
    if "concurren" in text:
        return RefusalKind.CONCURRENCY
    if re.search(r"\b(?:week|month)", text):
        return RefusalKind.WEEKLY_QUOTA
    if re.search(r"\bsession\b.{0,40}\blimit|\blimit\b.{0,40}\bsession\b|\bdaily\b|per[ _-]?day", text):
        return RefusalKind.SESSION_QUOTA
    if status == 402 or re.search(r"\bhourly\b|per[ _-]?hour|insufficient_quota|usage limit|current quota", text):
        return RefusalKind.HOURLY_QUOTA
    return RefusalKind.RATE


def _read_wait(text: str, header: Callable[[bytes], bytes | None], now: float) -> float | None:
    value = header(b"retry-after-ms")
    if value is not None and re.fullmatch(rb"\d{1,12}(\.\d{1,9})?", value):
        return float(value) / 1000
    seconds = read_seconds(header(b"retry-after"), now)
    if seconds is not None:
        return seconds
    resets = [
        seconds
        for what in (b"requests", b"tokens")
        if header(b"x-ratelimit-remaining-" + what) == b"0"
        and (seconds := parse_duration((header(b"x-ratelimit-reset-" + what) or b"").decode("latin-1"))) is not None
    ]
    if resets:
        return max(resets)
    found = _WAIT.search(text)
    return parse_duration(text[found.end() : found.end() + 64]) if found is not None else None


def parse_duration(text: str) -> float | None:
    """Seconds from the beginning of a text such as `6m0s`, `850ms`, `1.5 seconds` or `2 hours and 3 minutes`."""
    seconds, end = 0.0, 0
    for found in _DURATION.finditer(text.lower()):
        if not re.fullmatch(r"(?:[\s,]|and)*", text[end : found.start()].lower()):
            break
        unit = found[2] or found[4]
        seconds += float(found[1] or found[3]) * (
            _UNITS["ms"] if unit.startswith("mil") else _UNITS.get(unit) or _UNITS[unit[0]]
        )
        end = found.end()
    return seconds if end else None
