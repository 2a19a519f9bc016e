"""Server-sent events: lines of fields, each event ended by an empty line. Pure."""

import msgspec

from stellwerk.client.errors import NotUnderstood

MOST_EVENT = 32 << 20


class Event(msgspec.Struct, frozen=True):
    name: str
    """`message` where the sender says nothing else."""
    data: str


class EventReader:
    """Cuts a stream into events, however the bytes were cut on their way."""

    def __init__(self, most_bytes: int = MOST_EVENT) -> None:
        self._most_bytes = most_bytes
        self._line = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are complete now. Raises NotUnderstood when one grows without end."""
        events: list[Event] = []
        # The beginning of a line was searched before: a long one that comes in small pieces is not searched again.
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._line += line
            self._hear(bytes(self._line).removesuffix(b"\r"), events)
            self._line.clear()
        self._line += rest
        if len(self._line) + self._size > self._most_bytes:
            raise NotUnderstood("The gateway sent an event that is too large.")
        return events

    def _hear(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(self._name or "message", "\n".join(self._data)))
            self._name, self._data, self._size = "", [], 0
            return
        field, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode(errors="replace")
        if field == b"data":
            self._data.append(text)
            self._size += len(text)
        elif field == b"event":
            self._name = text
