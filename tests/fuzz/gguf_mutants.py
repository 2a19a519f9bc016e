"""Thousands of broken GGUF files out of a few sound ones: the same ones every time."""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.fuzz.gguf_changes import entry_changes, layouts, sound_changes, tensor_changes
from tests.fuzz.gguf_layout import (
    ARRAY,
    STRING,
    Entry,
    Field,
    Layout,
    Tensor,
    array,
    elements,
    numbers_for,
    take_apart,
    text,
)
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_embedding_model, write_tiny_projector

COUNT = 20_000
SEED = 20_261_121


@dataclass(frozen=True)
class Base:
    """A sound file. `role` is what an engine is to do with it: `chat`, `embedding`, `vision`, `audio` or `part`."""

    role: str
    layout: Layout
    head: bytes
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Mutant:
    """A broken file: what was done, its header, and how many bytes of its base's data follow."""

    role: str
    what: str
    head: bytes
    data: bytes
    tail: int

    def write(self, path: Path, *, sparse: bool = False) -> Path:
        """With `sparse` the data are zeros that take no room: enough for whoever reads the header only."""
        with path.open("wb") as file:
            file.write(self.head)
            if sparse:
                file.truncate(len(self.head) + self.tail)
            else:
                file.write(self.data[: self.tail])
                file.truncate(len(self.head) + self.tail)
        return path


def make_bases(folder: Path) -> list[Base]:
    """A chat model with a vocabulary of bytes, one with a vocabulary of pieces, an embedding model, two projectors, and
    the two parts of a split model."""
    folder.mkdir(parents=True, exist_ok=True)
    chat = _base("chat", write_tiny_chat_model(folder / "chat.gguf"))
    return [
        chat,
        _layout_base("chat", _with_pieces(chat.layout)),
        _base("embedding", write_tiny_embedding_model(folder / "embedding.gguf")),
        _base("vision", write_tiny_projector(folder / "mmproj-vision.gguf")),
        _base("audio", write_tiny_projector(folder / "mmproj-audio.gguf", sense="audio")),
        *_split(chat.layout),
    ]


def _base(role: str, path: Path) -> Base:
    return _base_of(role, path.read_bytes())


def _layout_base(role: str, layout: Layout) -> Base:
    return _base_of(role, layout.head() + layout.data)


def _base_of(role: str, data: bytes) -> Base:
    layout, fields = take_apart(data)
    return Base(role, layout, layout.head(), tuple(fields))


def _with_pieces(layout: Layout) -> Layout:
    """The vocabulary as SentencePiece has it: scores, and bytes as tokens of their own."""
    _, tokens = elements(layout.entries[layout.place("tokenizer.ggml.tokens")])
    names = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256)), b"th", b"in", b"er"]
    names += [b"<pad>"] * (len(tokens) - len(names))
    kinds = [2, 3, 3, *([6] * 256), *([1] * (len(names) - 259))]
    changed = {
        "tokenizer.ggml.model": Entry("tokenizer.ggml.model", STRING, text("llama")),
        "tokenizer.ggml.pre": Entry("tokenizer.ggml.scores", ARRAY, array(6, [float(-n) for n in range(len(names))])),
        "tokenizer.ggml.tokens": Entry("tokenizer.ggml.tokens", ARRAY, array(STRING, names)),
        "tokenizer.ggml.token_type": Entry("tokenizer.ggml.token_type", ARRAY, array(5, kinds)),
    }
    entries = (changed.get(entry.key, entry) for entry in layout.entries if entry.key != "tokenizer.ggml.merges")
    return replace(layout, entries=tuple(entries))


def _split(layout: Layout) -> Iterator[Base]:
    half = len(layout.tensors) // 2
    cut = layout.tensors[half].offset
    shared = (
        Entry("split.count", 2, struct.pack("<H", 2)),
        Entry("split.tensors.count", 5, struct.pack("<i", len(layout.tensors))),
    )
    first = (*layout.entries, Entry("split.no", 2, struct.pack("<H", 0)), *shared)
    yield _layout_base("split", Layout(first, layout.tensors[:half], layout.data[:cut]))
    later = tuple(replace(tensor, offset=tensor.offset - cut) for tensor in layout.tensors[half:])
    second = (Entry("split.no", 2, struct.pack("<H", 1)), *shared)
    yield _layout_base("part", Layout(second, later, layout.data[cut:]))


def mutants(bases: list[Base], count: int = COUNT, seed: int = SEED) -> "list[Make]":
    """What is systematic first, thinned out evenly when it is more than three quarters of `count`, then chance."""
    systematic = [make for base in bases for make in _systematic(base)]
    most = count * 3 // 4
    if len(systematic) > most:
        systematic = [systematic[number * len(systematic) // most] for number in range(most)]
    chances = [_Chances(base) for base in bases]

    def by_chance(number: int) -> Mutant:
        choice = random.Random(seed + number)
        return choice.choice(chances).take(choice)

    return systematic + [partial(by_chance, number) for number in range(count - len(systematic))]


Make = Callable[[], Mutant]
"""A mutant that is made when it is wanted: all of them together would fill gigabytes."""


def _systematic(base: Base) -> Iterator[Make]:
    yield from _field_values(base)
    yield from _cuts(base)
    yield from _sizes(base)
    for what, layout in layouts(base.layout):
        yield lambda what=what, layout=layout: _of_layout(base, what, layout)
    yield from _relaid(base)


def _relaid(base: Base) -> Iterator[Make]:
    """Made when they are wanted: each has data of its own."""
    layout = base.layout
    for number, tensor in enumerate(layout.tensors):
        for changed in (*sound_changes(tensor), None):
            if changed is not None and (max(changed.shape, default=1) > 1 << 16 or changed.size() > 1 << 20):
                continue
            tensors = () if changed is None else (changed,)
            yield lambda number=number, tensors=tensors: _of_layout(
                base, f"{layout.tensors[number].name}: relaid as {tensors}", layout.relaid(number, *tensors)
            )


def _of_layout(base: Base, what: str, layout: Layout) -> Mutant:
    return Mutant(base.role, what, layout.head(), layout.data, len(layout.data))


def _of_head(base: Base, what: str, head: bytes) -> Mutant:
    return Mutant(base.role, what, head, base.layout.data, len(base.layout.data))


def _with_number(base: Base, field: Field, number: int) -> Mutant:
    head = base.head[: field.at] + number.to_bytes(field.size, "little") + base.head[field.at + field.size :]
    return _of_head(base, f"{field.what} at {field.at} is {number}", head)


def _field_values(base: Base) -> Iterator[Make]:
    elements_seen = 0
    for field in base.fields:
        if field.what == "element":
            # One word of a vocabulary in forty says as much as all of them.
            elements_seen += 1
            if elements_seen % 40:
                continue
        now = int.from_bytes(base.head[field.at : field.at + field.size], "little")
        for number in numbers_for(field.size, now):
            yield lambda field=field, number=number: _with_number(base, field, number)
    for magic in (b"GGML", b"FUGG", b"\0\0\0\0", b"gguf", b"GGUE"):
        yield lambda magic=magic: _of_head(base, f"magic {magic!r}", magic + base.head[4:])
    swapped = b"GGUF" + struct.pack(">IQQ", 3, *struct.unpack_from("<QQ", base.head, 8)) + base.head[24:]
    yield lambda: _of_head(base, "the other byte order", swapped)


def _cuts(base: Base) -> Iterator[Make]:
    places = [field.at for field in base.fields if field.what != "element"][1:]
    for place in places:
        for at in (place, place + 1):
            yield lambda at=at: Mutant(base.role, f"cut at {at}", base.head[:at], b"", 0)
            yield lambda at=at: Mutant(base.role, f"zeros from {at} on", base.head[:at], b"", 200_000)


def _sizes(base: Base) -> Iterator[Make]:
    whole = len(base.layout.data)
    for tail in {0, 1, 31, 32, whole // 2, whole - 33, whole - 1, whole + 1, whole + 1_000_000}:
        yield lambda tail=tail: Mutant(base.role, f"{tail} bytes of data", base.head, base.layout.data, tail)


class _Chances:
    """What can be done to each part of one base, worked out once."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._entries = [list(entry_changes(entry)) for entry in base.layout.entries]
        self._tensors = [list(tensor_changes(tensor, base.layout)) for tensor in base.layout.tensors]

    def take(self, choice: random.Random) -> Mutant:
        """Two to four wrong things at once, or a few flipped bits in the header."""
        if choice.random() < 0.3:
            return self._flipped(choice)
        layout, done = self.base.layout, []
        entries: list[tuple[Entry, ...]] = [(entry,) for entry in layout.entries]
        tensors: list[tuple[Tensor, ...]] = [(tensor,) for tensor in layout.tensors]
        for _ in range(choice.randint(2, 4)):
            if choice.random() < 0.6:
                number = choice.randrange(len(entries))
                what, entries[number] = choice.choice(self._entries[number])
                done.append(f"{layout.entries[number].key}: {what}")
            else:
                number = choice.randrange(len(tensors))
                what, tensors[number] = choice.choice(self._tensors[number])
                done.append(f"{layout.tensors[number].name}: {what}")
        changed = replace(layout, entries=tuple(sum(entries, ())), tensors=tuple(sum(tensors, ())))
        return _of_layout(self.base, "; ".join(done), changed)

    def _flipped(self, choice: random.Random) -> Mutant:
        head = bytearray(self.base.head)
        for _ in range(choice.randint(1, 6)):
            # Most of the header is a vocabulary, which is as dull as it is long.
            head[choice.choice(self.base.fields).at + choice.randrange(2)] ^= 1 << choice.randrange(8)
        return _of_head(self.base, "flipped bits", bytes(head))
