"""Streamed answers on the relay way: bytes pass as they are, except where the client must not see what we asked for."""

import re
from collections.abc import Sequence

import msgspec

from stellwerk.api.openai.answers import Renaming
from stellwerk.core.errors import UpstreamError
from stellwerk.core.ports import Meter
from stellwerk.http.sse import LONGEST_EVENT, EventSplitter, event_data
from stellwerk.providers._openai_events import stream_error
from stellwerk.providers.openai_usage import read_usage

_FINISHED = re.compile(rb'"finish_reason":\s*"')
DONE = b"data: [DONE]\n\n"


_NULL = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    # Raw cannot be one of several types, so what is absent reads as null.
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL
    object: msgspec.Raw = _NULL


_decode = msgspec.json.Decoder(_Chunk).decode


class StreamRelay:
    """Turns the upstream's bytes into the client's; looks into an event only where a cheap search finds a reason to."""

    __slots__ = ("_meter", "_rename", "_secrets", "_splitter", "_wants_usage", "complete", "done")

    def __init__(
        self,
        *,
        renaming: Renaming,
        wants_usage: bool,
        meter: Meter,
        event_bytes: int = LONGEST_EVENT,
        secrets: Sequence[str] = (),
    ) -> None:
        """`secrets` is what the upstream was shown: no error repeats it."""
        self._rename = renaming
        self._wants_usage = wants_usage
        self._meter = meter
        self._secrets = secrets
        self._splitter = EventSplitter(event_bytes)
        self.done = False
        """`[DONE]` has come; nothing counts after it."""
        self.complete = False
        """A choice has said why it ended, so an upstream that leaves out `[DONE]` has not broken off."""

    def feed(self, data: bytes) -> bytes:
        """What the client gets now, whole events only. Raises UpstreamError for an error inside the stream."""
        data = self._splitter.whole(data)
        if not data or self.done:
            return b""
        events = data.count(b"\n\n")
        self._meter.deliver(events, len(data))
        # Only mere text passes unread: as many `"finish_reason":null` as events, which JSON with spaces never has.
        if (
            b'"usage":{' in data
            or b'"error"' in data
            or b"[DONE]" in data
            or data.count(b'"finish_reason":null') != events
        ):
            data = b"".join([self._look_into(event) for event in data.split(b"\n\n")])
        return self._rename(data)

    def _look_into(self, event: bytes) -> bytes:
        text = event_data(event)
        if text is None or self.done:
            return event + b"\n\n" if event and not self.done else b""
        if text.strip() == b"[DONE]":
            self.done = True
            return DONE
        try:
            return self._look_into_chunk(event, text)
        except (ValueError, RecursionError):
            raise UpstreamError("The upstream sent an event that cannot be read.", may_fall_back=True) from None

    def _look_into_chunk(self, event: bytes, text: bytes) -> bytes:
        chunk = _decode(text)
        if bytes(chunk.error) != b"null":
            raise stream_error(chunk.error, self._secrets)
        if bytes(chunk.object) == b'"error"':
            # How vLLM and Mistral write it: the error's fields at the top.
            raise stream_error(text, self._secrets)
        if bytes(chunk.usage) != b"null":
            usage = read_usage(chunk.usage)
            if usage is not None:
                self._meter.count(usage)
            if not chunk.choices and not self._wants_usage:
                return b""
        if chunk.choices:
            if _FINISHED.search(text) is not None:
                self.complete = True
            if not all(b'"finish_reason"' in bytes(choice) for choice in chunk.choices):
                event = b"data: " + _complete_chunk(text)
        return event + b"\n\n"

    def end(self) -> bytes:
        """What is still to be sent after the upstream's last byte. Raises UpstreamError when it came too early."""
        if self.done:
            return b""
        rest = self._splitter.rest.strip()
        if rest == b"data: [DONE]" or (self.complete and not rest):
            self.done = True
            return DONE
        raise UpstreamError("The upstream broke off in the middle of its answer.", code="upstream_broken")


def _complete_chunk(text: bytes) -> bytes:
    """OpenAI's schema and mistralai's client want `finish_reason` on every choice, null before the last chunk."""
    chunk = msgspec.json.decode(text)
    for choice in chunk["choices"]:
        if isinstance(choice, dict):
            choice.setdefault("finish_reason", None)
    return msgspec.json.encode(chunk)
