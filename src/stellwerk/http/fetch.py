"""One request to an address of the operator's, for discovery: small answers, read whole."""

from urllib.parse import urlsplit

from stellwerk import __version__
from stellwerk.core.clock import Clock
from stellwerk.http.pool import Pools, parse_base_url

_SECONDS = 10.0


class Fetch:
    """`await fetch(method, url, body)` → status and body. Raises UpstreamError when no answer comes."""

    def __init__(self, pools: Pools, clock: Clock) -> None:
        self._pools = pools
        self._clock = clock

    async def __call__(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        parts = urlsplit(url)
        origin, _ = parse_base_url(f"{parts.scheme}://{parts.netloc}")
        lines = [
            f"{method} {parts.path or '/'} HTTP/1.1",
            f"host: {origin.authority}",
            f"user-agent: stellwerk/{__version__}",
            "accept: application/json",
            "accept-encoding: identity",
        ]
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        request = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
        answer = await self._pools.pool(origin).send(request, self._clock.monotonic() + _SECONDS)
        return answer.status, await answer.read()
