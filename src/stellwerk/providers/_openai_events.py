"""Reads OpenAI's chat answers, whole or streamed, into events."""

from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from stellwerk.core.call import Wire
from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.events import Event, Finished, Text, Used
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.http.sse import EventSplitter, event_data
from stellwerk.providers._refusals import clean_message
from stellwerk.providers.openai_usage import read_usage

_ABSENT = msgspec.Raw(b"null")
"""Raw cannot be one of several types, so what is absent reads as null."""


class _Piece(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Piece | None = None
    message: _Piece | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Chunk).decode


def _read(data: bytes, secrets: Sequence[str]) -> Iterator[Event]:
    try:
        chunk = _decode(data)
    except (ValueError, RecursionError):
        raise UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True) from None
    if bytes(chunk.error) != b"null":
        raise stream_error(chunk.error, secrets)
    for choice in chunk.choices or ():
        piece = choice.delta or choice.message
        text = (piece.content or piece.refusal) if piece is not None else None
        if text:
            yield Text(index=choice.index, text=text)
        if choice.finish_reason:
            yield Finished(index=choice.index, reason=choice.finish_reason)
    usage = read_usage(chunk.usage)
    if usage is not None:
        yield Used(usage=usage)


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
    finished = False
    while data := await answer.next():
        for event in splitter.feed(data):
            text = event_data(event)
            if text is None:
                continue
            if text == b"[DONE]":
                return
            for piece in _read(text, answer.secrets):
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
        events = list(_read(await answer.read(), answer.secrets))
        if not any(isinstance(event, Text | Finished) for event in events):
            raise UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True)
        for event in events:
            yield event
