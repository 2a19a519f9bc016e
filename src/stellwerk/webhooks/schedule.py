"""Decides what follows from a delivery: done, once more and when, or never again. Pure."""

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum

import msgspec

RETRY_DELAYS = (5.0, 30.0, 120.0, 300.0, 900.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""Seconds after the first, second, … failed delivery; after the last one the message has failed."""

LONGEST_DELAY = 24 * 3600.0
"""Seconds; a receiver that asks for a longer pause gets this one."""

FAILING_SECONDS = 5 * 24 * 3600.0
"""A receiver that takes nothing for so long is switched off."""

FORGOTTEN_SECONDS = 2 * 24 * 3600.0
"""A failure that nothing has followed for so long says nothing of the receiver any more. Longer than any retry waits:
what happens seldom must not switch its receiver off by failing twice."""

_JITTER = 0.2
_LONGEST_PAUSE = 60.0
_LONGEST_HEADER = 64


class State(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one delivery. `status` None: there was no answer, and `error` says why."""

    at: float
    status: int | None
    milliseconds: int
    error: str | None = None
    retry_after: float | None = None
    """Seconds that the receiver asks for."""

    @property
    def delivered(self) -> bool:
        return self.error is None

    @property
    def gone(self) -> bool:
        """The receiver wants no messages any more."""
        return self.status == 410


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    state: State
    due_at: float
    """When a pending message is tried again."""
    disabled_reason: str | None = None
    """Set when the subscription is switched off."""


def judge(
    result: Result, *, attempts: int, retried: bool, failing_since: float | None, now: float, chance: float
) -> Verdict:
    """`attempts` counts the deliveries up to this one, `chance` is a random number from 0 to 1.

    A message that is not `retried` fails with its first delivery.
    """
    if result.delivered:
        return Verdict(state=State.DELIVERED, due_at=now)
    if result.gone:
        return Verdict(state=State.FAILED, due_at=now, disabled_reason="The receiver answered 410 Gone.")
    reason = None
    if failing_since is not None and now - failing_since >= FAILING_SECONDS:
        reason = "All deliveries of five days have failed."
    if not retried or attempts > len(RETRY_DELAYS):
        return Verdict(state=State.FAILED, due_at=now, disabled_reason=reason)
    delay = RETRY_DELAYS[attempts - 1] * (1 - _JITTER + 2 * _JITTER * chance)
    # Nobody is asked again earlier than he wants to be, so there the jitter only adds.
    asked = (result.retry_after or 0.0) * (1 + _JITTER * chance)
    return Verdict(state=State.PENDING, due_at=now + min(max(delay, asked), LONGEST_DELAY), disabled_reason=reason)


def pause_after(failures: int, retry_after: float | None) -> float:
    """Seconds for which a receiver is left alone after so many failures in a row, whatever waits for it.

    Short against the delays of one message: the first success lets all that waits go out.
    """
    pause = min(2.0 ** min(failures - 1, 10), _LONGEST_PAUSE)
    return max(pause, min(retry_after or 0.0, RETRY_DELAYS[5]))


def explain_status(status: int) -> str | None:
    """What is wrong with an answer; None for success."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return "The receiver redirects, and redirects are not followed."
    return f"The receiver answered {status}."


def read_retry_after(value: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, 10.2.3); None when it says nothing that makes sense."""
    if value is None or len(value) > _LONGEST_HEADER:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_DELAY)
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(seconds, LONGEST_DELAY) if math.isfinite(seconds) and seconds > 0 else None
