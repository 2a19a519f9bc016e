"""Reads what a GGUF file says about itself, without believing it.

The header comes from strangers, and llama.cpp believes much of it: what this refuses never reaches its parser.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stellwerk.engines.gguf_reader import (
    ARRAY,
    INT32,
    SCALARS,
    STRING,
    UINT32,
    HeaderReader,
    InvalidGguf,
    opened_header,
    read_counts,
)
from stellwerk.engines.gguf_rules import CHAT_TEMPLATES, ENCODERS, VOCABULARY, VOCABULARY_TYPES, Header, check_values
from stellwerk.engines.gguf_tensors import read_tensors
from stellwerk.engines.projector_facts import ProjectorFacts, read_projector

__all__ = ["FileStamp", "GgufFacts", "InvalidGguf", "ProjectorFacts", "Shape", "check_part", "read_gguf", "stamp_of"]

_MAX_KEY_LENGTH = 1_024
_MAX_TEXT = 1 << 20
_ALIGNMENT = 32
_BYTE_TOKEN = 6

# llama.cpp's names for the values of general.file_type, in their order.
_FILE_TYPES = (
    "F32", "F16", "Q4_0", "Q4_1", None, None, None, "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", None, None, None, "TQ1_0", "TQ2_0",
    "MXFP4", "NVFP4",
)  # fmt: skip
_POOLINGS = ("none", "mean", "cls", "last", "rank")
_TEXTS = frozenset({
    "general.architecture", "general.name", "general.type", "tokenizer.ggml.model",
    "clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type",
})  # fmt: skip
"""Keys whose text is wanted."""
_LISTS = (".head_count", ".head_count_kv", ".image_mean", ".image_std")
"""Ends of keys whose numbers are wanted when they come as a list."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that decide how much memory the attention of a model needs; of layers that differ the highest."""

    block_count: int | None = None
    embedding_length: int | None = None
    head_count: int | None = None
    head_count_kv: int | None = None
    key_length: int | None = None
    """Size of the key of one head, given or computed."""
    value_length: int | None = None


class GgufFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a header says. None means that it does not say."""

    architecture: str
    name: str
    kind: str
    """`model`; anything else (`adapter`, `mmproj`, `imatrix`, …) cannot be loaded by itself."""
    context_length: int | None
    parameter_count: int | None
    """Elements of all tensors together."""
    quantization: str | None
    embeds: bool
    ranks: bool
    has_chat_template: bool
    knows_tools: bool
    """The chat template mentions tools; a model without it ignores `tool_choice` silently."""
    pooling: str | None = None
    """How the vectors of a text become one: none, mean, cls, last or rank."""
    projector: ProjectorFacts | None = None
    """Of a projector; None of everything else."""
    shape: Shape = Shape()


class FileStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Tells whether a file is still the one that was read."""

    size: int
    modified: int
    """Nanoseconds since 1970."""
    inode: int


def read_gguf(path: Path) -> tuple[GgufFacts, FileStamp]:
    """Reads the header of a regular file. Blocks; raises InvalidGguf, also for links, pipes and unreadable files."""
    with opened_header(path) as (reader, status):
        return _facts(_read_header(reader)), stamp_of(status)


def check_part(path: Path) -> None:
    """Checks a later part of a split model, which does not say what it is. Blocks; raises as `read_gguf` does."""
    with opened_header(path) as (reader, _):
        _read_header(reader)


def stamp_of(status: os.stat_result) -> FileStamp:
    return FileStamp(size=status.st_size, modified=status.st_mtime_ns, inode=status.st_ino)


def _read_header(reader: HeaderReader) -> Header:
    """Checks the whole of it."""
    tensors, keys = read_counts(reader)
    values: dict[str, Any] = {}
    kinds: dict[str, int] = {}
    lists: dict[str, tuple[int, int]] = {}
    for _ in range(keys):
        key = reader.text(_MAX_KEY_LENGTH)
        if key in values:
            raise InvalidGguf("a key stands in it twice")
        kinds[key] = kind = reader.uint32()
        if kind == ARRAY:
            lists[key] = members = reader.uint32(), reader.uint64()
            values[key] = _read_list(reader, key, *members)
        else:
            values[key] = _read_value(reader, key, kind)
    listed = read_tensors(reader, tensors, values.get("general.alignment", _ALIGNMENT))
    header = Header(
        values=values, kinds=kinds, lists=lists, tensors=listed, byte_tokens=bool(values.get(VOCABULARY_TYPES))
    )
    check_values(header)
    return header


def _read_value(reader: HeaderReader, key: str, kind: int) -> Any:
    """A number, or a text that is wanted, else None."""
    if kind in SCALARS:
        return reader.scalar(kind)
    if kind != STRING:
        raise InvalidGguf("a value has an unknown type")
    if key in _TEXTS or key.startswith(CHAT_TEMPLATES):
        return reader.text(_MAX_TEXT)
    reader.skip(reader.uint64())
    return None


def _read_list(reader: HeaderReader, key: str, kind: int, count: int) -> list[Any] | None:
    if key == VOCABULARY and kind == STRING:
        reader.check_tokens(count)
        return None
    if key == VOCABULARY_TYPES and kind in {INT32, UINT32}:
        return [_BYTE_TOKEN] if _BYTE_TOKEN in reader.take_integers(count) else []
    return reader.items(kind, count, kept=key.endswith(_LISTS))


def _facts(header: Header) -> GgufFacts:
    values = header.values
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise InvalidGguf("it names no architecture")
    context = _number(values.get(f"{architecture}.context_length"))
    number = values.get(f"{architecture}.pooling_type")
    pooling = _POOLINGS[number] if isinstance(number, int) and 0 <= number < len(_POOLINGS) else None
    template = values.get("tokenizer.chat_template")
    name, kind = values.get("general.name"), values.get("general.type")
    return GgufFacts(
        architecture=architecture[:64],
        name=name[:200] if isinstance(name, str) else "",
        kind="mmproj" if architecture == "clip" else kind[:64] if isinstance(kind, str) else "model",
        context_length=context,
        parameter_count=_parameters(header),
        quantization=_quantization(values.get("general.file_type")),
        embeds=pooling != "rank" and (architecture in ENCODERS or number not in (None, 0)),
        ranks=pooling == "rank",
        has_chat_template=isinstance(template, str),
        knows_tools=(isinstance(template, str) and "tools" in template) or "tokenizer.chat_template.tool_use" in values,
        pooling=pooling,
        projector=read_projector(values, header.kinds, header.lists, header.tensors)
        if architecture == "clip"
        else None,
        shape=_shape(values, architecture),
    )


def _parameters(header: Header) -> int | None:
    """Only the first part of a split model is read, and it does not hold all of them."""
    if header.values.get("split.count"):
        return None
    return sum(tensor.elements for tensor in header.tensors.values()) or None


def _shape(values: Mapping[str, Any], architecture: str) -> Shape:
    width = _number(values.get(f"{architecture}.embedding_length"))
    heads = _number(values.get(f"{architecture}.attention.head_count"))
    computed = width // heads if width and heads else None
    return Shape(
        block_count=_number(values.get(f"{architecture}.block_count")),
        embedding_length=width,
        head_count=heads,
        head_count_kv=_number(values.get(f"{architecture}.attention.head_count_kv")) or heads,
        key_length=_number(values.get(f"{architecture}.attention.key_length")) or computed,
        value_length=_number(values.get(f"{architecture}.attention.value_length")) or computed,
    )


def _number(value: object) -> int | None:
    """A positive number; of several, one for each layer, the highest."""
    if isinstance(value, list):
        value = max((one for one in value if isinstance(one, int)), default=None)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31 else None


def _quantization(file_type: Any) -> str | None:
    if not isinstance(file_type, int) or file_type < 0:
        return None
    number = file_type & 0x3FF  # the bits above say that the type was guessed
    return _FILE_TYPES[number] if number < len(_FILE_TYPES) else None
