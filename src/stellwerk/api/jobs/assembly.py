"""Puts a streamed chat together again: the pieces become the one answer that the same request gets without a stream."""

from collections.abc import Callable
from typing import Any

import msgspec

from stellwerk.core.errors import UpstreamBroken
from stellwerk.http.sse import EventSplitter, event_data

_TOP = ("id", "created", "model", "system_fingerprint", "service_tier", "citations")
_MOST_CHOICES = 128
_MOST_TOOL_CALLS = 1024
_EVENT_BYTES = 32 * 1024 * 1024
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ChatAssembly:
    """Fed with the bytes of a stream, cut anywhere. Never raises."""

    def __init__(self, most_bytes: int, say: Callable[[str], None]) -> None:
        """`say` is told the text of the first choice as it comes; `most_bytes` is how long all texts may be."""
        self._splitter = EventSplitter(_EVENT_BYTES)
        self._most_bytes = most_bytes
        self._say = say
        self._size = 0
        self._top: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Any = None
        self.error: dict[str, Any] | None = None
        """What the stream said when it failed."""
        self.done = False

    def feed(self, data: bytes) -> bool:
        """False when there is more than may be kept."""
        try:
            events = self._splitter.feed(data)
        except UpstreamBroken:
            return False
        for event in events:
            text = event_data(event)
            if text is not None and not self.done and self.error is None:
                self._hear(text)
        return self._size <= self._most_bytes

    @property
    def complete(self) -> bool:
        return self.done and self.error is None and bool(self._top or self._choices)

    def whole(self) -> bytes:
        """The answer as `chat.completion`."""
        answer: dict[str, Any] = {"object": "chat.completion", **self._top}
        answer["choices"] = [self._choices[index].whole(index) for index in sorted(self._choices)]
        if self._usage is not None:
            answer["usage"] = self._usage
        return msgspec.json.encode(answer)

    def _hear(self, text: bytes) -> None:
        if text.strip() == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _decode(text)
        except (ValueError, RecursionError):
            return
        if isinstance(chunk.get("error"), dict):
            self.error = chunk["error"]
            return
        for name in _TOP:
            if chunk.get(name) is not None:
                self._top[name] = chunk[name]
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._take(choice, len(text))

    def _take(self, choice: dict[str, Any], size: int) -> None:
        index = choice.get("index", 0)
        if not isinstance(index, int) or (index not in self._choices and len(self._choices) >= _MOST_CHOICES):
            return
        known = self._choices.setdefault(index, _Choice())
        delta = choice.get("delta")
        if isinstance(delta, dict):
            content = delta.get("content")
            if index == min(self._choices) and isinstance(content, str) and content:
                self._say(content)
            self._size += known.add(delta)
        if isinstance(choice.get("logprobs"), dict):
            self._size += size
            known.add_logprobs(choice["logprobs"])
        if choice.get("finish_reason") is not None:
            known.finish_reason = choice["finish_reason"]


class _Choice:
    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._other: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] | None = None
        self.finish_reason: Any = None

    def add(self, delta: dict[str, Any]) -> int:
        """Returns by how much it has grown."""
        grown = 0
        for name, value in delta.items():
            if name == "tool_calls":
                grown += self._add_calls(value)
            elif name == "role":
                continue
            elif isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
                grown += len(value.encode("utf-8", "surrogatepass"))
            elif name == "function_call" and isinstance(value, dict):
                grown += _merge(self._other.setdefault(name, {}), value)
            elif value is not None:
                grown += len(msgspec.json.encode(value))
                if isinstance(value, list) and isinstance(self._other.get(name), list):
                    self._other[name] += value
                else:
                    self._other[name] = value
        return grown

    def _add_calls(self, calls: Any) -> int:
        grown = 0
        for call in calls if isinstance(calls, list) else ():
            if not isinstance(call, dict):
                continue
            index = call.get("index", 0)
            if not isinstance(index, int) or (index not in self._calls and len(self._calls) >= _MOST_TOOL_CALLS):
                continue
            grown += _merge(self._calls.setdefault(index, {}), {k: v for k, v in call.items() if k != "index"})
        return grown

    def add_logprobs(self, logprobs: dict[str, Any]) -> None:
        if self._logprobs is None:
            self._logprobs = {}
        for name, value in logprobs.items():
            if isinstance(value, list):
                self._logprobs.setdefault(name, []).extend(value)

    def whole(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        for name, parts in self._texts.items():
            text = "".join(parts)
            # Some send an empty text before they call a tool.
            message[name] = text if text or not self._calls else None
        message |= self._other
        if self._calls:
            message["tool_calls"] = [_whole_call(self._calls[number]) for number in sorted(self._calls)]
        logprobs = None if self._logprobs is None else {"content": None, "refusal": None, **self._logprobs}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self.finish_reason or ("tool_calls" if self._calls else "stop"),
        }


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    made = {"type": "function", **{name: value for name, value in call.items() if value is not None}}
    if isinstance(made.get("function"), dict):
        made["function"] = {"arguments": "", **made["function"]}
    return made


def _merge(known: dict[str, Any], more: dict[str, Any]) -> int:
    """Texts that grow are continued, names are taken as they come; returns by how much it has grown."""
    grown = 0
    for name, value in more.items():
        if isinstance(value, dict):
            inner = known.get(name)
            if not isinstance(inner, dict):
                inner = known[name] = {}
            grown += _merge(inner, value)
        elif isinstance(value, str):
            grown += len(value.encode("utf-8", "surrogatepass"))
            # Identifiers come whole, and some upstreams repeat them with every piece.
            continued = name in ("arguments", "input") and isinstance(known.get(name), str)
            known[name] = known[name] + value if continued else value or known.get(name, value)
        elif value is not None:
            known[name] = value
    return grown
