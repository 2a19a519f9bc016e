"""The ASGI side of the same routes, for requests that reach uvicorn's own protocol or any other ASGI server."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, NotFound, TooLarge
from stellwerk.http.cors import NOBODY, PREFLIGHT, Cors, Origins
from stellwerk.http.exchange import Flow, Headers
from stellwerk.http.listener import RenderError
from stellwerk.http.router import Handler, Router, choose

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_HIGH_WATER = 64 * 1024


class AsgiExchange:
    """An exchange over ASGI: writing never blocks, one sender task passes on what was written."""

    def __init__(self, scope: Scope, headers: Mapping[bytes, bytes], body: bytes, clock: Clock) -> None:
        self.method: str = scope["method"]
        self.path: str = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        self.query: bytes = scope.get("query_string", b"")
        self.headers = headers
        self.body = body
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        self.received = clock.monotonic()
        self.started = False
        self.closed = False
        self.more_headers: Headers = ()
        """Of the answer, beside those that the handler gives it."""
        self._messages: list[dict[str, Any]] = []
        self._waiting = 0
        self._more = asyncio.Event()
        self._source: Flow | None = None
        self.ended = False
        self.broken = False

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        # A 204 has no length: RFC 9110, 8.6.
        self._start(status, (*headers, (b"content-length", b"%d" % len(body))) if status != 204 else headers)
        self._put(body, more=False)

    def start(self, status: int, headers: Headers) -> None:
        self._start(status, headers)

    def _start(self, status: int, headers: Headers) -> None:
        if self.closed:
            return
        self.started = True
        self._messages.append(
            {"type": "http.response.start", "status": status, "headers": [*headers, *self.more_headers]}
        )
        self._more.set()

    def write(self, data: bytes) -> None:
        if data:
            self._put(data, more=True)

    def finish(self) -> None:
        self._put(b"", more=False)

    def _put(self, data: bytes, *, more: bool) -> None:
        if self.closed:
            return
        self._messages.append({"type": "http.response.body", "body": data, "more_body": more})
        self.ended = self.ended or not more
        self._waiting += len(data)
        self._more.set()
        if self._waiting > _HIGH_WATER and self._source is not None:
            self._source.pause_reading()

    def break_off(self) -> None:
        self.closed = self.broken = True
        self._more.set()

    def feed_from(self, source: Flow | None) -> None:
        self._source = source
        if source is not None and self._waiting > _HIGH_WATER:
            source.pause_reading()

    async def pass_on(self, send: Send) -> None:
        """Sends what is written until the answer is complete or given up."""
        while True:
            await self._more.wait()
            self._more.clear()
            messages, self._messages = self._messages, []
            for message in messages:
                await send(message)
            self._waiting = 0
            if self._source is not None:
                self._source.resume_reading()
            if self.broken or (self.ended and not self._messages):
                return


class AsgiApplication:
    """Serves a router's exchanges over ASGI, with the same handlers as the server protocol.

    An answer that breaks off leaves the ASGI body open: the server then closes the connection, which tells the client.
    """

    def __init__(
        self,
        router: Router,
        render_error: RenderError,
        clock: Clock,
        body_bytes: int,
        origins: Origins = NOBODY,
    ) -> None:
        """`origins` are whose pages may read answers in a browser."""
        self._router = router
        self._cors = Cors(origins, router)
        self._render_error = render_error
        self._clock = clock
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = join_headers(scope["headers"])
        body = await _read_body(receive, self._body_bytes)
        exchange = AsgiExchange(scope, headers, body or b"", self._clock)
        sending = asyncio.ensure_future(exchange.pass_on(send))
        try:
            if body is None:
                return
            try:
                only_asks = self._meet_page(exchange)
                if len(body) > self._body_bytes:
                    raise TooLarge("The body is too large.")
                handler = self._find(exchange, only_asks=only_asks)
            except GatewayError as error:
                exchange.respond(*self._render_error(error, exchange.path))
            else:
                await _run(handler, exchange, receive)
            await sending
        finally:
            sending.cancel()

    def _meet_page(self, exchange: AsgiExchange) -> bool:
        """Whether a browser only asks what a page of another site may do."""
        exchange.more_headers = self._cors.headers
        if b"origin" not in exchange.headers:
            return False
        told, only_asks = self._cors.meet(exchange.method, exchange.path.encode("latin-1"), exchange.headers)
        exchange.more_headers += told
        return only_asks

    def _find(self, exchange: AsgiExchange, *, only_asks: bool) -> Handler:
        """Raises NotFound and MethodNotAllowed."""
        methods = PREFLIGHT if only_asks else self._router.find(exchange.path)
        if methods is None:
            raise NotFound(f"There is nothing at {exchange.method} {exchange.path}.", code="unknown_url")
        return choose(methods, exchange.method)


def join_headers(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    joined: dict[bytes, bytes] = {}
    for name, value in fields:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


async def _read_body(receive: Receive, most: int) -> bytes | None:
    """The whole body, or its beginning when it is longer than `most` bytes; None when the client left."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        parts.append(part)
        if size > most or not message.get("more_body"):
            return b"".join(parts)


async def _run(handler: Handler, exchange: AsgiExchange, receive: Receive) -> None:
    """Runs the handler and cancels it when the client leaves first; what it does after its answer is its own."""
    working = asyncio.ensure_future(handler(exchange))
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not exchange.ended:
            exchange.break_off()
            working.cancel()
        await asyncio.wait((working,))
        if not working.cancelled():
            working.result()
    finally:
        leaving.cancel()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
