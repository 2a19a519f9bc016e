"""Server-sent events as far as language models use them (WHATWG HTML, 9.2): `data:` lines between blank lines."""

from stellwerk.core.errors import UpstreamBroken

LONGEST_EVENT = 1024 * 1024


class EventSplitter:
    """Cuts a stream of bytes into whole events, wherever the network cut it. Line ends become LF."""

    __slots__ = ("_longest", "_rest")

    def __init__(self, longest: int = LONGEST_EVENT) -> None:
        self._longest = longest
        self._rest = b""

    def whole(self, data: bytes) -> bytes:
        """All events that are complete now, as bytes that end in a blank line; b"" when there is none yet.

        JSON never holds a raw line end, so CRLF can be replaced wherever it stands. Raises UpstreamBroken when an
        event grows past its bound.
        """
        rest, self._rest = self._rest, b""
        if data.startswith(b"\n") and rest.endswith(b"\r"):
            rest = rest[:-1]
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if rest:
            # Its line ends are not looked at again: of CR CR LF, cut behind it, both CRs would be lost.
            data = rest + data
        if data.endswith(b"\n\n"):
            return data
        cut = data.rfind(b"\n\n") + 2
        if cut < 2:
            cut = 0
        self._rest = data[cut:]
        if len(self._rest) > self._longest:
            raise UpstreamBroken("The upstream sent an event that is too large.")
        return data[:cut]

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, each without its closing blank line."""
        return [event for part in self.whole(data).split(b"\n\n") if (event := part.lstrip(b"\n"))]

    @property
    def rest(self) -> bytes:
        """The beginning of an event that is not complete."""
        return self._rest


def event_data(event: bytes) -> bytes | None:
    """The joined `data` of one event; None for comments and events without data."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
