"""One HTTP connection to the gateway whose console this is."""

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import urlencode

import msgspec

from stellwerk import __version__
from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, UpstreamTimeout
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import Pools, parse_base_url
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.tui.reading import clean
from stellwerk.tui.trouble import ConsoleTrouble

CLIENT_ID: Final = "tui_console"
READ_SECONDS = 10.0
ACT_SECONDS = 150.0
"""Some gateways answer when a model is loaded, which may take two minutes."""
_MOST_BYTES = 8 << 20
_NO_ROUTE = frozenset({"unknown_url", "method_not_allowed"})
_NO_ROUTE_TEXTS = ("Not Found", "Method Not Allowed", "There is nothing at ")
"""How AI Gateway says it, the original and the documented routes of Stellwerk: there are no codes."""

Method = Literal["GET", "POST", "DELETE"]


class _Said(msgspec.Struct, frozen=True):
    code: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Said = _Said()


class Unwatched:
    """Nobody counts the console's connections."""

    def connected(self) -> None: ...

    def reused(self) -> None: ...


class Connection:
    """Asks the gateway at `url`, whose path stays in front of every route. `token` is asked before each request.

    Raises ConsoleTrouble for an address that is none.
    """

    def __init__(self, url: str, token: Callable[[], Secret], clock: Clock) -> None:
        self.url = url
        try:
            self._origin, self._path = parse_base_url(url if "://" in url else f"http://{url}")
        except ValueError:
            raise ConsoleTrouble("trouble.bad_url", url=clean(url)) from None
        self._token = token
        self._clock = clock
        self._pools = Pools(UpstreamSettings(response_bytes=_MOST_BYTES, connections=4), Unwatched(), clock)

    @property
    def has_login(self) -> bool:
        """Whether the token is that of a login, which is a JWT, and no API key."""
        token = self._token().reveal()
        return token.startswith("eyJ") and token.count(".") == 2

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON that `path` answers with. Raises ConsoleTrouble."""
        return await self.ask("GET", path, query)

    async def ask(
        self,
        method: Method,
        path: str,
        query: Mapping[str, Any] = MappingProxyType({}),
        body: Mapping[str, Any] | None = None,
        *,
        seconds: float = READ_SECONDS,
    ) -> Any:
        """The JSON of the answer, None for an empty one. Raises ConsoleTrouble."""
        target = f"{self._path}{path}" + (f"?{urlencode(query)}" if query else "")
        request = self._request(method, target, None if body is None else msgspec.json.encode(body))
        status, data = await self._send(request, seconds)
        if status >= 300:
            raise _refusal(status, data, self.url)
        try:
            return msgspec.json.decode(data) if data else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConsoleTrouble("trouble.no_gateway", url=self.url) from None

    def close(self) -> None:
        self._pools.close()

    def _request(self, method: Method, target: str, body: bytes | None) -> bytes:
        token = self._token().reveal()
        # Anything else would end up as further lines of the request's head.
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ConsoleTrouble("trouble.bad_token")
        lines = [
            f"{method} {target} HTTP/1.1",
            f"host: {self._origin.authority}",
            f"user-agent: stellwerk/{__version__}",
            f"x-client-id: {CLIENT_ID}",
            f"authorization: Bearer {token}",
            "accept: application/json",
            "accept-encoding: identity",
        ]
        if body is not None:
            lines.append("content-type: application/json")
        if method != "GET":
            lines.append(f"content-length: {len(body or b'')}")
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (body or b"")

    async def _send(self, request: bytes, seconds: float) -> tuple[int, bytes]:
        answer: UpstreamAnswer | None = None
        try:
            # Nobody sweeps these pools: the time is kept here.
            async with asyncio.timeout(seconds):
                answer = await self._pools.pool(self._origin).send(request, self._clock.monotonic() + seconds)
                return answer.status, await answer.read()
        except (TimeoutError, UpstreamTimeout):
            raise ConsoleTrouble("trouble.silent", url=self.url) from None
        except GatewayError:
            raise ConsoleTrouble("trouble.unreachable", url=self.url) from None
        finally:
            if answer is not None:
                answer.abort()


def _refusal(status: int, data: bytes, url: str) -> ConsoleTrouble:
    if status == 401:
        return ConsoleTrouble("trouble.unauthenticated", status)
    if status == 403:
        return ConsoleTrouble("trouble.forbidden", status)
    message = _message(data)
    if status in {404, 405} and not message:
        return ConsoleTrouble("trouble.not_offered", status)
    if status < 400:
        return ConsoleTrouble("trouble.no_gateway", status, url=url)
    trouble = ConsoleTrouble("trouble.answer", status, code=status, message=message or "?")
    trouble.code = _code(data)
    return trouble


def _code(data: bytes) -> str:
    """The gateway's word for a refusal, in OpenAI's way of saying it; empty where it has none."""
    try:
        return msgspec.json.decode(data, type=_Refused).error.code
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _message(data: bytes) -> str:
    """What the gateway said, in OpenAI's or AI Gateway's way of saying it; empty when it only knows no such route."""
    try:
        said = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    error = said.get("error")
    if isinstance(error, dict):
        return "" if error.get("code") in _NO_ROUTE else clean(error.get("message"))
    detail = said.get("detail", error)
    found = clean(detail)
    return "" if found.startswith(_NO_ROUTE_TEXTS) else found
