import struct
from pathlib import Path

import pytest

from stellwerk.engines.gguf_reader import InvalidGguf, opened_header
from stellwerk.engines.gguf_tensors import Tensor, read_tensors


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    sides = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return struct.pack("<Q", len(name)) + name.encode() + sides + struct.pack("<IQ", kind, offset)


def read(folder: Path, *entries: bytes, data: int = 10_000, alignment: object = 32) -> dict[str, Tensor]:
    path = folder / "a.gguf"
    path.write_bytes(b"".join(entries) + bytes(data))
    with opened_header(path) as (reader, _):
        return read_tensors(reader, len(entries), alignment)


def test_tensors_that_follow_each_other_are_read(tmp_path: Path):
    found = read(tmp_path, entry("a", (3,), 0, 0), entry("b.weight", (32, 4), 8, 32), entry("c", (), 0, 192))
    assert found["b.weight"] == Tensor(shape=(32, 4), kind=8)
    assert [tensor.elements for tensor in found.values()] == [3, 128, 1]


def test_the_padding_behind_the_last_tensor_may_be_missing(tmp_path: Path):
    listed = entry("a", (3,), 0, 0)
    assert read(tmp_path, listed, data=-len(listed) % 32 + 12)
    with pytest.raises(InvalidGguf, match="incomplete"):
        read(tmp_path, listed, data=-len(listed) % 32 + 11)


def test_tables_of_integers_are_no_weights(tmp_path: Path):
    assert read(tmp_path, entry("blk.0.ffn_gate_tid2eid", (4, 4), 26, 0))
    with pytest.raises(InvalidGguf, match="type that no weights have"):
        read(tmp_path, entry("blk.0.ffn_gate.weight", (4, 4), 26, 0))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("a", (4,), 0, 0), entry("a", (4,), 0, 32)], "twice"),
        ([entry("a", (4,), 0, 0), entry("b", (4,), 0, 0)], "is not where"),
        ([entry("a", (4,), 0, 0), entry("b", (4,), 0, 64)], "is not where"),
        ([entry("a", (4,), 0, 1)], "is not where"),
        ([entry("a", (0,), 0, 0)], "impossible size"),
        ([entry("a", (1 << 63, 2), 0, 0)], "impossible size"),
        ([entry("a", (1 << 32, 1 << 32), 0, 0)], "incomplete"),
        ([entry("a", (1, 1, 1, 1, 1), 0, 0)], "too many"),
        ([entry("a", (32, 2), 9, 0)], "no weights"),
        ([entry("a", (32, 2), 99, 0)], "no weights"),
        ([entry("a", (33, 2), 8, 0)], "whole blocks"),
        ([entry("a", (32,), 1, 0)], "only matrices"),
        ([entry("a.bias", (1, 32), 1, 0)], "only matrices"),
        ([entry("token_types.weight", (32, 2), 30, 0)], "only matrices"),
        ([entry("x" * 64, (4,), 0, 0)], "longer"),
    ],
)
def test_what_no_engine_should_see_is_refused(tmp_path: Path, entries: list[bytes], reason: str):
    with pytest.raises(InvalidGguf, match=reason):
        read(tmp_path, *entries)


@pytest.mark.parametrize("alignment", [0, 8, 33, -32, 1 << 20, "32", None, 32.0])
def test_an_impossible_alignment_is_refused(tmp_path: Path, alignment: object):
    with pytest.raises(InvalidGguf, match="alignment"):
        read(tmp_path, alignment=alignment)
