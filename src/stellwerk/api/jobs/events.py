"""What happens to a job, as server-sent events."""

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from stellwerk.api.jobs.shapes import show_event
from stellwerk.http.exchange import Exchange
from stellwerk.jobs.job import JobEvent

_LOOK_SECONDS = 0.5
_SILENT_LOOKS = 20
"""So many looks without an event are followed by a comment, so that nothing between takes the stream for dead."""
_COMMENT = b": it goes on\n\n"
_POINT = re.compile(rb"([0-9]{1,6}):([0-9]{1,12})")


class JobEventWriter(Protocol):
    def write(self, event: JobEvent) -> bytes:
        """What the client is told of it; b"" for nothing."""


class EventWriter:
    """Writes the events of one job for one client; an event's id says up to where the client has the answer."""

    def __init__(self, last_event_id: bytes | None = None) -> None:
        """`last_event_id` is what the client has heard last before its connection broke."""
        point = _POINT.fullmatch(last_event_id or b"")
        self._seen = (int(point[1]), int(point[2])) if point is not None else (0, 0)
        self._attempt = 0
        self._fence = 0
        """In ids it stands for the attempt, whose number may come again."""
        self._next = 0
        self._decoder = _new_decoder()

    def write(self, event: JobEvent) -> bytes:
        if event.type == "piece":
            return self._write_piece(event)
        if event.job is not None:
            self._attempt, self._fence = event.job.attempts, event.job.fence
        name, data = show_event(event)
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))

    def _write_piece(self, event: JobEvent) -> bytes:
        start, data = event.offset, event.data
        fence, seen = self._seen
        if fence == self._fence and start < seen:
            data = data[seen - start :]
            start = seen
        if not data:
            return b""
        if start != self._next:
            # Something is missing, or another attempt has begun.
            self._decoder = _new_decoder()
        self._next = start + len(data)
        said = {"text": self._decoder.decode(data), "offset": start, "attempt": self._attempt}
        # The beginning of a character that was cut is not said yet.
        point = f"{self._fence}:{self._next - len(self._decoder.getstate()[0])}".encode()
        return b"event: piece\nid: %b\ndata: %b\n\n" % (point, msgspec.json.encode(said))


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


async def write_events(
    exchange: Exchange, following: AsyncIterator[JobEvent], writer: JobEventWriter, stopping: Callable[[], bool]
) -> None:
    """Until the job has ended, nobody is there any more, or the gateway stops."""
    looks = 0
    coming: asyncio.Future[JobEvent] = asyncio.ensure_future(anext(following))
    try:
        while not exchange.closed and not stopping():
            await asyncio.wait({coming}, timeout=_LOOK_SECONDS)
            if not coming.done():
                looks += 1
                if looks % _SILENT_LOOKS == 0:
                    exchange.write(_COMMENT)
                continue
            looks = 0
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            exchange.write(writer.write(event))
            coming = asyncio.ensure_future(anext(following))
    finally:
        coming.cancel()


async def first_of(following: AsyncIterator[JobEvent]) -> AsyncIterator[JobEvent]:
    """The same events; the first has come already, so that what cannot be followed is refused in time."""
    first = await anext(following)

    async def go_on() -> AsyncIterator[JobEvent]:
        yield first
        async for event in following:
            yield event

    return go_on()
