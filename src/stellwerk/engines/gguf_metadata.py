"""What a GGUF header says in full, for people: every key with its value, but no vocabularies and no endless texts."""

from pathlib import Path
from typing import Any

import msgspec

from stellwerk.engines.gguf_reader import HeaderReader, InvalidGguf, opened_header, read_counts

LONGEST_TEXT = 4_096
"""Characters that are shown of one text."""
MOST_KEYS = 1_000
_MOST_NUMBERS = 16
_LONGEST_KEY = 1_024
_LONGEST_SKIPPED = 1 << 20
_TYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array", "uint64", "int64",
    "float64",
)  # fmt: skip
_STRING, _ARRAY = _TYPES.index("string"), _TYPES.index("array")


class Metadatum(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a header."""

    key: str
    type: str
    """GGUF's name for the type; `array of …` for several values."""
    value: bool | int | float | str | list[Any] | None
    """None for what is left out: long arrays, and all arrays of texts."""
    count: int | None = None
    """How many an array has, and of a text that was cut how many bytes."""


def read_metadata(path: Path) -> list[Metadatum]:
    """The keys in their order, 1000 at most. Blocks; raises InvalidGguf as `read_gguf` does."""
    with opened_header(path) as (reader, _):
        _, keys = read_counts(reader)
        return [_read(reader) for _ in range(min(keys, MOST_KEYS))]


def _read(reader: HeaderReader) -> Metadatum:
    key, kind = reader.text(_LONGEST_KEY), reader.uint32()
    if kind >= len(_TYPES):
        raise InvalidGguf("a value has an unknown type")
    if kind == _STRING:
        return _read_text(reader, key)
    if kind == _ARRAY:
        return _read_array(reader, key)
    return Metadatum(key=key, type=_TYPES[kind], value=reader.scalar(kind))


def _read_text(reader: HeaderReader, key: str) -> Metadatum:
    length = reader.uint64()
    if length > _LONGEST_SKIPPED:
        reader.skip(length)
        return Metadatum(key=key, type="string", value=None, count=length)
    text = reader.take(length).decode("utf-8", "replace")
    cut = len(text) > LONGEST_TEXT
    return Metadatum(key=key, type="string", value=text[:LONGEST_TEXT], count=length if cut else None)


def _read_array(reader: HeaderReader, key: str) -> Metadatum:
    kind, count = reader.uint32(), reader.uint64()
    values = reader.items(kind, count, kept=count <= _MOST_NUMBERS)
    return Metadatum(key=key, type=f"array of {_TYPES[kind]}", value=values, count=count)
