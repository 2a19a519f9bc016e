"""One request and the way to answer it: all that an API module sees of HTTP.

The server protocol and the ASGI adapter both make exchanges, so each API exists once and needs no socket to be tested.
"""

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote

Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields, names in lower case."""


def header_text(text: str) -> bytes:
    """A header's value with a text that came from outside, such as a model's name: what could end it is escaped."""
    return text.encode() if text.isascii() and text.isprintable() else quote(text, safe=" !#$&'()*+,/:;=?@[]").encode()


class Flow(Protocol):
    """A source of bytes that can be held back while the client does not keep up."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Exchange(Protocol):
    method: str
    path: str
    """The path of the request target as it stood on the wire, still percent-encoded."""
    query: bytes
    headers: Mapping[bytes, bytes]
    """Names in lower case; a repeated field is joined by ", "."""
    body: bytes
    peer: str
    """Address of the other end of the socket, "" for a UNIX socket; never taken from a header."""
    received: float
    """Monotonic seconds at which the head was complete."""
    started: bool
    """The status has been sent; what follows can only be body."""
    closed: bool
    """The client is gone; everything written from now on is dropped."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole answer; `content-length` is added."""

    def start(self, status: int, headers: Headers) -> None:
        """Sends the head of an answer whose length is not known."""

    def write(self, data: bytes) -> None:
        """Sends a piece of the body after `start`; never blocks, see `feed_from`."""

    def finish(self) -> None:
        """Ends a body that was begun with `start`."""

    def break_off(self) -> None:
        """Closes the connection so that the client sees the body as cut short."""

    def feed_from(self, source: Flow | None) -> None:
        """Holds `source` back whenever more is written than the client takes; None lets go."""
