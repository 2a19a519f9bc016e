"""Reads what a GGUF file says about itself, without believing it.

The header comes from strangers: every count, length and offset is checked against the size of the file and against a
bound before it is used, so that nonsense is refused in milliseconds and nothing of it ever reaches llama.cpp's parser.
"""

import os
import stat
import struct
from pathlib import Path
from typing import Any

import msgspec

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_KEYS = 8_192
_MAX_TENSORS = 32_768
_MAX_KEY_LENGTH = 1_024
_MAX_ARRAY_STRINGS = 2_000_000
"""Over the whole header; the largest published vocabularies with their merges have 0.8 million."""
_MAX_HEADER = 128 << 20
_MAX_TEXT = 1 << 20
_MAX_TENSOR_NAME = 63
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 1 << 63
_MAX_ALIGNMENT = 1 << 16
_WINDOW = 256 << 10

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_SCALAR_SIZES = {kind: struct.calcsize(code) for kind, code in _SCALARS.items()}
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")

# llama.cpp's names for the values of general.file_type, in their order.
_FILE_TYPES = (
    "F32", "F16", "Q4_0", "Q4_1", None, None, None, "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", None, None, None, "TQ1_0", "TQ2_0",
    "MXFP4", "NVFP4",
)  # fmt: skip
_ENCODERS = frozenset({
    "bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llama-embed", "modern-bert", "neo-bert",
    "nomic-bert", "nomic-bert-moe", "t5encoder",
})  # fmt: skip
_POOLING_NONE, _POOLING_RANK = 0, 4


class InvalidGguf(Exception):
    """The file is no usable GGUF; the message says why and names no path."""


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


class FileStamp(msgspec.Struct, frozen=True, kw_only=True):
    """Tells whether a file is still the one that was read."""

    size: int
    modified: int
    """Nanoseconds since 1970."""
    inode: int


def read_gguf(path: Path) -> tuple[GgufFacts, FileStamp]:
    """Reads the header of a regular file. Blocks; raises InvalidGguf, also for links, pipes and unreadable files."""
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidGguf(f"it cannot be opened ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidGguf("it is no regular file")
        return parse_header(_Reader(descriptor, status.st_size)), stamp_of(status)
    except OSError as error:
        raise InvalidGguf(f"it cannot be read ({error.strerror})") from None
    finally:
        os.close(descriptor)


def stamp_of(status: os.stat_result) -> FileStamp:
    return FileStamp(size=status.st_size, modified=status.st_mtime_ns, inode=status.st_ino)


class _Reader:
    """A window that moves forward over the file; never past its end, never past the bound of a header."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size
        self._end = min(size, _MAX_HEADER)
        self._window = b""
        self._origin = 0
        self._at = 0
        self._array_strings = 0

    @property
    def position(self) -> int:
        return self._origin + self._at

    @property
    def left(self) -> int:
        return self._end - self.position

    def _hold(self, count: int) -> None:
        """Makes the next `count` bytes stand in the window."""
        if self._at + count <= len(self._window):
            return
        self._origin, self._at = self.position, 0
        if count > self.left:
            raise InvalidGguf("the header does not fit into the file")
        self._window = os.pread(self._descriptor, min(max(count, _WINDOW), self.left), self._origin)
        if len(self._window) < count:
            raise InvalidGguf("the file became shorter while it was read")

    def take(self, count: int) -> bytes:
        self._hold(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def skip(self, count: int) -> None:
        if count > self.left:
            raise InvalidGguf("a length points past the end of the file")
        self._at += count

    def uint32(self) -> int:
        return int(_UINT32.unpack(self.take(4))[0])

    def uint64(self) -> int:
        return int(_UINT64.unpack(self.take(8))[0])

    def text(self, limit: int) -> str:
        length = self.uint64()
        if length > limit:
            raise InvalidGguf("a text is longer than allowed")
        return self.take(length).decode("utf-8", "replace")

    def scalar(self, kind: int) -> Any:
        return struct.unpack(_SCALARS[kind], self.take(_SCALAR_SIZES[kind]))[0]

    def skip_array(self) -> None:
        kind, count = self.uint32(), self.uint64()
        if kind in _SCALAR_SIZES:
            self.skip(count * _SCALAR_SIZES[kind])
        elif kind == _STRING:
            self._skip_strings(count)
        else:
            raise InvalidGguf("an array holds something unknown")

    def _skip_strings(self, count: int) -> None:
        self._array_strings += count
        if self._array_strings > _MAX_ARRAY_STRINGS or count * 8 > self.left:
            raise InvalidGguf("an array has more texts than a vocabulary can have")
        unpack = _UINT64.unpack_from
        for _ in range(count):
            # Inlined, because it runs once for each word of a vocabulary.
            if self._at + 8 > len(self._window):
                self._hold(8)
            self._at += 8 + unpack(self._window, self._at)[0]
            if self._at > len(self._window) and self.position > self._end:
                raise InvalidGguf("a text ends past the end of the file")


def parse_header(reader: _Reader) -> GgufFacts:
    """Checks the whole header and returns what it says. Raises InvalidGguf."""
    if reader.size < 24 or reader.take(4) != _MAGIC:
        raise InvalidGguf("it does not begin like a GGUF file")
    if reader.uint32() not in _VERSIONS:
        raise InvalidGguf("its GGUF version is not supported")
    tensors, keys = reader.uint64(), reader.uint64()
    if keys > _MAX_KEYS or tensors > _MAX_TENSORS:
        raise InvalidGguf("it announces more keys or tensors than any model has")
    values = _read_values(reader, keys)
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise InvalidGguf("its alignment is no power of two")
    return _facts(values, _check_tensors(reader, tensors, alignment))


def _read_values(reader: _Reader, count: int) -> dict[str, Any]:
    """All keys; scalars and short texts with their value, arrays and long texts with None."""
    values: dict[str, Any] = {}
    for _ in range(count):
        key = reader.text(_MAX_KEY_LENGTH)
        if key in values:
            raise InvalidGguf("a key stands in it twice")
        values[key] = _read_value(reader, key)
    return values


def _read_value(reader: _Reader, key: str) -> Any:
    kind = reader.uint32()
    if kind in _SCALARS:
        return reader.scalar(kind)
    if kind == _STRING:
        if key in {"general.architecture", "general.name", "general.type", "tokenizer.chat_template"}:
            return reader.text(_MAX_TEXT)
        reader.skip(reader.uint64())
        return None
    if kind == _ARRAY:
        reader.skip_array()
        return None
    raise InvalidGguf("a value has an unknown type")


def _check_tensors(reader: _Reader, count: int, alignment: int) -> int:
    """The number of their elements."""
    furthest = total = 0
    for _ in range(count):
        reader.text(_MAX_TENSOR_NAME)
        dimensions = reader.uint32()
        if dimensions > _MAX_DIMENSIONS:
            raise InvalidGguf("a tensor has too many dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= reader.uint64()
        reader.skip(4)  # the tensor's type: llama.cpp knows more of them than we could list
        offset = reader.uint64()
        if elements >= _MAX_ELEMENTS or offset % alignment:
            raise InvalidGguf("a tensor has an impossible size or place")
        furthest = max(furthest, offset)
        total += elements
    data = -(-reader.position // alignment) * alignment
    if count and data + furthest >= reader.size:
        raise InvalidGguf("it is incomplete: a tensor lies past the end of the file")
    return total


def _facts(values: dict[str, Any], elements: int) -> GgufFacts:
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise InvalidGguf("it names no architecture")
    context = values.get(f"{architecture}.context_length")
    pooling = values.get(f"{architecture}.pooling_type")
    template = values.get("tokenizer.chat_template")
    name, kind = values.get("general.name"), values.get("general.type")
    return GgufFacts(
        architecture=architecture[:64],
        name=name[:200] if isinstance(name, str) else "",
        kind="mmproj" if architecture == "clip" else kind[:64] if isinstance(kind, str) else "model",
        context_length=context if isinstance(context, int) and 0 < context < 1 << 31 else None,
        # Only the first part of a split model is read, and it does not hold all of them.
        parameter_count=elements if 0 < elements < _MAX_ELEMENTS and not values.get("split.count") else None,
        quantization=_quantization(values.get("general.file_type")),
        embeds=pooling != _POOLING_RANK and (architecture in _ENCODERS or pooling not in (None, _POOLING_NONE)),
        ranks=pooling == _POOLING_RANK,
        has_chat_template=isinstance(template, str),
        knows_tools=(isinstance(template, str) and "tools" in template) or "tokenizer.chat_template.tool_use" in values,
    )


def _quantization(file_type: Any) -> str | None:
    if not isinstance(file_type, int) or file_type < 0:
        return None
    number = file_type & 0x3FF  # the bits above say that the type was guessed
    return _FILE_TYPES[number] if number < len(_FILE_TYPES) else None
