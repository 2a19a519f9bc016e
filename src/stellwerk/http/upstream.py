"""The client side of HTTP/1.1: one connection to an upstream, one answer at a time."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

from stellwerk.core.errors import UpstreamBroken, UpstreamError, UpstreamTimeout

_MOST_INFORMATIONAL = 8
_MOST_FRAMING = 128 * 1024
"""Bytes that may come in a row without any of them being body: a head, or what follows the last chunk."""


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, bytes and counts for calls to one origin."""

    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    idle_seconds: float = 60.0
    """The longest silence inside an answer."""
    connections: int = 1024
    idle_connections: int = 256
    response_bytes: int = 64 * 1024 * 1024
    event_bytes: int = 1024 * 1024
    """The longest event of a stream."""


class ConnectionDied(UpstreamError):
    """The connection ended before a single byte of the answer: nothing is known of the request's fate."""


class AnswerTooLarge(UpstreamBroken):
    """The answer has more bytes than its settings allow; what comes is not read any more."""


class Answer:
    """An upstream's answer; fills the port `UpstreamAnswer`. Made by `UpstreamConnection.request`."""

    __slots__ = (
        "_closed",
        "_connection",
        "_deadline",
        "_ended",
        "_error",
        "_fed",
        "_headers",
        "_parts",
        "_settings",
        "_sink",
        "_size",
        "_waiter",
        "event_bytes",
        "key",
        "secrets",
        "silent",
        "status",
    )

    def __init__(self, connection: "UpstreamConnection", settings: UpstreamSettings, deadline: float) -> None:
        self._connection: UpstreamConnection | None = connection
        self._settings = settings
        self._deadline = deadline
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: UpstreamError | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._closed: Callable[[], None] | None = None
        self._fed: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.event_bytes = settings.event_bytes
        self.secrets: tuple[str, ...] = ()
        self.key: int | None = None
        self.status = 0
        """0 until the head is complete."""
        self.silent = 0.0
        """Monotonic seconds of the first sweep that saw no new byte; 0 while bytes come."""

    # --- for whoever reads

    async def head(self) -> None:
        """Returns when `status` is known. Raises ConnectionDied, UpstreamBroken or UpstreamTimeout."""
        while not self.status and self._error is None:
            await self._wait()
        if not self.status and self._error is not None:
            raise self._error

    def header(self, name: bytes) -> bytes | None:
        return self._headers.get(name)

    async def read(self) -> bytes:
        while not self._ended and self._error is None:
            await self._wait()
        if self._error is not None:
            # Nobody wants half a body, and the error that leads to this object may be kept for long.
            self._parts = []
            raise self._error
        return self._take()

    async def next(self) -> bytes:
        while not self._parts and not self._ended and self._error is None:
            await self._wait()
        if self._parts:
            return self._take()
        if self._error is not None:
            raise self._error
        return b""

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        """Calls `sink` with each piece of the body as it arrives, and returns after the last.

        The pieces never pass through a task, which is what makes a relayed stream cheap. Raises as `next` does.
        """
        if self._parts:
            sink(self._take())
        self._sink = sink
        try:
            while not self._ended and self._error is None:
                await self._wait()
        finally:
            self._sink = None
        if self._error is not None:
            raise self._error

    def when_closed(self, call: Callable[[], None]) -> None:
        """Calls back once when the answer is complete, broken or given up; at once when it is that already."""
        if self._connection is None:
            call()
        else:
            self._closed = call

    def when_fed(self, call: Callable[[], None]) -> None:
        """Calls back at every piece of the body that arrives; at once for what is there already."""
        self._fed = call
        if self._parts:
            call()

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self._close()
            connection.abandon()

    def _close(self) -> None:
        self._connection = None
        call = self._closed
        if call is not None:
            self._closed = None
            call()

    def pause_reading(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def _take(self) -> bytes:
        parts = self._parts
        self._parts = []
        self._size = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # --- for the connection

    def begin(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.silent = 0.0
        self.status = status
        self._headers = headers
        self._wake()

    def feed(self, data: bytes) -> None:
        self.silent = 0.0
        if self._fed is not None:
            self._fed()
        if self._sink is not None:
            self._sink(data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._settings.response_bytes:
            self.fail(AnswerTooLarge("The upstream's answer is too large.", may_fall_back=True))
        else:
            self._wake()

    def end(self) -> None:
        # From here on the connection may carry somebody else's answer.
        self._ended = True
        self._close()
        self._wake()

    def fail(self, error: UpstreamError) -> None:
        if self._error is None and not self._ended:
            self._error = error
            self._wake()
        self.abort()

    def sweep(self, now: float) -> None:
        """Fails when the upstream has been silent for too long; called about twice a second."""
        if now >= self._deadline:
            self.fail(UpstreamTimeout("The upstream did not finish in time."))
        elif not self.silent:
            self.silent = now
        elif not self.status and now - self.silent >= self._settings.first_byte_seconds:
            self.fail(UpstreamTimeout("The upstream did not answer in time.", may_fall_back=True))
        elif self.status and now - self.silent >= self._settings.idle_seconds:
            self.fail(UpstreamTimeout("The upstream stopped in the middle of its answer."))


class UpstreamConnection(asyncio.Protocol):
    """One connection to one origin. `released` is called when it may be used again, `lost` when it is gone."""

    def __init__(
        self,
        settings: UpstreamSettings,
        released: Callable[["UpstreamConnection"], None],
        lost: Callable[["UpstreamConnection"], None],
    ) -> None:
        self._settings = settings
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport
        self._headers: dict[bytes, bytes] = {}
        # The parser stores header fields without calling into Python for each of them.
        self.on_header = self._headers.__setitem__
        self._parser = httptools.HttpResponseParser(self)
        self._until_close = False
        self._informational = 0
        self._framing = 0
        self._pieces: list[bytes] = []
        """Body that the present read has brought; handed on once, so that who is behind catches up in larger steps."""
        self._paused = False
        self.answer: Answer | None = None
        self.alive = True
        self.used = False
        """A request has been sent over it, so the upstream may have closed it in the meantime."""

    def request(self, data: bytes, deadline: float) -> Answer:
        """Sends the bytes of a whole request; its answer is read through what this returns."""
        self.answer = answer = Answer(self, self._settings, deadline)
        if not self.alive:
            answer.fail(ConnectionDied("The upstream closed the connection without an answer.", may_fall_back=True))
            return answer
        self.used = True
        self._until_close = False
        self._informational = self._framing = 0
        self._transport.write(data)
        return answer

    def abandon(self) -> None:
        """The answer is not wanted any more: half of it may be on the way, so the connection cannot be kept."""
        if self.answer is not None:
            self.answer = None
            self.close()

    def close(self) -> None:
        self.alive = False
        self._transport.abort()

    def pause_reading(self) -> None:
        if not self._paused and self.alive:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and self.alive:
            self._paused = False
            if self.answer is not None:
                self.answer.silent = 0.0
            self._transport.resume_reading()

    @property
    def reading_held(self) -> bool:
        """Whether the silence is ours: nobody may be blamed for not sending."""
        return self._paused

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        closed_here = not self.alive
        self.alive = False
        answer = self.answer
        self.answer = None
        self._lost(self)
        if answer is None:
            return
        if self._until_close and exc is None and not closed_here:
            answer.end()
        elif not answer.status and not self._framing:
            answer.fail(ConnectionDied("The upstream closed the connection without an answer.", may_fall_back=True))
        else:
            answer.fail(UpstreamBroken("The upstream broke off in the middle of its answer.", may_fall_back=True))

    def data_received(self, data: bytes) -> None:
        if self.answer is None:
            # Nothing was asked: whatever this is, it would be taken for the next answer.
            self.close()
            return
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._hand_on()
            self._fail("The upstream sent something that is not HTTP.")
        except httptools.HttpParserUpgrade:
            self._hand_on()
            self._fail("The upstream wants to change the protocol.")
        else:
            if self._pieces:
                self._hand_on()
            if self._framing > _MOST_FRAMING:
                self._fail("The upstream sent a head or a trailer that is too large.")

    def _hand_on(self) -> None:
        pieces = self._pieces
        if pieces:
            self._pieces = []
            if self.answer is not None:
                self.answer.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _fail(self, message: str) -> None:
        answer = self.answer
        self.close()
        if answer is not None:
            answer.fail(UpstreamBroken(message, may_fall_back=True))

    # --- called by httptools

    def on_message_begin(self) -> None:
        self._headers.clear()
        if self.answer is None:
            self.close()

    def on_headers_complete(self) -> None:
        answer = self.answer
        status = self._parser.get_status_code()
        if answer is None or status < 200:
            return
        headers = {name.lower(): value for name, value in self._headers.items()}
        if headers.get(b"content-encoding") not in (None, b"", b"identity"):
            self._fail("The upstream sent a compressed answer that was not asked for.")
            return
        self._until_close = b"content-length" not in headers and b"transfer-encoding" not in headers
        answer.begin(status, headers)

    def on_body(self, data: bytes) -> None:
        self._framing = 0
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._hand_on()
        answer = self.answer
        if answer is None:
            return
        if not answer.status:
            self._informational += 1
            if self._informational > _MOST_INFORMATIONAL:
                self._fail("The upstream sent too many interim answers.")
            return
        self.answer = None
        answer.end()
        # The last piece may have found the client slow: the next answer on this connection must not wait for it.
        self.resume_reading()
        if self._parser.should_keep_alive() and self.alive:
            self._released(self)
        else:
            self.close()
