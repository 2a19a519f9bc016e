"""Whole answers: made complete, given the name that the client asked for, and counted."""

import base64
import re
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from stellwerk.core.errors import UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from stellwerk.providers._openai_events import stream_error
from stellwerk.providers.openai_usage import read_usage

_NOTHING = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    """What there must be one of; anything else in an answer is not ours to judge."""

    choices: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None
    # Raw cannot be one of several types, so what is absent reads as null.
    usage: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING


_decode = msgspec.json.Decoder(_Answer).decode


def check_choices(body: bytes, secrets: Sequence[str] = ()) -> Usage | None:
    """The usage in a chat or text completion. Raises UpstreamError when it is no such thing."""
    answer = _read(body)
    if answer.choices is None:
        raise _complain(answer, secrets)
    return read_usage(answer.usage)


def check_data(body: bytes, secrets: Sequence[str] = ()) -> Usage | None:
    """The usage in a list of embeddings. Raises UpstreamError when it is no such thing."""
    answer = _read(body)
    if answer.data is None:
        raise _complain(answer, secrets)
    return read_usage(answer.usage)


def _read(body: bytes) -> _Answer:
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        raise _unreadable() from None


def _complain(answer: _Answer, secrets: Sequence[str]) -> UpstreamError:
    """Some upstreams report a failure under status 200."""
    return stream_error(answer.error, secrets) if bytes(answer.error) != b"null" else _unreadable()


def _unreadable() -> UpstreamBroken:
    return UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True)


def _decode_whole(body: bytes) -> dict[str, Any]:
    """A checked answer with everything in it; the check reads no texts, so they may turn out to be unreadable here."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise _unreadable() from None


class Renaming:
    """Puts the model's name that the client used where the upstream repeats the one that we sent.

    A more exact name (a dated version, say) tells the client something and stays. The pattern cannot match inside a
    text: there every quote is escaped.
    """

    __slots__ = ("_pairs",)

    def __init__(self, upstream: str, asked: str) -> None:
        old, new = msgspec.json.encode(upstream), msgspec.json.encode(asked)
        marks = (b'"model":', b'"model": ')
        self._pairs = () if old == new else tuple((mark + old, mark + new) for mark in marks)

    def __call__(self, data: bytes) -> bytes:
        for old, new in self._pairs:
            # Both spellings may meet: an event that was completed is written anew.
            if old in data:
                data = data.replace(old, new)
        return data


# What OpenAI's schema lets be absent and not be null; vLLM and Mistral write null all the same.
_NEVER_NULL = (
    "annotations",
    "completion_tokens_details",
    "function_call",
    "prompt_tokens_details",
    "system_fingerprint",
    "tool_calls",
    "usage",
)
_NULL = re.compile(rb'"(?:%b)":\s*null' % "|".join(_NEVER_NULL).encode())


def _has_forbidden_null(body: bytes) -> bool:
    # Most answers have no other nulls than these two: to count fixed texts costs a tenth of the pattern, which stops at
    # every quote.
    allowed = body.count(b'"refusal":null') + body.count(b'"logprobs":null')
    return body.count(b"null") != allowed and _NULL.search(body) is not None


def complete_chat(body: bytes) -> bytes:
    """Adds what OpenAI's schema requires of a chat completion and some upstreams leave out."""
    if b'"refusal"' in body and b'"logprobs"' in body and not _has_forbidden_null(body):
        return body
    answer = _decode_complete(body)
    for choice in answer["choices"]:
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            message.setdefault("content", None)
            message.setdefault("refusal", None)
            _drop_nulls(message)
    return msgspec.json.encode(answer)


def complete_completion(body: bytes) -> bytes:
    """The same for a text completion."""
    if b'"logprobs"' in body and not _has_forbidden_null(body):
        return body
    return msgspec.json.encode(_decode_complete(body))


def _decode_complete(body: bytes) -> dict[str, Any]:
    answer = _decode_whole(body)
    _drop_nulls(answer)
    _drop_nulls(answer.get("usage"))
    for choice in answer["choices"]:
        if isinstance(choice, dict):
            choice.setdefault("logprobs", None)
    return answer


def _drop_nulls(part: Any) -> None:
    if isinstance(part, dict):
        for name in _NEVER_NULL:
            if name in part and part[name] is None:
                del part[name]


def encode_vectors(body: bytes) -> bytes:
    """Turns vectors of numbers into base64 of little-endian float32, which OpenAI's clients ask for by default."""
    answer = _decode_whole(body)
    changed = False
    for row in answer["data"]:
        vector = row.get("embedding") if isinstance(row, dict) else None
        if isinstance(vector, list):
            try:
                packed = struct.pack(f"<{len(vector)}f", *vector)
            except (struct.error, OverflowError):
                raise UpstreamBroken("The upstream's vector cannot be read.", may_fall_back=True) from None
            row["embedding"] = base64.b64encode(packed).decode("ascii")
            changed = True
    return msgspec.json.encode(answer) if changed else body
