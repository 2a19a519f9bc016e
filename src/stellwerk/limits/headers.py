"""Limits as OpenAI writes them in headers."""

from functools import lru_cache

Headers = tuple[tuple[bytes, bytes], ...]

_REQUESTS = b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"
_TOKENS = b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"


def request_headers(limit: int, left: int, whole_in: int) -> Headers:
    """Requests per minute, how many of them are left, and the nanoseconds after which all of them are back."""
    return _headers(_REQUESTS, limit, left, _rounded(whole_in))


def token_headers(limit: int, left: int, whole_in: int) -> Headers:
    """The same for tokens."""
    return _headers(_TOKENS, limit, left, _rounded(whole_in))


def duration(nanoseconds: int) -> bytes:
    """A time rounded up, the largest unit first: `850ms`, `1s`, `6m0s`, `1h0m0s`."""
    return _written(_rounded(nanoseconds))


def _rounded(nanoseconds: int) -> int:
    """Milliseconds, from a second on in whole seconds."""
    milliseconds = -(-nanoseconds // 1_000_000)
    return milliseconds if milliseconds < 1000 else -(-milliseconds // 1000) * 1000


# Few of them come often, and looking one up costs a fraction of writing it.
@lru_cache(maxsize=8192)
def _headers(names: tuple[bytes, bytes, bytes], limit: int, left: int, milliseconds: int) -> Headers:
    return (names[0], b"%d" % limit), (names[1], b"%d" % left), (names[2], _written(milliseconds))


def _written(milliseconds: int) -> bytes:
    if milliseconds < 1000:
        return b"%dms" % max(0, milliseconds)
    minutes, seconds = divmod(milliseconds // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds
