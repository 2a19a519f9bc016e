"""The server side of HTTP/1.1: bytes in, exchanges out.

uvicorn accepts the sockets and hosts this protocol. A request for a registered route is served right here, without a
framework; any other request is passed, byte for byte and after the same guard, to uvicorn's own protocol, which runs
the ASGI application. The connection comes back afterwards, so a client may mix both kinds.
"""

import asyncio
from collections.abc import MutableSet
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from stellwerk.core.errors import (
    BadRequest,
    GatewayError,
    HeaderTooLarge,
    RequestTimeout,
    Unavailable,
)
from stellwerk.http.cors import PREFLIGHT
from stellwerk.http.exchange import Flow, Headers
from stellwerk.http.guard import GuardSettings, check_path, join_fields
from stellwerk.http.listener import Listener
from stellwerk.http.passed_requests import PassedRequests
from stellwerk.http.peer import client_address
from stellwerk.http.request_parser import InvalidRequest, RequestParser
from stellwerk.http.router import Handler, choose
from stellwerk.http.server_exchange import ServerExchange, write_head

_NEVER = float("inf")
_MOST_WAITING = 64 * 1024
"""Bytes of a following request that are taken while one is being answered; then the socket is not read."""
_LINGER_SECONDS = 5.0
_MOST_LINGERING = 64 * 1024 * 1024


class ServerProtocol(asyncio.Protocol):
    """One connection. It is in exactly one of four states: reading a head, reading a body, answering, lingering."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        listener: Listener,
    ) -> None:
        self._uvicorn = (config, server_state, app_state, _loop)
        self._open: MutableSet[Any] = server_state.connections
        self.loop = _loop or asyncio.get_running_loop()
        self.listener = listener
        self.guard = listener.guard
        self.transport: asyncio.Transport
        self.peer = ""
        self._admitted_by: GuardSettings | None = None
        """The settings under which the peer may be here; they can be replaced while the connection stays."""
        self.keep_alive = True
        self.version = "1.1"
        self.page_headers: Headers = ()
        self._parser = RequestParser()
        self._buffer = b""
        self._read = self._read_head
        self._left = 0
        """Bytes of the body that are still to come; -1 when it comes in chunks."""
        self._framing = 0
        """Bytes in a row that belonged to a chunked body and were not content."""
        self._dropped = self._passed_bytes = 0
        self._exchange: ServerExchange | None = None
        self._handler: Handler | None = None
        self._task: asyncio.Task[None] | None = None
        self._passed: PassedRequests | None = None
        self._source: Flow | None = None
        self._deadline = _NEVER
        self._head_begun = False
        self._stalled_bytes = 0
        self._stalled_until = _NEVER

    # --- the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        listener = self.listener
        if len(listener.connections) >= self.guard.settings.connections:
            listener.connections.add(self)
            self._refuse(Unavailable("Too many connections are open.", code="too_many_connections", retry_after=1))
            return
        listener.connections.add(self)
        self._open.add(self)
        self._deadline = self._in(self.guard.settings.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener.connections.discard(self)
        self._open.discard(self)
        self._deadline = self._stalled_until = _NEVER
        self._source = None
        exchange = self._exchange
        if exchange is not None and not exchange.finished:
            exchange.closed = True
            self.listener.watch.left()
            if self._task is not None:
                self._task.cancel()
        if self._passed is not None:
            self._passed.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._read(data)

    def pause_writing(self) -> None:
        self._stalled_bytes = self.transport.get_write_buffer_size()
        self._stalled_until = self._in(self.guard.settings.write_stall_seconds)
        if self._source is not None:
            self._source.pause_reading()
        if self._passed is not None:
            self._passed.pause_writing()

    def resume_writing(self) -> None:
        self._stalled_until = _NEVER
        if self._source is not None:
            self._source.resume_reading()
        if self._passed is not None:
            self._passed.resume_writing()

    # --- reading a head

    def _read_head(self, data: bytes) -> None:
        if self._admitted_by is not self.guard.settings and not self._admit(data):
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = data.find(b"\r\n\r\n")
        limit = self.guard.settings.head_bytes
        if end < 0 or end > limit:
            if len(data) > limit:
                self._refuse(HeaderTooLarge(f"The request head is larger than {limit} bytes."))
            elif b"\n\n" in data:
                self._refuse(BadRequest("Invalid HTTP request: lines must end in CRLF.", code="invalid_http"))
            else:
                if not self._head_begun:
                    self._head_begun = True
                    self._deadline = self._in(self.guard.settings.head_seconds)
                self._buffer = data
            return
        end += 4
        head = data if len(data) == end else data[:end]
        try:
            self._take_head(head, data[end:])
        except GatewayError as error:
            self._refuse(error, without_body=head.startswith(b"HEAD "))
        except InvalidRequest:
            self._refuse(BadRequest("Invalid HTTP request.", code="invalid_http"))

    def _admit(self, data: bytes) -> bool:
        """Asked with the first bytes, not before: to some clients an answer before their question is a broken line."""
        try:
            self.guard.check_peer(self.peer)
        except GatewayError as error:
            self._parser.restart()
            self._refuse(error, without_body=data.startswith(b"HEAD "))
            return False
        self._admitted_by = self.guard.settings
        return True

    def _take_head(self, head: bytes, rest: bytes) -> None:
        self._head_begun = False
        parser = self._parser
        upgrade = parser.begin(head)
        headers = parser.headers()
        fields = head.count(b"\r\n") - 2
        if len(headers) != fields:
            headers = join_fields(parser.head)
        self.version = parser.version
        only_asks = False
        if b"origin" in headers:
            self.page_headers, only_asks = self.listener.cors.meet(parser.method, parser.target, headers)
        self.guard.check_head(parser.target, self.version, headers, fields)
        self.keep_alive = parser.keep_alive
        path, _, query = parser.target.partition(b"?")
        exchange = ServerExchange(self, parser.method, path.decode("latin-1"), query, headers)
        if trusted := self.guard.settings.trusted_proxies:
            exchange.peer = client_address(self.peer, headers.get(b"x-forwarded-for"), trusted)
        methods = PREFLIGHT if only_asks else self.listener.router.find(exchange.path)
        if methods is None or upgrade:
            check_path(path)
            if upgrade and (b"content-length" in headers or b"transfer-encoding" in headers):
                # After an offer of WebSocket the next reader would take the body for another request.
                raise BadRequest("A WebSocket handshake has no body.", code="invalid_http")
            self._pass_on(parser.head, rest, headers)
            return
        self._handler = choose(methods, exchange.method)
        self._exchange = exchange
        self._begin_body(headers, rest)

    def _begin_body(self, headers: dict[bytes, bytes], rest: bytes) -> None:
        length = self.guard.check_body(headers)
        self._left = -1 if length is None else length
        if self._parser.complete and not self._left:
            self._buffer = rest
            self._begin()
            return
        if not rest and headers.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._deadline = self._in(self.guard.settings.body_seconds)
        self._read = self._read_body
        if rest:
            self._feed_body(rest)

    # --- reading a body

    def _read_body(self, data: bytes) -> None:
        try:
            self._feed_body(data)
        except GatewayError as error:
            self._refuse(error)
        except InvalidRequest:
            self._refuse(BadRequest("Invalid HTTP request body.", code="invalid_http"))

    def _feed_body(self, data: bytes) -> None:
        left = self._left
        if left >= 0:
            if len(data) > left:
                self._buffer = data[left:]
                data = data[:left]
            self._left = left - len(data)
        parser = self._parser
        before = parser.size
        parser.feed(data)
        if left < 0:
            self._check_chunks(before, len(data))
        if parser.complete:
            self.keep_alive = self.keep_alive and parser.keep_alive
            self._begin()

    def _check_chunks(self, before: int, received: int) -> None:
        settings = self.guard.settings
        size = self._parser.size
        self._framing = self._framing + received if size == before else 0
        if size > settings.body_bytes:
            raise self.guard.too_large()
        if self._framing > settings.head_bytes:
            raise BadRequest("The request body has too much between and after its chunks.", code="invalid_http")

    # --- answering

    def _begin(self) -> None:
        exchange = self._exchange
        handler = self._handler
        if exchange is None or handler is None:
            return
        exchange.body = self._parser.body()
        self._left = 0
        self._deadline = _NEVER
        self._read = self._read_ahead
        self._task = self.loop.create_task(handler(exchange))  # type: ignore[arg-type]

    def _read_ahead(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _MOST_WAITING:
            self.transport.pause_reading()

    def answered(self) -> None:
        """The answer is written: the connection is free for the next request, or done."""
        self._source = None
        self._exchange = None
        self._task = None
        self.page_headers = ()
        if not self.keep_alive or self.listener.draining or self._left or self.transport.is_closing():
            # With a body still on the way the next request could not be told from its rest.
            self.transport.close()
            return
        self._read = self._read_head
        self._deadline = self._in(self.guard.settings.idle_seconds)
        if self._buffer:
            waiting = self._buffer
            self._buffer = b""
            if len(waiting) > _MOST_WAITING:
                self.transport.resume_reading()
            self._read_head(waiting)

    def feed_from(self, source: Flow | None) -> None:
        self._source = source
        if source is not None and self._stalled_until != _NEVER:
            source.pause_reading()

    # --- requests that are not ours

    def _pass_on(self, head: bytes, rest: bytes, headers: dict[bytes, bytes]) -> None:
        """Hands one request to uvicorn's protocol, which answers it on the same transport."""
        self.guard.check_body(headers)
        passed = self._passed
        if passed is None:
            passed = PassedRequests(*self._uvicorn)
            passed.answered = self.answered
            passed.connection_made(self.transport)
            self._open.discard(passed)
            self._passed = passed
        # A new parser: ours has seen the head of a body that it will not see.
        self._parser.restart()
        self._left = int(headers.get(b"content-length", b"0")) if b"transfer-encoding" not in headers else -1
        self._passed_bytes = 0
        self._deadline = self._in(self.guard.settings.body_seconds) if self._left else _NEVER
        self._read = self._read_passed
        passed.data_received(head)
        if self.transport.get_protocol() is not self:
            self._deadline = _NEVER
            self.listener.connections.discard(self)
            return
        if rest:
            self._read_passed(rest)

    def _read_passed(self, data: bytes) -> None:
        if self._passed is None:
            return
        if self._left >= 0:
            if len(data) > self._left:
                self._read_ahead(data[self._left :])
                data = data[: self._left]
            self._left -= len(data)
            if not self._left:
                self._deadline = _NEVER
        self._passed_bytes += len(data)
        if self._passed_bytes > self.guard.settings.body_bytes:
            self.transport.abort()
        elif data:
            self._passed.data_received(data)

    # --- endings

    def _refuse(self, error: GatewayError, *, without_body: bool = False) -> None:
        """Answers a request that never became a call, and closes. `without_body` is for HEAD, which never has one.

        What the client still sends is read and dropped for a while: closing at once would reset the connection, and
        a reset destroys the answer before the client has read it.
        """
        self.listener.watch.refused(error.code)
        self._exchange = None
        self.keep_alive = False
        path = self._parser.target.partition(b"?")[0].decode("latin-1")
        status, headers, body = self.listener.render_error(error, path)
        lines = self.listener.lines + b"content-length: %d\r\nconnection: close\r\n" % len(body)
        self.transport.write(
            write_head(status, (*headers, *self.page_headers), lines) + (b"" if without_body else body)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._read = self._drop
        self._deadline = self._in(_LINGER_SECONDS)
        self._stalled_until = self._deadline

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > _MOST_LINGERING:
            self.transport.abort()

    def check_deadline(self, now: float) -> None:
        """Ends the connection when its present state has lasted too long."""
        if now >= self._deadline:
            self._expire()
        elif now >= self._stalled_until:
            waiting = self.transport.get_write_buffer_size()
            if waiting < self._stalled_bytes:
                self._stalled_bytes = waiting
                self._stalled_until = now + self.guard.settings.write_stall_seconds
            else:
                self.transport.abort()

    def _expire(self) -> None:
        if self._read == self._read_body or (self._read == self._read_head and self._buffer):
            self._refuse(RequestTimeout("The request took too long to arrive."))
        elif self._read == self._drop:
            self.transport.abort()
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """uvicorn's graceful stop: close now when idle, after the answer when busy."""
        if self._exchange is None and (self._passed is None or self._read == self._read_head):
            self.transport.close()
        else:
            self.keep_alive = False
            if self._passed is not None:
                self._passed.shutdown()

    def abort(self) -> None:
        self.transport.abort()

    def _in(self, seconds: float) -> float:
        return self.listener.now + seconds
