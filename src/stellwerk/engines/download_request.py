"""One question for the bytes of a file, through the redirects of a hub."""

import re
from typing import cast
from urllib.parse import urljoin, urlsplit

import msgspec

from stellwerk import __version__
from stellwerk.core.errors import (
    Forbidden,
    GatewayError,
    NotFound,
    RateLimited,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
)
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import Origin, Pools, parse_base_url
from stellwerk.http.upstream import Answer

_REDIRECTS = 5
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,8192}")
_RANGE = re.compile(rb"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_LENGTH = re.compile(rb"\d{1,18}")
_MOST_ETAG = 200
_MOST_WAIT = 3_600


class RangeRefused(UpstreamError):
    """The server has nothing at that place: what we have is not the beginning of what it has."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """An answer whose body is a file, or the end of one."""

    answer: Answer
    start: int
    """Place in the file of the body's first byte."""
    size: int | None
    """Of the whole file, as far as the answer tells."""
    etag: str
    """What names this content; the hub's own word for it where there is one, empty where nobody says any."""


class FileRequest:
    """Where one file is; `open` asks for it from a place on."""

    def __init__(self, pools: Pools, url: str, token: Secret | None) -> None:
        self._pools = pools
        self._url = url
        self._token = token

    async def open(self, offset: int) -> Opened:
        """Raises RangeRefused, UpstreamError, RateLimited, Forbidden and NotFound.

        The credential goes to the first origin only, and not again once another one has been asked.
        """
        url, token = self._url, self._token
        origin, target = _split(url)
        named = b""
        for _ in range(_REDIRECTS + 1):
            request = _request(origin, target, offset, token)
            # How long the silence may last is decided by whoever reads; the whole may take days.
            answer = await self._pools.pool(origin).send(request, float("inf"))
            named = named or answer.header(b"x-linked-etag") or b""
            if answer.status not in (301, 302, 303, 307, 308):
                return _opened(answer, offset, named)
            location = (answer.header(b"location") or b"").decode("latin-1")
            answer.abort()
            url, following, target = _follow(url, location)
            if origin.scheme == "https" and following.scheme != "https":
                raise UpstreamRefused("The hub leads to an address without encryption.")
            if following != origin:
                token = None
            origin = following
        raise UpstreamRefused("The hub leads from one address to the next without end.")


def _split(url: str) -> tuple[Origin, str]:
    try:
        parts = urlsplit(url)
        origin, _ = parse_base_url(f"{parts.scheme}://{parts.netloc}")
    except ValueError:
        raise UpstreamRefused("The hub leads to an address that cannot be used.") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _PRINTABLE.fullmatch(target):
        raise UpstreamRefused("The hub leads to an address that cannot be used.")
    return origin, target


def _follow(url: str, location: str) -> tuple[str, Origin, str]:
    try:
        url = urljoin(url, location)
    except ValueError:
        raise UpstreamRefused("The hub leads to an address that cannot be used.") from None
    return url, *_split(url)


def _request(origin: Origin, target: str, offset: int, token: Secret | None) -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        f"host: {origin.authority}",
        f"user-agent: stellwerk/{__version__}",
        "accept: */*",
        "accept-encoding: identity",
    ]
    if offset:
        lines.append(f"range: bytes={offset}-")
    if token is not None:
        lines.append(f"authorization: Bearer {token.reveal()}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _opened(answer: Answer, offset: int, named: bytes) -> Opened:
    try:
        if answer.status not in (200, 206):
            raise _refusal(answer)
        etag = (named or answer.header(b"etag") or b"").decode("latin-1").removeprefix("W/").strip('"')[:_MOST_ETAG]
        if answer.status == 200:
            length = answer.header(b"content-length") or b""
            size = int(length) if _LENGTH.fullmatch(length) else None
            return Opened(answer=answer, start=0, size=size, etag=etag)
        place = _RANGE.fullmatch(answer.header(b"content-range") or b"")
        if place is None or int(place[1]) != offset:
            raise UpstreamBroken("The hub sent another part of the file than was asked for.")
        return Opened(answer=answer, start=offset, size=int(place[3]), etag=etag)
    except GatewayError:
        answer.abort()
        raise


def _refusal(answer: Answer) -> GatewayError:
    status = answer.status
    if status == 416:
        return RangeRefused("The hub has no such part of the file.")
    if status in (401, 403):
        gated = answer.header(b"x-error-code") == b"GatedRepo"
        return Forbidden(
            "That model is gated: accept its conditions at the hub and set `hub.token`."
            if gated
            else "The hub refuses the file; check `hub.token`.",
            code="model_gated" if gated else "hub_refused",
        )
    if status in (404, 410):
        return NotFound("The hub has this file no more.")
    if status == 429:
        wait = answer.header(b"retry-after") or b""
        return RateLimited("The hub asks to wait.", retry_after=_seconds(wait))
    if status in (408, 425) or status >= 500:
        return UpstreamError("The hub failed.")
    return cast("GatewayError", UpstreamRefused(f"The hub refuses the file with status {status}."))


def _seconds(value: bytes) -> float | None:
    return min(float(value), _MOST_WAIT) if _LENGTH.fullmatch(value) else None
