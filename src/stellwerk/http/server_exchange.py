"""An exchange on a connection of the server protocol."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from stellwerk.http.exchange import Flow, Headers
from stellwerk.http.listener import Listener

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
# All of them: an upstream's 529 may be passed on.
_STATUS_LINES = {status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(100, 600)}


class ServerConnection(Protocol):
    """What an exchange needs of its connection."""

    listener: Listener
    transport: asyncio.Transport
    peer: str
    version: str
    keep_alive: bool
    page_headers: Headers
    """What the present answer tells the page of another site."""

    def answered(self) -> None: ...

    def feed_from(self, source: Flow | None) -> None: ...


def write_head(status: int, headers: Headers, lines: bytes) -> bytes:
    """The bytes of a response head; `lines` are whole lines: the date, and what tells where the body ends."""
    return b"".join((_STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in headers], lines, b"\r\n"))


class ServerExchange:
    """An exchange on a connection of `ServerProtocol`; the meaning of each member is that of `Exchange`."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_transport",
        "body",
        "closed",
        "finished",
        "headers",
        "method",
        "path",
        "peer",
        "query",
        "received",
        "started",
    )

    def __init__(
        self, connection: ServerConnection, method: str, path: str, query: bytes, headers: Mapping[bytes, bytes]
    ) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._chunked = True
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = b""
        self.peer = connection.peer
        self.received = connection.listener.clock.monotonic()
        self.started = False
        self.finished = False
        self.closed = False

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        if self.closed:
            return
        self.started = True
        content = b"" if self.method == "HEAD" else body
        # A 204 has no length: RFC 9110, 8.6.
        self._write_head(status, headers, b"content-length: %d\r\n" % len(body) if status != 204 else b"", content)
        self._finish()

    def start(self, status: int, headers: Headers) -> None:
        if self.closed:
            return
        self.started = True
        # An HTTP/1.0 client does not know chunks: the end of its body is the end of the connection.
        self._chunked = self._connection.version != "1.0"
        if not self._chunked:
            self._connection.keep_alive = False
        self._write_head(status, headers, b"transfer-encoding: chunked\r\n" if self._chunked else b"")

    def _write_head(self, status: int, headers: Headers, framing: bytes, body: bytes = b"") -> None:
        connection = self._connection
        lines = connection.listener.lines + framing
        if connection.page_headers:
            headers = (*headers, *connection.page_headers)
        if not connection.keep_alive:
            lines += b"connection: close\r\n"
        self._transport.write(write_head(status, headers, lines) + body)

    def write(self, data: bytes) -> None:
        if self.closed or not data or self.method == "HEAD":
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        if self.closed:
            return
        if self._chunked and self.method != "HEAD":
            self._transport.write(b"0\r\n\r\n")
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._connection.answered()

    def break_off(self) -> None:
        if not self.closed:
            self.closed = self.finished = True
            self._transport.abort()

    def feed_from(self, source: Flow | None) -> None:
        self._connection.feed_from(source)
