"""Listens to an OpenAI chat answer on its way to the client and remembers what the assistant said."""

from typing import Any

import msgspec

from stellwerk.core.errors import UpstreamBroken
from stellwerk.http.sse import EventSplitter, event_data

LONGEST = 1024 * 1024
"""Bytes of UTF-8; a longer answer is not complete and will not be remembered."""


class _Said(msgspec.Struct):
    # Any, because an odd value must not make the rest of the event unreadable.
    content: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None
    object: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class Transcript:
    """The text of choice 0 of one answer, fed as a stream or given as a whole. Never raises."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._pieces: list[str] = []
        self._size = 0
        self._finished = False
        self._done = False
        self._failed = False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def complete(self) -> bool:
        """The answer came to its end without an error, and all of it is in `text`."""
        return not self._failed and (self._finished or self._done)

    def feed(self, data: bytes) -> None:
        """The next bytes of a stream of server-sent events, cut anywhere."""
        if self._failed or self._done:
            return
        try:
            events = self._splitter.feed(data)
        except UpstreamBroken:
            self._failed = True
            return
        for event in events:
            found = event_data(event)
            if found is not None and not self._done:
                self._hear(found)

    def whole(self, body: bytes) -> None:
        """The body of an answer that is not streamed."""
        answer = _read(body)
        if answer is None or not answer.choices:
            self._failed = True
            return
        self._take(answer)
        # Some engines leave the reason out, and a body that could be read has not broken off.
        self._finished = True

    def _hear(self, found: bytes) -> None:
        if found.strip() == b"[DONE]":
            self._done = True
            return
        answer = _read(found)
        if answer is not None:
            self._take(answer)

    def _take(self, answer: _Answer) -> None:
        # The second is how vLLM and Mistral write an error inside a stream.
        if answer.error is not None or answer.object == "error":
            self._failed = True
            return
        for choice in answer.choices or ():
            if choice.index == 0:
                said = choice.delta or choice.message
                self._add(_text(said.content) if said is not None else "")
                self._finished = self._finished or choice.finish_reason is not None

    def _add(self, text: str) -> None:
        self._size += len(text.encode("utf-8", "surrogatepass"))
        if self._size > LONGEST:
            self._failed = True
        elif text:
            self._pieces.append(text)


def _read(text: bytes) -> _Answer | None:
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _text(content: Any) -> str:
    """A text, or the texts of a list of parts, which continue each other."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
