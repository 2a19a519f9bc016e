"""What a request needs of its model, read from its body."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.plan import Model

LeastTokens = Callable[[Call], int]
"""Fewer tokens than the prompt of a call can have."""


class Need(StrEnum):
    IMAGE = "image"
    AUDIO = "audio"
    TOOLS = "tools"
    CONTEXT = "context"


_PART_NEEDS = {
    "image": Need.IMAGE,
    "image_url": Need.IMAGE,
    "input_image": Need.IMAGE,
    "input_audio": Need.AUDIO,
    "audio": Need.AUDIO,
    "audio_url": Need.AUDIO,
}
_EMPTY = (b"", b"null", b"[]")
_NO_TOOLS = (b'"none"',)


def find_needs(call: Call) -> frozenset[Need]:
    """What the call needs beside text. A body that cannot be read needs nothing: whoever answers it will say so."""
    fields = call.fields
    needs = set()
    if bytes(fields.get("tools", b"")) not in _EMPTY and bytes(fields.get("tool_choice", b"")) not in _NO_TOOLS:
        needs.add(Need.TOOLS)
    if bytes(fields.get("images", b"")) not in _EMPTY:
        needs.add(Need.IMAGE)
    messages = bytes(fields.get("messages", b""))
    # Only what has typed parts or images is read whole; a backslash may be an escape that hides the word.
    if b'"type"' in messages or b'"images"' in messages or b"\\u" in messages:
        needs |= set(_needs_of_messages(messages))
    return frozenset(needs)


def _needs_of_messages(messages: bytes) -> Iterator[Need]:
    try:
        read = msgspec.json.decode(messages)
    except (ValueError, RecursionError):
        return
    for message in read if isinstance(read, list) else ():
        if not isinstance(message, dict):
            continue
        if message.get("images"):
            yield Need.IMAGE
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if (need := _need_of_part(part)) is not None:
                yield need


def _need_of_part(part: Any) -> Need | None:
    if not isinstance(part, dict):
        return None
    kind = part.get("type")
    link = part.get("image_url")
    url = link.get("url") if isinstance(link, dict) else link
    # Some clients send sound where OpenAI's API has images.
    if kind == "image_url" and isinstance(url, str) and url.startswith("data:audio/"):
        return Need.AUDIO
    return _PART_NEEDS.get(kind) if isinstance(kind, str) else None


def lacks(model: Model, needs: frozenset[Need], tokens: int = 0) -> Need | None:
    """The first need that the model cannot meet; None also when nobody knows for sure. `tokens` is the least that the
    prompt has."""
    if not model.certain:
        return None
    if model.context_length is not None and tokens > model.context_length:
        return Need.CONTEXT
    for need in (Need.IMAGE, Need.AUDIO):
        if need in needs and need not in model.input_modalities:
            return need
    if Need.TOOLS in needs and "tools" not in model.parameters:
        return Need.TOOLS
    return None
