"""Puts together what a model gets to read: the memory block, then the history, then the request as it came."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from stellwerk.sessions.history import Message
from stellwerk.sessions.memory import Memory


def compose(messages: msgspec.Raw, memory: Memory, history: Sequence[Message], *, anthropic: bool) -> msgspec.Raw:
    """A JSON array that ends in the bytes of `messages`, itself a JSON array; the same object when nothing is added.

    `anthropic` says that the model reads `cache_control`; the others get a plain text, which they cache by themselves
    as long as it begins alike. Raises ValueError when `messages` is no array.
    """
    came = bytes(messages).strip()
    if not came.startswith(b"[") or not came.endswith(b"]"):
        raise ValueError("the messages are not an array")
    first = [msgspec.json.encode(message) for message in (*_memory_message(memory, anthropic=anthropic), *history)]
    if not first:
        return messages
    if came[1:-1].strip():
        # The rest brings its own bracket and, where the client wrote them, its own blanks.
        return msgspec.Raw(b"[" + b",".join(first) + b"," + came[1:])
    return msgspec.Raw(b"[" + b",".join(first) + came[1:])


def _memory_message(memory: Memory, *, anthropic: bool) -> Iterable[dict[str, Any]]:
    if not memory.content:
        return
    if memory.cache and anthropic:
        part = {"type": "text", "text": memory.content, "cache_control": {"type": "ephemeral"}}
        yield {"role": "system", "content": [part]}
    else:
        yield {"role": "system", "content": memory.content}
