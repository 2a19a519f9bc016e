"""Reads OpenAI's chat answers, whole or streamed, into events."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from stellwerk.core.call import Wire
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.events import Event, Finished, Text, Thinking, ToolCall, Used
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.http.sse import EventSplitter, event_data
from stellwerk.providers._openai_tool_calls import CallPiece, ToolCallReader
from stellwerk.providers._refusals import clean_message
from stellwerk.providers.openai_usage import read_usage

_ABSENT = msgspec.Raw(b"null")
"""Raw cannot be one of several types, so what is absent reads as null."""


class _Piece(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    # No part of OpenAI's own API, so whatever else stands there is as good as nothing.
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[CallPiece | None] | None = None

    @property
    def thinking(self) -> str:
        """What DeepSeek, llama.cpp and vLLM call reasoning_content; Ollama, OpenRouter and Groq reasoning. Who sends
        both says the same twice."""
        texts = (self.reasoning_content, self.reasoning)
        return next((text for text in texts if isinstance(text, str) and text), "")


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Piece | None = None
    message: _Piece | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Chunk).decode


class _Reader:
    """Reads the chunks of one answer, or its one body."""

    __slots__ = ("_secrets", "_tools")

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._tools = ToolCallReader()

    def read(self, data: bytes) -> Iterator[Event]:
        try:
            chunk = _decode(data)
        except (ValueError, RecursionError):
            raise UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True) from None
        if bytes(chunk.error) != b"null":
            raise stream_error(chunk.error, self._secrets)
        if bytes(chunk.object) == b'"error"':
            # How vLLM and Mistral write it: the error's fields at the top.
            raise stream_error(data, self._secrets)
        for choice in chunk.choices or ():
            yield from self._read_choice(choice)
        usage = read_usage(chunk.usage)
        if usage is not None:
            yield Used(usage=usage)

    def _read_choice(self, choice: _Choice) -> Iterator[Event]:
        index = choice.index
        piece = choice.delta or choice.message
        if piece is not None:
            if thinking := piece.thinking:
                yield Thinking(index=index, text=thinking)
            if text := piece.content or piece.refusal:
                yield Text(index=index, text=text)
            if piece.tool_calls:
                yield from self._tools.read(index, piece.tool_calls, whole=choice.delta is None)
        if choice.finish_reason:
            yield Finished(index=index, reason=choice.finish_reason)


def stream_error(raw: bytes | msgspec.Raw, secrets: Sequence[str] = ()) -> UpstreamError:
    """The error for an `error` object inside an answer that began as a success; `secrets` do not stand in it."""
    try:
        error = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        error = None
    message = error.get("message") if isinstance(error, dict) else error
    said = clean_message(message, secrets)
    return UpstreamError(said or "The upstream failed while it answered.", may_fall_back=True)


async def read_stream(answer: UpstreamAnswer) -> AsyncIterator[Event]:
    """Events of a streamed chat completion. Raises UpstreamError, also when the stream ends before it is complete."""
    splitter = EventSplitter(answer.event_bytes)
    reader = _Reader(answer.secrets)
    finished = False
    while data := await answer.next():
        for event in splitter.feed(data):
            text = event_data(event)
            if text is None:
                continue
            if text == b"[DONE]":
                return
            for piece in reader.read(text):
                finished = finished or isinstance(piece, Finished)
                yield piece
    if not finished:
        raise UpstreamBroken("The upstream broke off in the middle of its answer.", may_fall_back=True)


async def read_events(answer: UpstreamAnswer, wire: Wire, *, stream: bool) -> AsyncIterator[Event]:
    """Events of an answer in `wire`. Raises UpstreamError."""
    if wire is not Wire.OPENAI_CHAT:
        raise UpstreamError("This upstream's answer cannot be translated.")
    if stream:
        async for event in read_stream(answer):
            yield event
    else:
        events = list(_Reader(answer.secrets).read(await answer.read()))
        if not any(isinstance(event, Text | ToolCall | Finished) for event in events):
            raise UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True)
        for event in events:
            yield event
