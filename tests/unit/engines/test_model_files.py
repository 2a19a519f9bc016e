import os
import struct
from pathlib import Path

import pytest

from stellwerk.engines.model_files import ModelFiles
from stellwerk.engines.projector_facts import ProjectorFacts
from tests.tiny_gguf import write_tiny_chat_model, write_tiny_projector


def test_the_files_of_the_folder_are_found_by_their_stem(models: Path):
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding"}
    assert shelf.files["chat"].size == (models / "chat.gguf").stat().st_size
    assert shelf.files["embedding"].facts.embeds


def test_a_folder_that_does_not_exist_is_empty(tmp_path: Path):
    assert ModelFiles(tmp_path / "nowhere").scan().files == {}
    assert ModelFiles(None).scan().files == {}


@pytest.mark.parametrize(
    "name",
    [".hidden.gguf", "a.gguf.part", "a\n.gguf", "chat.GGUF", "notes.txt"],
)
def test_what_nobody_means_as_a_model_is_passed_over(models: Path, name: str):
    (models / name).write_bytes((models / "chat.gguf").read_bytes())
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding"}
    assert shelf.broken == {}


@pytest.mark.parametrize("stem", ["-flag", "a b", "ä", "model (1)"])
def test_a_file_with_an_odd_name_is_no_model_and_says_why(models: Path, stem: str):
    (models / f"{stem}.gguf").write_bytes((models / "chat.gguf").read_bytes())
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding"}
    assert "name has to be" in shelf.broken[stem]


def test_a_name_that_is_too_long_or_in_capitals_is_odd_too(models: Path):
    for name in ("x" * 121 + ".gguf", "LOUD.GGUF"):
        (models / name).write_bytes((models / "chat.gguf").read_bytes())
    assert set(ModelFiles(models).scan().broken) == {"x" * 120, "LOUD"}


def test_links_pipes_and_folders_are_passed_over(models: Path, tmp_path: Path):
    outside = write_tiny_chat_model(tmp_path / "outside.gguf")
    (models / "link.gguf").symlink_to(outside)
    os.mkfifo(models / "pipe.gguf")
    (models / "folder.gguf").mkdir()
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding"}
    assert list(shelf.broken) == ["link"]
    assert "links are not followed" in shelf.broken["link"]


def test_projectors_and_adapters_are_no_models(models: Path):
    write_tiny_chat_model(models / "mmproj-chat.gguf")
    write_tiny_chat_model(models / "lora.gguf", strings={"general.type": "adapter"})
    write_tiny_chat_model(models / "vision.gguf", architecture="clip")
    assert set(ModelFiles(models).scan().files) == {"chat", "embedding"}


def test_a_split_model_appears_once_when_all_its_parts_are_there(models: Path):
    first = write_tiny_chat_model(models / "big-00001-of-00002.gguf")
    shelf = ModelFiles(models).scan()
    assert "big" not in shelf.files
    assert shelf.broken["big"] == "a part of it is missing"
    (models / "big-00002-of-00002.gguf").write_bytes(b"x" * 100)
    assert "begin" in ModelFiles(models).scan().broken["big"]
    first.rename(models / "elsewhere")
    assert ModelFiles(models).scan().broken["big"] == "a part of it is missing"
    (models / "elsewhere").rename(first)
    (models / "big-00002-of-00002.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(76))
    files = ModelFiles(models).scan().files
    assert set(files) == {"big", "chat", "embedding"}
    assert files["big"].path == first
    assert files["big"].size == first.stat().st_size + 100


def test_a_broken_file_is_named_with_its_reason_until_it_is_mended(models: Path):
    files = ModelFiles(models)
    whole = (models / "chat.gguf").read_bytes()
    (models / "growing.gguf").write_bytes(whole[: len(whole) // 2])
    shelf = files.scan()
    assert "growing" not in shelf.files
    assert "incomplete" in shelf.broken["growing"]
    (models / "growing.gguf").write_bytes(whole)
    assert "growing" in files.scan().files


def test_a_bundled_model_comes_first_and_keeps_its_name(models: Path, tmp_path: Path):
    bundled = write_tiny_chat_model(tmp_path / "chat.gguf", name="the bundled one")
    shelf = ModelFiles(models, (bundled, tmp_path / "missing.gguf")).scan()
    assert next(iter(shelf.files)) == "chat"
    assert shelf.files["chat"].facts.name == "the bundled one"


def test_projectors_are_kept_apart_with_what_is_wrong_with_them(models: Path):
    good = write_tiny_projector(models / "eyes.gguf")
    bad = write_tiny_projector(models / "mmproj-bad.gguf", numbers={"patch_size": 0})
    (models / "mmproj-broken.gguf").write_bytes(b"GGUF")
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding"}
    assert set(shelf.broken) == {"mmproj-broken"}
    assert {one.path: bool(one.facts.fault) for one in shelf.projectors} == {good: False, bad: True}


def test_a_projector_elsewhere_counts_when_the_operator_names_it(models: Path, tmp_path: Path):
    path = write_tiny_projector(tmp_path / "elsewhere.gguf")
    write_tiny_projector(models / "mmproj-chat.gguf")
    assert [one.path.name for one in ModelFiles(models).scan().projectors] == ["mmproj-chat.gguf"]
    found = ModelFiles(models, projectors=(path, tmp_path / "nowhere.gguf")).scan().projectors
    assert [one.path.name for one in found] == ["mmproj-chat.gguf", "elsewhere.gguf"]
    assert found[1].facts == ProjectorFacts(sees=True, width=64)


def test_a_model_elsewhere_has_the_id_that_the_operator_gives_it(models: Path, tmp_path: Path):
    outside = write_tiny_chat_model(tmp_path / "outside.gguf", name="Outside")
    (tmp_path / "link").symlink_to(outside)
    files = ModelFiles(models, named={"house/llama": tmp_path / "link", "chat": outside}).scan().files
    assert set(files) == {"house/llama", "chat", "embedding"}
    assert files["house/llama"].path == files["chat"].path == outside
    assert files["chat"].facts.name == "Outside"


def test_a_named_model_that_is_not_there_is_broken(models: Path, tmp_path: Path):
    shelf = ModelFiles(models, named={"lost": tmp_path / "lost.gguf"}).scan()
    assert "leads nowhere" in shelf.broken["lost"]


def test_a_folder_as_vllm_takes_it_is_a_model(tmp_path: Path):
    path = tmp_path / "qwen"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"x" * 1000)
    files = ModelFiles(None, named={"qwen": path})
    assert "cannot be read" in files.scan().broken["qwen"]
    (path / "config.json").write_text('{"model_type": "qwen3_vl", "text_config": {"max_position_embeddings": 4096}}')
    file = files.scan().files["qwen"]
    assert (file.format, file.path, file.facts.architecture) == ("folder", path, "qwen3_vl")
    assert (file.facts.context_length, file.size > 1000) == (4096, True)


@pytest.mark.parametrize("config", ["", "[]", "{" * 100_000, '{"model_type": 5, "max_position_embeddings": -1}'])
def test_a_config_that_means_nothing_harms_nobody(tmp_path: Path, config: str):
    (tmp_path / "config.json").write_text(config)
    shelf = ModelFiles(None, named={"odd": tmp_path}).scan()
    assert ("odd" in shelf.broken) != ("odd" in shelf.files)
    if "odd" in shelf.files:
        assert (shelf.files["odd"].facts.architecture, shelf.files["odd"].facts.context_length) == ("unknown", None)


def test_a_file_of_whisper_is_a_model_and_other_bin_files_are_not(models: Path):
    (models / "ggml-base.bin").write_bytes(b"lmgg" + bytes(100))
    (models / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    (models / "chat.bin").write_bytes(b"lmgg" + bytes(100))
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding", "ggml-base"}
    assert (shelf.files["ggml-base"].format, shelf.files["chat"].format) == ("whisper", "gguf")
    assert "whisper.cpp" in shelf.broken["pytorch_model"]
