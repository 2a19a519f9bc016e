import os
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.engines.gguf import InvalidGguf, read_gguf
from tests.tiny_gguf import TOOL_TEMPLATE, write_tiny_chat_model, write_tiny_embedding_model


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(*values: bytes, version: int = 3, tensors: int = 0, keys: int | None = None) -> bytes:
    count = len(values) if keys is None else keys
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + b"".join(values)


def string(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


ARCHITECTURE = string("general.architecture", "llama")


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InvalidGguf) as caught:
        read_gguf(path)
    return str(caught.value)


def test_a_chat_model_tells_its_facts(tmp_path: Path):
    facts, stamp = read_gguf(write_tiny_chat_model(tmp_path / "a.gguf", name="Tiny", context=1024))
    assert (facts.architecture, facts.name, facts.kind) == ("llama", "Tiny", "model")
    assert (facts.context_length, facts.quantization) == (1024, "F16")
    assert facts.has_chat_template
    assert not facts.knows_tools
    assert not facts.embeds
    assert stamp.size == (tmp_path / "a.gguf").stat().st_size


def test_the_parameters_of_a_whole_model_are_counted(tmp_path: Path):
    path = write_tiny_chat_model(tmp_path / "a.gguf")
    expected = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(path).tensors)
    assert read_gguf(path)[0].parameter_count == expected > 80_000


def test_one_part_of_a_split_model_does_not_say_how_many_parameters_there_are(tmp_path: Path):
    path = tmp_path / "a.gguf"
    path.write_bytes(header(ARCHITECTURE, text("split.count") + struct.pack("<IH", 2, 3)))
    assert read_gguf(path)[0].parameter_count is None


def test_an_embedding_model_is_recognised(tmp_path: Path):
    facts, _ = read_gguf(write_tiny_embedding_model(tmp_path / "a.gguf"))
    assert facts.embeds
    assert not facts.has_chat_template


def test_pooling_makes_any_architecture_an_embedding_model_and_rank_pooling_a_ranker(tmp_path: Path):
    for pooling, expected in ((0, (False, False)), (3, (True, False)), (4, (False, True))):
        path = tmp_path / "a.gguf"
        path.write_bytes(header(ARCHITECTURE, text("llama.pooling_type") + struct.pack("<II", 4, pooling)))
        facts, _ = read_gguf(path)
        assert (facts.embeds, facts.ranks) == expected


def test_a_template_that_mentions_tools_is_noticed(tmp_path: Path):
    assert read_gguf(write_tiny_chat_model(tmp_path / "a.gguf", template=TOOL_TEMPLATE))[0].knows_tools


def test_file_types_have_the_names_that_llama_cpp_gives_them(tmp_path: Path):
    path = tmp_path / "a.gguf"
    for kind in set(gguf.LlamaFileType) - {gguf.LlamaFileType.GUESSED}:
        value = text("general.file_type") + struct.pack("<II", 4, kind.value)
        path.write_bytes(header(ARCHITECTURE, value))
        name = kind.name.removeprefix("ALL_").removeprefix("MOSTLY_").removesuffix("_MOE")
        assert read_gguf(path)[0].quantization in {name, None}


def test_a_large_vocabulary_is_read_in_a_fraction_of_a_second(tmp_path: Path):
    words = b"".join(text(f"word{number}") for number in range(400_000))
    path = tmp_path / "a.gguf"
    path.write_bytes(header(text("tokens") + struct.pack("<IIQ", 9, 8, 400_000) + words, ARCHITECTURE))
    began = time.perf_counter()
    assert read_gguf(path)[0].architecture == "llama"
    assert time.perf_counter() - began < 15


def test_a_text_longer_than_the_window_is_skipped(tmp_path: Path):
    path = tmp_path / "a.gguf"
    words = text("x" * 600_000) + text("y")
    path.write_bytes(header(text("tokens") + struct.pack("<IIQ", 9, 8, 2) + words, ARCHITECTURE))
    assert read_gguf(path)[0].architecture == "llama"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "begin"),
        (b"GGML" + bytes(60), "begin"),
        (header(ARCHITECTURE, version=1), "version"),
        (header(ARCHITECTURE, version=0x03000000), "version"),
        (header(ARCHITECTURE, keys=2**63), "more keys"),
        (header(ARCHITECTURE, tensors=2**63), "more keys"),
        (header(ARCHITECTURE, tensors=5), "does not fit"),
        (header(ARCHITECTURE, keys=2), "does not fit"),
        (header(ARCHITECTURE, ARCHITECTURE), "twice"),
        (header(struct.pack("<Q", 2**62) + b"x"), "longer"),
        (header(text("k") + struct.pack("<IQ", 8, 2**63)), "past the end"),
        (header(text("k") + struct.pack("<I", 77)), "unknown type"),
        (header(text("k") + struct.pack("<IIQ", 9, 4, 2**62)), "past the end"),
        (header(text("k") + struct.pack("<IIQ", 9, 8, 2**40)), "more texts"),
        (header(text("k") + struct.pack("<IIQ", 9, 8, 1) + struct.pack("<Q", 2**40)), "past the end"),
        (header(text("k") + struct.pack("<IIQ", 9, 9, 1)), "something unknown"),
        (header(ARCHITECTURE, text("general.alignment") + struct.pack("<II", 4, 0)), "alignment"),
        (header(ARCHITECTURE, text("general.alignment") + struct.pack("<II", 4, 33)), "alignment"),
        (header(ARCHITECTURE, text("general.alignment") + struct.pack("<II", 4, 8)), "alignment"),
        (header(string("general.name", "x" * 20)), "architecture"),
        (header(ARCHITECTURE, text("t") + struct.pack("<I", 5), tensors=1, keys=1), "dimensions"),
        (
            header(ARCHITECTURE, text("t") + struct.pack("<IQQIQ", 2, 2**62, 4, 0, 0), tensors=1, keys=1),
            "impossible",
        ),
        (header(ARCHITECTURE, text("t") + struct.pack("<IQIQ", 1, 1, 0, 3), tensors=1, keys=1), "is not where"),
        (header(ARCHITECTURE, text("t") + struct.pack("<IQIQ", 1, 2**39, 0, 0), tensors=1, keys=1), "incomplete"),
    ],
)
def test_nonsense_is_refused_with_a_reason(tmp_path: Path, data: bytes, reason: str):
    assert reason in refusal(tmp_path / "a.gguf", data)


def test_a_file_cut_short_is_refused(tmp_path: Path):
    data = write_tiny_chat_model(tmp_path / "whole.gguf").read_bytes()
    for length in (30, 3_000, len(data) // 2):
        refusal(tmp_path / "cut.gguf", data[:length])


def test_links_pipes_and_folders_are_refused_without_waiting(tmp_path: Path):
    whole = write_tiny_chat_model(tmp_path / "whole.gguf")
    (tmp_path / "link.gguf").symlink_to(whole)
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for name in ("link", "pipe", "folder", "missing"):
        with pytest.raises(InvalidGguf):
            read_gguf(tmp_path / f"{name}.gguf")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("mutants")
    return folder / "mutant.gguf", write_tiny_chat_model(folder / "whole.gguf").read_bytes()[:20_000]


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6))
def test_a_damaged_header_is_read_or_refused_with_little_memory(
    sample: tuple[Path, bytes], changes: list[tuple[int, bytes]]
):
    path, data = sample
    damaged = bytearray(data)
    for place, patch in changes:
        damaged[place : place + len(patch)] = patch
    path.write_bytes(damaged)
    tracemalloc.start()
    try:
        read_gguf(path)
    except InvalidGguf:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 << 20


@settings(max_examples=200)
@given(rest=st.binary(max_size=400))
def test_random_bytes_are_refused(sample: tuple[Path, bytes], rest: bytes):
    path, _ = sample
    refusal(path, b"GGUF\x03\x00\x00\x00" + rest)
