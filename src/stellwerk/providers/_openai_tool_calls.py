"""Reads the tool calls of OpenAI's chat answers, which vendors number in several ways."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.events import ToolCall

MOST_CALLS: Final = 1024
LONGEST_ARGUMENTS: Final = 8 * 1024 * 1024
"""Characters of names, ids and arguments in one answer: whoever speaks a wire with whole calls has to collect them."""
_ABSENT = msgspec.Raw(b"null")


class Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = _ABSENT
    """A string that holds JSON; some servers write the JSON itself."""


class CallPiece(msgspec.Struct):
    """A whole call, or the piece of one that a chunk of a stream brings."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class _OpenCall(msgspec.Struct):
    number: int
    id: str
    name: str


_decode_text = msgspec.json.Decoder(str).decode


class ToolCallReader:
    """Turns the calls of one answer into events. Calls of a choice are numbered from 0 in the order of the answer."""

    __slots__ = ("_calls", "_counts", "_last", "_open", "_size")

    def __init__(self) -> None:
        self._open: dict[tuple[int, int | None], _OpenCall] = {}
        self._last: dict[int, _OpenCall] = {}
        self._counts: dict[int, int] = {}
        self._calls = self._size = 0

    def read(self, choice: int, pieces: Sequence[CallPiece | None], *, whole: bool) -> Iterator[ToolCall]:
        """Events for `pieces` of one message (`whole`) or one chunk. Raises UpstreamError past the bounds."""
        for piece in pieces:
            if piece is None:
                continue
            function = piece.function or Function()
            call_id, name = piece.id or "", function.name or ""
            arguments = _read_arguments(function.arguments)
            self._grow(len(call_id) + len(name) + len(arguments))
            known = None if whole else self._find(choice, piece.index, call_id, name)
            if known is None:
                known = self._begin(choice, piece.index, call_id, name)
                yield ToolCall(index=choice, number=known.number, id=call_id, name=name, arguments=arguments)
                continue
            # Some repeat id and name in every piece; what came before is not said again.
            late_id, late_name = "" if known.id else call_id, "" if known.name else name
            known.id, known.name = known.id or call_id, known.name or name
            if late_id or late_name or arguments:
                yield ToolCall(index=choice, number=known.number, id=late_id, name=late_name, arguments=arguments)

    def _find(self, choice: int, index: int | None, call_id: str, name: str) -> _OpenCall | None:
        """The call that a piece goes on with; None when it begins one."""
        known = self._last.get(choice) if index is None else self._open.get((choice, index))
        if known is None or not name:
            return known
        # Gemini sends whole calls under one index, or under none: a name beside another id, or another name, is a
        # call of its own. An id without a name is not, because some make up a new one for every piece.
        if index is None and known.name:
            return known if call_id and call_id == known.id else None
        other_id = bool(call_id and known.id and call_id != known.id)
        other_name = bool(known.name and name != known.name and not (call_id and call_id == known.id))
        return None if other_id or other_name else known

    def _begin(self, choice: int, index: int | None, call_id: str, name: str) -> _OpenCall:
        self._calls += 1
        if self._calls > MOST_CALLS:
            raise UpstreamError("The upstream's answer calls too many tools.", may_fall_back=True)
        number = self._counts.get(choice, 0)
        self._counts[choice] = number + 1
        call = _OpenCall(number, call_id, name)
        self._open[choice, index] = self._last[choice] = call
        return call

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > LONGEST_ARGUMENTS:
            raise UpstreamError("The upstream's answer calls tools with too much text.", may_fall_back=True)


def _read_arguments(raw: msgspec.Raw) -> str:
    text = bytes(raw).strip()
    if text == b"null":
        return ""
    try:
        return _decode_text(text) if text.startswith(b'"') else text.decode()
    except ValueError:
        raise UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True) from None
