"""The output of a response: chat completions, whole or in pieces, become items, and the events that tell of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from stellwerk.api.openai.responses_tools import FullName
from stellwerk.core.errors import UpstreamBroken
from stellwerk.core.events import ToolCall
from stellwerk.providers._openai_tool_calls import CallPiece, ToolCallReader

INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a choice was cut, and the reason that a response gives."""
_PARTS: Final = {
    "reasoning_text": ("reasoning", "text"),
    "output_text": ("message", "text"),
    "refusal": ("message", "refusal"),
}
"""Kinds of parts: the item that they stand in, and the field that holds their text."""

Events = Iterator[dict[str, Any]]
"""Of OpenAI's Responses API, still without their numbers."""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    # No part of OpenAI's own API, so whatever else stands there is as good as nothing.
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[CallPiece | None] | None = None

    @property
    def thinking(self) -> str:
        texts = (self.reasoning_content, self.reasoning)
        return next((text for text in texts if isinstance(text, str) and text), "")


class _Token(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class _Logprob(_Token):
    top_logprobs: list[_Token] = []


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class Choice(msgspec.Struct):
    """One choice of a chat completion, or of a chunk of one."""

    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Writing:
    """The part of an item that grows."""

    __slots__ = ("kind", "logprobs", "pieces")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.logprobs: list[_Logprob] = []

    def part(self) -> dict[str, Any]:
        part: dict[str, Any] = {"type": self.kind, _PARTS[self.kind][1]: "".join(self.pieces)}
        if self.kind == "output_text":
            part |= {"annotations": [], "logprobs": _kept(self.logprobs)}
        return part


class _Call:
    """A tool call. `index` is its place in the output, which it gets when its id and its name are known."""

    __slots__ = ("id", "index", "name", "pieces")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.index: int | None = None
        self.pieces: list[str] = []


class OutputItems:
    """Collects one choice. Every step gives the events of what it has changed; it is taken when they are read."""

    def __init__(self, most_bytes: int, names: Mapping[str, FullName] | None = None) -> None:
        """`most_bytes` bounds what is kept. All steps raise UpstreamError past it, and for what cannot be read.
        `names` are those of the functions that stand in namespaces."""
        self.items: list[dict[str, Any]] = []
        self.reason: str | None = None
        """Why the model ended, in the words of chat completions."""
        self._room = most_bytes
        self._names = names or {}
        self._item: int | None = None
        """Where the item stands whose parts are being written: one thinks or speaks at a time."""
        self._part: _Writing | None = None
        self._logprobs: list[_Logprob] = []
        self._spoke = False
        self._tools = ToolCallReader()
        self._calls: dict[int, _Call] = {}

    def take(self, choice: Choice, size: int) -> Events:
        """What the choice or the piece of it brings; `size` is that of the JSON which it was read from."""
        said = choice.delta or choice.message
        if choice.finish_reason:
            self.reason = choice.finish_reason
        if said is None:
            return
        logprobs = _read_logprobs(choice.logprobs)
        self._grow(size if logprobs else len(said.thinking) + len(said.content or "") + len(said.refusal or ""))
        if said.thinking:
            yield from self._write("reasoning_text", said.thinking)
        self._logprobs += logprobs
        if said.content is not None:
            self._spoke = True
        if said.content:
            yield from self._write("output_text", said.content)
        if said.refusal:
            yield from self._write("refusal", said.refusal)
        for piece in self._tools.read(0, said.tool_calls or (), whole=choice.delta is None):
            yield from self._take_call(piece)

    def end(self) -> Events:
        """The choice is complete, or was cut as its reason says."""
        status = "incomplete" if self.reason in INCOMPLETE else "completed"
        if self._spoke and not self._calls and not any(item["type"] == "message" for item in self.items):
            yield from self._turn_to("output_text")
        yield from self._close_item(status)
        calls = list(self._calls.values())
        for call in calls:
            if not call.name:
                raise UpstreamBroken("The model's tool call cannot be read.")
            # Only the last one can have been cut.
            yield from self._close_call(call, status if call is calls[-1] else "completed")

    def break_off(self) -> None:
        """Leaves the items as far as they are."""
        for _ in self._close_item("incomplete"):
            pass
        for call in self._calls.values():
            if call.index is not None:
                self.items[call.index] |= {"arguments": "".join(call.pieces), "status": "incomplete"}

    def _grow(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise UpstreamBroken("The upstream's answer is too large.")

    def _write(self, kind: str, text: str) -> Events:
        yield from self._turn_to(kind)
        part = self._part
        assert part is not None
        part.pieces.append(text)
        event = {"type": f"response.{kind}.delta", **self._place(), "delta": text}
        if kind == "output_text":
            event["logprobs"] = _told(self._logprobs)
            part.logprobs += self._logprobs
            self._logprobs = []
        yield event

    def _turn_to(self, kind: str) -> Events:
        """Opens the part and its item that a text of this kind belongs to, and closes what others were written."""
        if self._part is not None and self._part.kind == kind:
            return
        wanted = _PARTS[kind][0]
        if self._item is not None and self.items[self._item]["type"] != wanted:
            yield from self._close_item("completed")
        yield from self._close_part()
        if self._item is None:
            item: dict[str, Any] = {"type": wanted, "id": _new_id("rs" if wanted == "reasoning" else "msg")}
            if wanted == "reasoning":
                item["summary"] = []
            else:
                item |= {"status": "in_progress", "role": "assistant"}
            self._item = len(self.items)
            self.items.append({**item, "content": []})
            yield self._about_item("added", self._item)
        self._part = _Writing(kind)
        yield {"type": "response.content_part.added", **self._place(), "part": self._part.part()}

    def _close_part(self) -> Events:
        part = self._part
        if part is None:
            return
        if part.kind == "output_text":
            part.logprobs += self._logprobs
            self._logprobs = []
        place, whole, field = self._place(), part.part(), _PARTS[part.kind][1]
        ended = {"type": f"response.{part.kind}.done", **place, field: whole[field]}
        if part.kind == "output_text":
            ended["logprobs"] = _told(part.logprobs)
        yield ended
        yield {"type": "response.content_part.done", **place, "part": whole}
        self.items[place["output_index"]]["content"].append(whole)
        self._part = None

    def _close_item(self, status: str) -> Events:
        yield from self._close_part()
        if self._item is None:
            return
        index, self._item = self._item, None
        item = self.items[index]
        if "status" in item:
            item["status"] = status
        yield self._about_item("done", index)

    def _take_call(self, piece: ToolCall) -> Events:
        yield from self._close_item("completed")
        call = self._calls.setdefault(piece.number, _Call())
        call.id, call.name = call.id or piece.id, call.name or piece.name
        if call.index is None and call.id and call.name:
            yield from self._open_call(call)
        if piece.arguments:
            call.pieces.append(piece.arguments)
            if call.index is not None:
                yield self._about_arguments(call, "delta", {"delta": piece.arguments})

    def _open_call(self, call: _Call) -> Events:
        call.id = call.id or _new_id("call")
        call.index = len(self.items)
        item = {"type": "function_call", "id": _new_id("fc"), "call_id": call.id, "name": call.name}
        if full := self._names.get(call.name):
            call.name = full.name
            item |= {"name": full.name, "namespace": full.namespace}
        self.items.append({**item, "arguments": "", "status": "in_progress"})
        yield self._about_item("added", call.index)
        if call.pieces:
            yield self._about_arguments(call, "delta", {"delta": "".join(call.pieces)})

    def _close_call(self, call: _Call, status: str) -> Events:
        if call.index is None:
            yield from self._open_call(call)
        assert call.index is not None
        arguments = "".join(call.pieces)
        yield self._about_arguments(call, "done", {"name": call.name, "arguments": arguments})
        self.items[call.index] |= {"arguments": arguments, "status": status}
        yield self._about_item("done", call.index)

    def _about_item(self, what: str, index: int) -> dict[str, Any]:
        # A copy, because the item goes on to change before the event is written.
        return {"type": f"response.output_item.{what}", "output_index": index, "item": dict(self.items[index])}

    def _about_arguments(self, call: _Call, what: str, said: dict[str, Any]) -> dict[str, Any]:
        assert call.index is not None
        place = {"item_id": self.items[call.index]["id"], "output_index": call.index}
        return {"type": f"response.function_call_arguments.{what}", **place, **said}

    def _place(self) -> dict[str, Any]:
        """Where the part stands that is being written."""
        assert self._item is not None
        item = self.items[self._item]
        return {"item_id": item["id"], "output_index": self._item, "content_index": len(item["content"])}


def field_of(kind: str) -> str:
    """Where a part of this kind has its text."""
    return _PARTS[kind][1]


def frame_event(event: dict[str, Any], number: int) -> bytes:
    """As a server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (
        event["type"].encode(),
        msgspec.json.encode({**event, "sequence_number": number}),
    )


def _read_logprobs(raw: Any) -> list[_Logprob]:
    """What cannot be read is as good as nothing: hardly anybody asks for it."""
    if raw is None:
        return []
    try:
        return msgspec.convert(raw, _Logprobs).content or []
    except msgspec.ValidationError:
        return []


def _kept(logprobs: Sequence[_Logprob]) -> list[dict[str, Any]]:
    """As items have them: with every field."""
    return [{**_of_token(one), "top_logprobs": [_of_token(other) for other in one.top_logprobs]} for one in logprobs]


def _of_token(one: _Token) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": one.bytes or []}


def _told(logprobs: Sequence[_Logprob]) -> list[dict[str, Any]]:
    """As events have them: without the bytes."""
    return [
        {
            "token": one.token,
            "logprob": one.logprob,
            "top_logprobs": [{"token": other.token, "logprob": other.logprob} for other in one.top_logprobs],
        }
        for one in logprobs
    ]


def _new_id(prefix: str) -> str:
    return f"{prefix}_{os.urandom(16).hex()}"
