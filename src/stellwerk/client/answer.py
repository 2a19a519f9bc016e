"""Reads an HTTP/1.1 answer from the bytes that come, however they were cut on their way."""

import httptools

from stellwerk.client.errors import BrokenOff, NotUnderstood, refusal

MOST_HEAD = 64 << 10


class AnswerReader:
    """Fed with the bytes of one answer; `take` gives what has come of the body since.

    `most_bytes` bounds the whole body of an answer; None leaves a stream its length.
    """

    def __init__(self, most_bytes: int | None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; known once `began`."""
        self.began = False
        self.complete = False
        self._most_bytes = most_bytes
        self._size = 0
        self._head_size = 0
        self._pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises NotUnderstood for what is no answer, or one that is larger than it may be."""
        if not self.began:
            self._head_size += len(data)
            if self._head_size > MOST_HEAD + len(data):
                raise NotUnderstood("The answer does not begin as one of a gateway does.")
        if self.complete:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What follows after the end of an answer is of no interest.
            if not self.complete:
                raise NotUnderstood("What came is no answer of a gateway.") from None
        if self._most_bytes is not None and self._size > self._most_bytes:
            raise NotUnderstood(f"The answer has more than {self._most_bytes} bytes.")

    def end(self) -> None:
        """The connection has ended. Raises BrokenOff when the answer had not."""
        if self.complete:
            return
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self.began or framed:
            raise BrokenOff("The answer broke off before its end.", status=self.status or None)
        self.complete = True

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def check(self, body: bytes) -> None:
        """Raises the Refused that the answer stands for, if it is one."""
        if not 200 <= self.status < 300:
            raise refusal(self.status, self.headers, body)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        # 1xx answers are followed by the real one.
        self.began = self.status >= 200
        if not self.began:
            self.headers = {}

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self.complete = self.began
