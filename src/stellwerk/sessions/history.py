"""The messages that a session remembers: how many, in which form, and which go first."""

from collections.abc import Sequence
from typing import Literal

import msgspec

MOST_MESSAGES = 20
LARGEST_FILE = 4 * 1024 * 1024
"""Bytes; what is larger is none of ours."""

_MOST_BYTES = LARGEST_FILE - 64 * 1024
"""Of the messages alone: what the file adds around twenty of them is far less than the rest."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["system", "user", "assistant"]
    content: str


class _File(msgspec.Struct):
    # Go writes an empty list as null.
    history: list[Message] | None


_decode = msgspec.json.Decoder(_File).decode


def decode_history(content: bytes) -> list[Message]:
    """Reads `{"history":[{"role":…,"content":…}]}`; a file with nothing in it is an empty one. Raises ValueError."""
    if not content.strip():
        return []
    try:
        return keep_newest(_decode(content).history or [])
    except msgspec.ValidationError as error:
        raise ValueError(f"it is no history: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None


def encode_history(messages: Sequence[Message]) -> bytes:
    return msgspec.json.format(msgspec.json.encode({"history": messages}), indent=2) + b"\n"


def make_exchange(user: str, assistant: str) -> tuple[Message, Message] | None:
    """A question and its answer; None when they are too large to be remembered at all."""
    question = Message(role="user", content=_encodable(user))
    answer = Message(role="assistant", content=_encodable(assistant))
    return (question, answer) if _size(question) + _size(answer) <= _MOST_BYTES else None


def keep_newest(messages: Sequence[Message]) -> list[Message]:
    """The newest messages that fit; the oldest go by whole exchanges, so that what is left begins with a question."""
    sizes = [_size(message) for message in messages]
    left, first = sum(sizes), 0
    while len(messages) - first > MOST_MESSAGES or left > _MOST_BYTES:
        following = first + 2
        while following < len(messages) and messages[following].role != "user":
            following += 1
        left -= sum(sizes[first:following])
        first = following
    return list(messages[first:])


def _size(message: Message) -> int:
    return len(msgspec.json.encode(message))


def _encodable(text: str) -> str:
    """Half of a surrogate pair is no character: neither a file nor a database takes it."""
    return text.encode("utf-8", "replace").decode()
