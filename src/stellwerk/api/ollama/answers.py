"""Ollama's answers, made of the events of another wire: lines of a stream, or one object."""

import secrets
from datetime import UTC, datetime
from typing import Any

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import UpstreamBroken
from stellwerk.core.events import Event, Finished, Text, Thinking, ToolCall, Used
from stellwerk.core.outcome import Usage

_encode = msgspec.json.encode
_REASONS = {"tool_calls": "stop", "function_call": "stop"}
"""Where Ollama has another word than OpenAI."""
_MOST_CALLS = 1024
_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_check_object = msgspec.json.Decoder(dict[str, Any]).decode


def timestamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds, in UTC, from Unix seconds."""
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def loaded_object(model: str, *, chat: bool, unload: bool, now: float) -> bytes:
    """The answer to a request that asks nothing."""
    said = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    reason = "unload" if unload else "load"
    return _encode({"model": model, "created_at": timestamp(now), **said, "done": True, "done_reason": reason})


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since the request arrived."""

    total: float
    first_byte: float | None = None
    """None where the answer came in one piece: then nobody knows how long the prompt took."""

    def fields(self) -> dict[str, int]:
        total = _nanoseconds(self.total)
        if self.first_byte is None:
            return {"total_duration": total, "load_duration": 0, "eval_duration": total}
        first = min(_nanoseconds(self.first_byte), total)
        return {
            "total_duration": total,
            "load_duration": 0,
            "prompt_eval_duration": first,
            # Clients divide by it.
            "eval_duration": max(total - first, 1),
        }


def _nanoseconds(seconds: float) -> int:
    return max(1, int(seconds * 1e9))


class _Pending:
    """A tool call whose arguments are still coming."""

    __slots__ = ("arguments", "id", "name", "number", "size")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = self.name = ""
        self.arguments: list[str] = []
        self.size = 0


class AnswerRenderer:
    """Collects events into an answer, and says what a streaming client gets for each of them."""

    def __init__(self, model: str, *, chat: bool, keeps: bool, clock: Clock, longest_call: int) -> None:
        """`keeps` collects what `whole` gives; a stream needs no memory. `longest_call` are the most characters of
        one tool call's arguments."""
        self._model = model
        self._chat = chat
        self._keeps = keeps
        self._clock = clock
        self._longest_call = longest_call
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._pending: dict[int, _Pending] = {}
        self._reason = "stop"
        self._usage: Usage | None = None

    def take(self, event: Event) -> bytes:
        """Lines for the client; b"" when there is nothing to send. Raises UpstreamBroken for a broken tool call."""
        if isinstance(event, Used):
            self._usage = event.usage
            return b""
        if not isinstance(event, Text | Thinking | ToolCall | Finished) or event.index:
            # Another choice than the first has no place in this wire, and nobody asked for one.
            return b""
        if isinstance(event, ToolCall):
            self._take_call(event)
            return b""
        if isinstance(event, Finished):
            self._reason = _REASONS.get(event.reason, event.reason)
            return self._complete_calls()
        if isinstance(event, Thinking):
            if self._keeps:
                self._thoughts.append(event.text)
            return self._line(thinking=event.text)
        if self._keeps:
            self._texts.append(event.text)
        return self._line(text=event.text)

    def _take_call(self, event: ToolCall) -> None:
        """The pieces of several calls may come in turns, so none is complete before the choice is."""
        pending = self._pending.get(event.number)
        if pending is None:
            if len(self._pending) == _MOST_CALLS:
                raise UpstreamBroken("The model calls too many tools.", may_fall_back=True)
            pending = self._pending[event.number] = _Pending(len(self._pending))
        pending.id = pending.id or event.id
        pending.name = pending.name or event.name
        pending.arguments.append(event.arguments)
        pending.size += len(event.arguments)
        if pending.size > self._longest_call:
            raise UpstreamBroken("The model's tool call is too large.", may_fall_back=True)

    def _complete_calls(self) -> bytes:
        """A line with all calls, whole."""
        if not self._pending:
            return b""
        calls = [_render_call(pending) for pending in self._pending.values()]
        self._pending.clear()
        if self._keeps:
            self._calls += calls
        return self._line(calls=calls)

    def _said(self, text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        more: dict[str, Any] = {"thinking": thinking} if thinking else {}
        if calls:
            more["tool_calls"] = calls
        if self._chat:
            return {"message": {"role": "assistant", "content": text, **more}}
        return {"response": text, **more}

    def _line(self, *, text: str = "", thinking: str = "", calls: list[dict[str, Any]] | None = None) -> bytes:
        head = {"model": self._model, "created_at": timestamp(self._clock.now())}
        return _encode({**head, **self._said(text, thinking, calls or []), "done": False}) + b"\n"

    def last(self, durations: Durations) -> bytes:
        """The lines that end a stream."""
        return self._complete_calls() + self._ended("", "", [], durations) + b"\n"

    def whole(self, durations: Durations) -> bytes:
        self._complete_calls()
        return self._ended("".join(self._texts), "".join(self._thoughts), self._calls, durations)

    def _ended(self, text: str, thinking: str, calls: list[dict[str, Any]], durations: Durations) -> bytes:
        head = {"model": self._model, "created_at": timestamp(self._clock.now())}
        body = {**head, **self._said(text, thinking, calls), "done": True, "done_reason": self._reason}
        body |= durations.fields()
        if self._usage is not None:
            body |= {"prompt_eval_count": self._usage.input_tokens, "eval_count": self._usage.output_tokens}
        return _encode(body)


def _render_call(pending: _Pending) -> dict[str, Any]:
    text = "".join(pending.arguments).strip()
    if text == "null":
        # So some write that the tool needs none.
        text = ""
    try:
        if text:
            _check_object(text)
        arguments = msgspec.Raw(msgspec.json.format(text or "{}", indent=-1).encode())
    except (ValueError, RecursionError):
        raise UpstreamBroken("The model's tool call cannot be read.", may_fall_back=True) from None
    identity = pending.id or "call_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(8))
    return {"id": identity, "function": {"index": pending.number, "name": pending.name, "arguments": arguments}}
