"""Parses one request after the other with httptools; the connection decides where each of them ends."""

import re

import httptools

_WEBSOCKET = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_UPGRADE_LINE = re.compile(rb"\r\nupgrade:[^\r]*\r\n", re.IGNORECASE)

InvalidRequest = httptools.HttpParserError


class RequestParser:
    """The request that is being read. `feed` raises InvalidRequest for bytes that are not HTTP/1.x."""

    __slots__ = (
        "_parser",
        "_raw_headers",
        "complete",
        "head",
        "keep_alive",
        "method",
        "on_header",
        "parts",
        "size",
        "target",
    )

    def __init__(self) -> None:
        self._raw_headers: dict[bytes, bytes] = {}
        # The parser stores header fields without calling into Python for each of them.
        self.on_header = self._raw_headers.__setitem__
        self._parser = httptools.HttpRequestParser(self)
        self.head = b""
        """The head as it was understood: without an offer that is ignored."""
        self.target = b""
        self.method = ""
        self.parts: list[bytes] = []
        self.size = 0
        """Bytes of body so far."""
        self.complete = False
        self.keep_alive = True

    def begin(self, head: bytes) -> bool:
        """Parses a whole head and forgets the request before; True when it asks for a WebSocket."""
        self._forget()
        self.head = head
        upgrade = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            upgrade = _WEBSOCKET.search(head) is not None
            if not upgrade:
                # Any other protocol that a client offers (HTTP/2 over clear text) may be ignored: RFC 9110, 7.8.
                self.restart()
                self._feed_without_upgrade(head)
        self.method = self._parser.get_method().decode("ascii")
        return upgrade

    def _feed_without_upgrade(self, head: bytes) -> None:
        self.head = _UPGRADE_LINE.sub(b"\r\n", head)
        try:
            self._parser.feed_data(self.head)
        except httptools.HttpParserUpgrade:
            raise InvalidRequest("CONNECT asks for a tunnel") from None

    def restart(self) -> None:
        """Makes the next bytes a new request, whatever the last head announced."""
        self._forget()
        self._parser = httptools.HttpRequestParser(self)

    def _forget(self) -> None:
        self._raw_headers.clear()
        self.target = b""
        self.parts = []
        self.size = 0
        self.complete = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @property
    def version(self) -> str:
        return str(self._parser.get_http_version())

    def headers(self) -> dict[bytes, bytes]:
        """Names in lower case; of a repeated field the last one."""
        return {name.lower(): value for name, value in self._raw_headers.items()}

    def body(self) -> bytes:
        parts = self.parts
        self.parts = []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- called by httptools

    def on_message_begin(self) -> None:
        if self.complete:
            # A second message behind a chunked body: it could not be cut off, so it is not answered.
            self.keep_alive = False

    def on_url(self, url: bytes) -> None:
        if not self.complete:
            self.target += url

    def on_headers_complete(self) -> None:
        # Not later: with the end of the message the parser forgets what its head said.
        if not self.complete:
            self.keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.parts.append(body)
            self.size += len(body)

    def on_message_complete(self) -> None:
        self.complete = True
