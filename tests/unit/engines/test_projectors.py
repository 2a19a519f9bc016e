import struct
from pathlib import Path

import pytest

from stellwerk.engines.gguf import InvalidGguf
from stellwerk.engines.gguf_tensors import Tensor
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.projector_facts import ProjectorFacts, read_projector
from stellwerk.engines.projectors import (
    Projector,
    find_named,
    find_projector,
    read_projector_file,
    score,
    serves,
)
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_projector

FOLDER = Path("/models")
EYES = ProjectorFacts(sees=True, width=64)
EARS = ProjectorFacts(hears=True, width=64)


def projector(name: str, facts: ProjectorFacts = EYES) -> Projector:
    return Projector(path=FOLDER / name, facts=facts)


def found(model: str, *names: str, kind: ModelType = ModelType.VISION, width: int | None = None) -> str | None:
    one = find_projector(model, kind, [projector(name) for name in names], width=width)
    return one.path.name if one else None


def test_the_whole_name_of_the_model_counts_most():
    names = ("mmproj-Qwen2.5-VL-3B-Instruct-f16.gguf", "mmproj-Qwen2.5-VL-7B-Instruct-f16.gguf")
    assert found("Qwen2.5-VL-7B-Instruct", *names) == names[1]
    assert score("Qwen2.5-VL-7B-Instruct", "mmproj-Qwen2.5-VL-7B-Instruct-f16") >= 100


def test_the_quantisation_of_the_model_is_no_part_of_its_name():
    names = ("mmproj-other-vl-F16.gguf", "mmproj-seeing-vl-F16.gguf")
    assert found("seeing-vl-Q4_K_M", *names) == names[1]


def test_family_size_and_version_count_where_the_names_differ():
    names = ("mmproj-gemma-3-4b.gguf", "mmproj-qwen2.5-vl-3b.gguf", "mmproj-qwen2.5-vl-7b.gguf")
    assert found("Qwen2.5-VL-7B-Instruct-Q4_K_M", *names) == names[2]
    assert found("gemma-3-12b-it-vision", *names) == names[0]


def test_of_two_precisions_the_better_is_taken():
    names = ("mmproj-seer-f32.gguf", "mmproj-seer-q8_0.gguf", "mmproj-seer-f16.gguf")
    assert found("seer", *names) == names[2]
    assert found("seer", *names[:2]) == names[1]


def test_a_precision_is_no_version():
    assert score("llama-16-q8_0", "mmproj-f16") == 5
    assert score("model-Q8_0", "mmproj-8") == 0


def test_the_only_one_is_taken_whatever_its_name():
    assert found("seer", "mmproj-model.gguf") == "mmproj-model.gguf"


def test_of_several_strangers_none_is_guessed_unless_only_one_fits():
    assert found("seer", "mmproj-a.gguf", "mmproj-b.gguf") is None
    strangers = [projector("mmproj-a.gguf"), projector("mmproj-b.gguf", ProjectorFacts(sees=True, width=128))]
    one = find_projector("seer", ModelType.VISION, strangers, width=128)
    assert one is not None
    assert one.path.name == "mmproj-b.gguf"
    assert found("seer") is None


@pytest.mark.parametrize(
    ("kind", "facts", "able"),
    [
        (ModelType.VISION, EYES, True),
        (ModelType.VISION, EARS, False),
        (ModelType.VISION_EMBEDDING, EYES, True),
        (ModelType.AUDIO, EARS, True),
        (ModelType.AUDIO, EYES, False),
        (ModelType.OMNI, EYES, True),
        (ModelType.OMNI, EARS, True),
        (ModelType.VISION, ProjectorFacts(sees=True, fault="x"), False),
    ],
)
def test_a_projector_serves_the_types_whose_senses_it_has(kind, facts, able):
    assert serves(facts, kind) is able
    assert (find_projector("seer", kind, [projector("mmproj-seer.gguf", facts)]) is not None) is able


@pytest.mark.parametrize("name", ["mmproj-a.gguf", "/models/mmproj-a.gguf", "./mmproj-a.gguf"])
def test_a_named_projector_is_found_in_the_folder(name):
    assert find_named(name, FOLDER, [projector("mmproj-a.gguf")]) == projector("mmproj-a.gguf")


@pytest.mark.parametrize(
    "name", ["", ".", "../models/mmproj-a.gguf", "/etc/passwd", "sub/mmproj-a.gguf", "mmproj-b.gguf", "/other/x.gguf"]
)
def test_nothing_outside_of_the_folder_can_be_named(name):
    known = [projector("mmproj-a.gguf"), Projector(path=Path("/other/x.gguf"), facts=EYES)]
    assert find_named(name, FOLDER, known) is None
    assert find_named(name, None, known) is None


def test_a_projector_tells_its_senses(tmp_path: Path):
    eyes = read_projector_file(write_tiny_projector(tmp_path / "eyes.gguf"))
    assert eyes.facts == ProjectorFacts(sees=True, width=64)
    ears = read_projector_file(write_tiny_projector(tmp_path / "ears.gguf", sense="audio", width=32))
    assert ears.facts == ProjectorFacts(hears=True, width=32)


def test_a_model_is_no_projector(tmp_path: Path):
    with pytest.raises(InvalidGguf, match="no projector"):
        read_projector_file(write_tiny_chat_model(tmp_path / "mmproj-liar.gguf"))


@pytest.mark.parametrize(
    ("sense", "key", "number"),
    [
        ("vision", "patch_size", 0),
        ("vision", "patch_size", 1 << 31),
        ("vision", "patch_size", 512),
        ("vision", "image_size", 0),
        ("vision", "image_size", 1 << 30),
        ("vision", "embedding_length", 0),
        ("vision", "attention.head_count", 0),
        ("vision", "block_count", 0),
        ("vision", "block_count", 1 << 20),
        ("vision", "feed_forward_length", 0),
        ("vision", "projection_dim", 0),
        ("audio", "num_mel_bins", 0),
        ("audio", "num_mel_bins", 1 << 20),
        ("audio", "attention.head_count", 0),
    ],
)
def test_numbers_on_which_the_engine_would_abort_are_named(tmp_path: Path, sense: str, key: str, number: int):
    with pytest.raises(InvalidGguf, match="impossible"):
        read_projector_file(write_tiny_projector(tmp_path / "a.gguf", sense=sense, numbers={key: number}))


UINT32, UINT64, INT32, FLOAT, BOOL, TEXT, LIST = 4, 10, 5, 6, 7, 8, 9
GOOD = {
    "clip.has_vision_encoder": (True, BOOL),
    "clip.projector_type": ("pixtral", TEXT),
    "clip.vision.embedding_length": (64, UINT32),
    "clip.vision.feed_forward_length": (128, UINT32),
    "clip.vision.projection_dim": (64, UINT32),
    "clip.vision.block_count": (1, UINT32),
    "clip.vision.attention.head_count": (2, UINT32),
    "clip.vision.image_size": (256, UINT32),
    "clip.vision.patch_size": (16, UINT32),
    "clip.vision.image_mean": ([0.5, 0.5, 0.5], LIST),
    "clip.vision.image_std": ([0.5, 0.5, 0.5], LIST),
}

LLAVA = {"mm.0.weight": Tensor(shape=(64, 64), kind=1), "mm.0.bias": Tensor(shape=(64,), kind=0)}


def fault(changes: dict[str, tuple[object, int] | None]) -> str:
    header = {key: pair for key, pair in (GOOD | changes).items() if pair is not None}
    values, kinds = ({key: pair[place] for key, pair in header.items()} for place in (0, 1))
    return read_projector(values, kinds, {}, LLAVA).fault


def test_what_is_right_has_no_fault():
    assert fault({}) == ""
    assert fault({"clip.use_gelu": (True, BOOL), "clip.minicpmv_version": (3, INT32), "other": (1, UINT64)}) == ""
    # The first projectors did not name their type.
    assert fault({"clip.projector_type": None}) == ""


@pytest.mark.parametrize("key", [key for key in GOOD if key != "clip.projector_type"])
@pytest.mark.parametrize(
    "pair", [None, ("x", TEXT), (-1, INT32), (64, UINT64), (1.0, FLOAT), ([], LIST), ([1.0], LIST), ([1, 2, 3], LIST)]
)
def test_what_is_missing_or_of_another_type_is_a_fault(key, pair):
    assert fault({key: pair})


@pytest.mark.parametrize("pair", [(1, UINT64), (7, 0), (1.0, 12)])
def test_no_other_number_may_have_a_type_that_the_engine_would_abort_on(pair):
    assert "type that nothing expects" in fault({"clip.vision.spatial_merge_size": pair})


def test_a_projector_that_is_cut_off_is_refused(tmp_path: Path):
    path = write_tiny_projector(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InvalidGguf):
        read_projector_file(path)


def test_colours_that_are_fewer_than_three_are_a_fault(tmp_path: Path):
    path = write_tiny_projector(tmp_path / "a.gguf")
    data = path.read_bytes()
    at = data.index(b"image_mean") + len(b"image_mean") + 4
    kind, count = struct.unpack_from("<IQ", data, at)
    assert (kind, count) == (6, 3)
    # Without the third colour, and as long as before.
    path.write_bytes(data[:at] + struct.pack("<IQ", kind, 2) + data[at + 12 : at + 20] + data[at + 24 :] + bytes(64))
    with pytest.raises(InvalidGguf, match="three colours"):
        read_projector_file(path)
