"""A GGUF header as a list of fields, and taken apart into entries that can be put together in other ways."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import gguf

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
CODES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
UINT32, STRING, ARRAY = 4, 8, 9
_ALIGNMENT = 32


@dataclass(frozen=True)
class Field:
    """A number at a place of the header."""

    at: int
    size: int
    what: str
    """`magic`, `version`, `tensors`, `keys`, `length`, `kind`, `count`, `value`, `dimensions`, `dimension`, `offset`
    or `element`, which is the length of a text in an array or a number in one."""


@dataclass(frozen=True)
class Entry:
    """A key with its value, as they stand in the file."""

    key: str
    kind: int
    raw: bytes
    """The value, without the kind."""

    def encode(self) -> bytes:
        return text(self.key) + struct.pack("<I", self.kind) + self.raw


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    def size(self) -> int:
        """Bytes of its weights."""
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(self.kind)]
        return prod(self.shape) * size // block

    def encode(self) -> bytes:
        shape = struct.pack(f"<I{len(self.shape)}Q", len(self.shape), *self.shape)
        return text(self.name) + shape + struct.pack("<IQ", self.kind, self.offset)


@dataclass(frozen=True)
class Layout:
    """A whole file. `keys` and `listed` are the counts that the header tells when they are not the true ones."""

    entries: tuple[Entry, ...]
    tensors: tuple[Tensor, ...]
    data: bytes
    alignment: int = _ALIGNMENT
    keys: int | None = None
    listed: int | None = None

    def head(self) -> bytes:
        """Everything before the data, padded."""
        keys = len(self.entries) if self.keys is None else self.keys
        listed = len(self.tensors) if self.listed is None else self.listed
        head = b"GGUF" + struct.pack("<IQQ", 3, listed, keys)
        head += b"".join(entry.encode() for entry in self.entries)
        head += b"".join(tensor.encode() for tensor in self.tensors)
        return head + bytes(-len(head) % self.alignment)

    def with_entry(self, number: int, *entries: Entry) -> "Layout":
        """With these in place of the one at `number`."""
        return replace(self, entries=(*self.entries[:number], *entries, *self.entries[number + 1 :]))

    def with_tensor(self, number: int, *tensors: Tensor) -> "Layout":
        return replace(self, tensors=(*self.tensors[:number], *tensors, *self.tensors[number + 1 :]))

    def relaid(self, number: int, *tensors: Tensor) -> "Layout":
        """With these in place of the one at `number`, all of them where they belong and with as many bytes as they
        need: what a program writes that means what it says."""
        ends = [tensor.offset for tensor in self.tensors[1:]] + [len(self.data)]
        pieces = [self.data[tensor.offset : end] for tensor, end in zip(self.tensors, ends, strict=True)]
        listed: list[Tensor] = []
        data = b""
        chosen = [(pieces[number], tensor) for tensor in tensors]
        others = list(zip(pieces, self.tensors, strict=True))
        for piece, tensor in (*others[:number], *chosen, *others[number + 1 :]):
            size = tensor.size()
            listed.append(replace(tensor, offset=len(data)))
            data += (piece * (size // max(1, len(piece)) + 1))[:size]
            data += bytes(-len(data) % self.alignment)
        return replace(self, tensors=tuple(listed), data=data)

    def place(self, key: str) -> int:
        return next(number for number, entry in enumerate(self.entries) if entry.key == key)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def array(kind: int, values: list) -> bytes:
    """The raw value of an array of texts or numbers."""
    one = text if kind == STRING else struct.Struct(CODES[kind]).pack
    return struct.pack("<IQ", kind, len(values)) + b"".join(one(value) for value in values)


def elements(entry: Entry) -> tuple[int, list]:
    """The kind and the members of an array; texts as bytes."""
    kind, count = struct.unpack_from("<IQ", entry.raw)
    at, found = 12, []
    for _ in range(count):
        if kind == STRING:
            (length,) = struct.unpack_from("<Q", entry.raw, at)
            found.append(entry.raw[at + 8 : at + 8 + length])
            at += 8 + length
        else:
            found.append(struct.unpack_from(CODES[kind], entry.raw, at)[0])
            at += SIZES[kind]
    return kind, found


def take_apart(data: bytes) -> tuple[Layout, list[Field]]:
    """A sound file as its parts and as the fields of its header."""
    walk = _Walk(data)
    walk.fields.append(Field(0, 4, "magic"))
    walk.at = 4
    walk.number(4, "version")
    tensors, keys = walk.number(8, "tensors"), walk.number(8, "keys")
    entries = tuple(walk.entry() for _ in range(keys))
    listed = tuple(walk.tensor() for _ in range(tensors))
    begin = walk.at + -walk.at % _ALIGNMENT
    return Layout(entries, listed, data[begin:]), walk.fields


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.fields: list[Field] = []

    def number(self, size: int, what: str) -> int:
        self.fields.append(Field(self.at, size, what))
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def text(self, what: str = "length") -> str:
        length = self.number(8, what)
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def entry(self) -> Entry:
        key = self.text()
        kind = self.number(4, "kind")
        begin = self.at
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.number(4, "kind"), self.number(8, "count")
            for _ in range(count):
                if inner == STRING:
                    self.text("element")
                else:
                    self.number(SIZES[inner], "element")
        else:
            self.number(SIZES[kind], "value")
        return Entry(key, kind, self.data[begin : self.at])

    def tensor(self) -> Tensor:
        name = self.text()
        dimensions = self.number(4, "dimensions")
        shape = tuple(self.number(8, "dimension") for _ in range(dimensions))
        return Tensor(name, shape, self.number(4, "kind"), self.number(8, "offset"))


def numbers_for(size: int, now: int) -> Iterator[int]:
    """What stands in a number to break whoever believes it, as unsigned little-endian numbers of that size."""
    top = 1 << (8 * size)
    wanted = {0, 1, 2, 3, 7, 33, 127, 128, 255, top - 1, top - 2, top >> 1, (top >> 1) - 1, now + 1, now - 1, now * 2}
    if size >= 4:
        wanted |= {64, 65, 4096, 1 << 16, 1 << 20, 1 << 24, 1 << 28, 1 << 30}
    if size == 8:
        wanted |= {1 << 32, (1 << 32) - 1, 1 << 40, 1 << 48, top - 32, (1 << 61) + 1, top // 3}
    yield from sorted(number % top for number in wanted if number % top != now)
