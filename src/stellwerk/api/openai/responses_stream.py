"""A streamed response: an exchange that a chat is streamed into, and that writes the events of a response."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stellwerk.api.openai.responses_answers import end_response, fail_response
from stellwerk.api.openai.responses_items import Choice, OutputItems, frame_event
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from stellwerk.http.exchange import Exchange, Flow, Headers
from stellwerk.http.sse import EventSplitter, event_data
from stellwerk.providers.openai_usage import read_usage

_EVENT_BYTES: Final = 32 * 1024 * 1024
_COMMENT = re.compile(rb":[^\r\n]*(?:\n:[^\r\n]*)*")
"""A return alone ends a line too: what follows it would be an event of the upstream's own."""
_NULL = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct):
    choices: list[Choice] | None = None
    # Raw cannot be one of several types, so what is absent reads as null.
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL


_decode = msgspec.json.Decoder(_Chunk).decode


class ResponseStream:
    """The meaning of each member is that of `Exchange`, whose other end is `client`.

    What is written has to be whole events of a chat completion with its usage. `write` raises UpstreamError for what
    cannot be read or is too large, and has told the client by then.
    """

    def __init__(
        self,
        client: Exchange,
        path: str,
        body: bytes,
        headers: Mapping[bytes, bytes],
        *,
        response: dict[str, Any],
        output: OutputItems,
    ) -> None:
        """`response` is the one that begins, `output` collects what comes."""
        self._client = client
        self.method = "POST"
        self.path = path
        self.query = b""
        self.headers = headers
        self.body = body
        self.peer = client.peer
        self.received = client.received
        self._response = response
        self._splitter = EventSplitter(_EVENT_BYTES)
        self._output = output
        self._usage: Usage | None = None
        self._number = 0
        self._ended = False
        """The last event was written."""

    @property
    def started(self) -> bool:
        return self._client.started

    @started.setter
    def started(self, value: bool) -> None:
        self._client.started = value

    @property
    def closed(self) -> bool:
        return self._client.closed

    @closed.setter
    def closed(self, value: bool) -> None:
        self._client.closed = value

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._client.respond(status, headers, body)

    def start(self, status: int, headers: Headers) -> None:
        self._client.start(status, headers)
        begun = [{"type": f"response.{what}", "response": self._response} for what in ("created", "in_progress")]
        self._client.write(b"".join(map(self._frame, begun)))

    def write(self, data: bytes) -> None:
        out: list[bytes] = []
        try:
            for event in self._splitter.feed(data):
                text = event_data(event)
                if text is None:
                    # Comments keep the connection open; to set anything else is not for the upstream.
                    if _COMMENT.fullmatch(event):
                        out.append(event + b"\n\n")
                elif not self._ended:
                    self._hear(text, out)
        except UpstreamError as error:
            if not self._ended:
                self._fail({"message": error.message}, out)
            raise
        finally:
            if out:
                self._client.write(b"".join(out))

    def finish(self) -> None:
        """A stream that was not complete until now never will be."""
        if not self._ended:
            out: list[bytes] = []
            self._fail({"message": "The upstream broke off in the middle of its answer."}, out)
            self._client.write(b"".join(out))
        self._client.finish()

    def break_off(self) -> None:
        self._client.break_off()

    def feed_from(self, source: Flow | None) -> None:
        self._client.feed_from(source)

    def _hear(self, text: bytes, out: list[bytes]) -> None:
        if text.strip() == b"[DONE]":
            out += map(self._frame, self._output.end())
            self._ended = True
            status, ended = end_response(self._response, self._output, self._usage)
            out.append(self._frame({"type": f"response.{status}", "response": ended}))
            return
        try:
            chunk = _decode(text)
        except (ValueError, RecursionError):
            raise UpstreamBroken("The upstream's answer cannot be read.") from None
        if bytes(chunk.error) != b"null":
            error = msgspec.json.decode(chunk.error)
            self._fail(error if isinstance(error, dict) else {}, out)
            return
        self._usage = read_usage(chunk.usage) or self._usage
        for choice in chunk.choices or ():
            # Nobody asked for another one than the first.
            if not choice.index:
                out += map(self._frame, self._output.take(choice, len(text)))

    def _fail(self, error: dict[str, Any], out: list[bytes]) -> None:
        self._ended = True
        self._output.break_off()
        failed = fail_response(self._response, self._output, self._usage, error)
        out.append(self._frame({"type": "response.failed", "response": failed}))

    def _frame(self, event: dict[str, Any]) -> bytes:
        number = self._number
        self._number += 1
        return frame_event(event, number)
