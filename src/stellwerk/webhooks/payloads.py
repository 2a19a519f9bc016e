"""What a receiver is told: the bodies of messages."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

GENERATE_REQUESTED = "generate.requested"
"""A request to Go Ollama API; its body is that API's documented object, without an envelope."""

TEST = "test"

EVENTS = (
    "request.finished",
    GENERATE_REQUESTED,
    "budget.reached",
    "key.parked",
    "engine.crashed",
    "job.finished",
)
"""What can be subscribed to. A message `test` is sent only when somebody asks for it."""

MOST_BYTES = 256 * 1024
"""Of a body. What is longer is shortened and says so in `truncated`."""

_LONGEST_TEXT = 32 * 1024
"""Characters that a shortened body keeps of a text: none of them takes more than six bytes."""
_MOST_ENTRIES = 64
"""Entries that a shortened body keeps of a list or an object."""
_DEEPEST = 8
_OWN_KEY = re.compile(r"(sk-sw-[a-z2-7]{10}-)[A-Za-z0-9_-]+")
_SHOWN_OF_KEY = 4
_LEAST_HIDDEN = 4
_FIELDS = ("apikey", "prompt", "model", "stream", "images", "raw")
_encode = msgspec.json.Encoder().encode


class TooLong(ValueError):
    """The data does not fit into a body, not even shortened."""


def make_body(
    event: str, data: Mapping[str, Any], at: float, *, with_images: bool = False, with_key: bool = False
) -> bytes:
    """The body of a message about what happened at `at` (Unix seconds).

    `with_images` and `with_key` concern `generate.requested` alone: without them its images are left out and its key
    is masked. Raises TooLong, and TypeError or ValueError for data that is no JSON.
    """
    if event == GENERATE_REQUESTED:
        data = _documented(data, with_images=with_images, with_key=with_key)
    if _size_of_texts(data) <= MOST_BYTES:
        body = _encode(_wrap(event, data, at))
        if len(body) <= MOST_BYTES:
            return body
    body = _encode(_wrap(event, _shorten(data), at))
    if len(body) > MOST_BYTES:
        raise TooLong(event)
    return body


def mask_key(key: str) -> str:
    """As much of an API key as it takes to recognise it, and nothing that helps to guess it.

    A key of ours begins with an id that is no secret and stays. Of another one the first four characters stay, when
    at least as many are left to hide.
    """
    own = _OWN_KEY.fullmatch(key)
    if own is not None:
        return f"{own[1]}…"
    return f"{key[:_SHOWN_OF_KEY]}…" if len(key) >= _SHOWN_OF_KEY + _LEAST_HIDDEN else "…"


def _documented(data: Mapping[str, Any], *, with_images: bool, with_key: bool) -> dict[str, Any]:
    values = {name: data.get(name) for name in _FIELDS}
    key = str(values["apikey"] or "")
    return {
        "apikey": key if with_key else mask_key(key),
        "prompt": values["prompt"] or "",
        "model": values["model"] or "",
        "stream": bool(values["stream"]),
        "images": list(values["images"] or ()) if with_images else [],
        "raw": bool(values["raw"]),
    }


def _wrap(event: str, data: Mapping[str, Any], at: float) -> dict[str, Any]:
    if event == GENERATE_REQUESTED:
        return {**data, "timestamp": _timestamp(at, "seconds")}
    return {"type": event, "timestamp": _timestamp(at, "milliseconds"), "data": data}


def _timestamp(at: float, precision: str) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _size_of_texts(value: Any, depth: int = 0) -> int:
    """At most what the texts take in a body: asked first, since encoding a very long prompt takes milliseconds."""
    if isinstance(value, str | bytes):
        return len(value)
    if depth >= _DEEPEST:
        return 0
    if isinstance(value, Mapping):
        return sum(_size_of_texts(entry, depth + 1) for entry in value.values())
    if isinstance(value, list | tuple):
        return sum(_size_of_texts(entry, depth + 1) for entry in value)
    return 0


def _shorten(data: Mapping[str, Any]) -> dict[str, Any]:
    short = {name: _cut(value, 1) for name, value in list(data.items())[:_MOST_ENTRIES]}
    if "images" in short:
        # Half an image is none.
        short["images"] = []
    return {**short, "truncated": True}


def _cut(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if isinstance(value, Mapping):
        entries = list(value.items())[:_MOST_ENTRIES] if depth < _DEEPEST else []
        return {name: _cut(entry, depth + 1) for name, entry in entries}
    if isinstance(value, list | tuple):
        return [_cut(entry, depth + 1) for entry in value[:_MOST_ENTRIES]] if depth < _DEEPEST else []
    return value
