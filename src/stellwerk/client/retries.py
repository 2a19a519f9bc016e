"""Which refusals are worth another try, and when. Pure."""

import msgspec

from stellwerk.client.errors import RateLimited, StellwerkError, Unavailable


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that a gateway refused with 429 or 503 are asked again; nothing else is."""

    attempts: int = 3
    """In all; 1 never tries again."""
    longest_seconds: float = 60.0
    """A gateway that wants more patience than this is not asked again."""
    first_seconds: float = 0.5
    """The pause where the gateway names none; it doubles each time."""


def pause_before_retry(error: StellwerkError, attempt: int, retries: Retries) -> float | None:
    """Seconds until the next attempt after the one with this number, from 1; None for no further one."""
    refused = isinstance(error, RateLimited) or (isinstance(error, Unavailable) and error.status == 503)
    if not refused or attempt >= retries.attempts:
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= retries.longest_seconds else None
    return float(min(retries.first_seconds * 2 ** (attempt - 1), retries.longest_seconds))


def pause_after_outage(failures: int) -> float:
    """Seconds before a waiting client looks again for a gateway that was gone so many times in a row."""
    return float(min(0.25 * 2 ** min(failures - 1, 5), 5.0))
