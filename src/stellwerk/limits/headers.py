"""Rate limits as OpenAI writes them in headers."""

from functools import lru_cache

from stellwerk.limits.rate import Rate, remaining

Headers = tuple[tuple[bytes, bytes], ...]

_LIMIT = b"x-ratelimit-limit-requests"
_REMAINING = b"x-ratelimit-remaining-requests"
_RESET = b"x-ratelimit-reset-requests"


def limit_header(rate: Rate) -> tuple[bytes, bytes]:
    """The header that stays the same as long as the rate does."""
    return (_LIMIT, b"%d" % rate.per_minute)


def rate_headers(limit: tuple[bytes, bytes], rate: Rate, arrival: int, now: int) -> Headers:
    """Limit, requests left, and the time after which all of them are back."""
    return (limit, _remaining_header(remaining(rate, arrival, now)), _reset_header(_rounded(arrival - now)))


def duration(nanoseconds: int) -> bytes:
    """A time rounded up, the largest unit first: `850ms`, `1s`, `6m0s`, `1h0m0s`."""
    return _reset_header(_rounded(nanoseconds))[1]


def _rounded(nanoseconds: int) -> int:
    """Milliseconds, from a second on in whole seconds."""
    milliseconds = -(-nanoseconds // 1_000_000)
    return milliseconds if milliseconds < 1000 else -(-milliseconds // 1000) * 1000


# Few values come often, and looking one up costs a quarter of writing it.
@lru_cache(maxsize=4096)
def _remaining_header(left: int) -> tuple[bytes, bytes]:
    return (_REMAINING, b"%d" % left)


@lru_cache(maxsize=4096)
def _reset_header(milliseconds: int) -> tuple[bytes, bytes]:
    if milliseconds < 1000:
        return (_RESET, b"%dms" % max(0, milliseconds))
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return (_RESET, b"%dh%dm%ds" % (hours, minutes, seconds))
    return (_RESET, b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds)
