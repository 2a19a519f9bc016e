import os
from pathlib import Path

import pytest

from stellwerk.engines.model_files import ModelFiles
from tests.tiny_gguf import write_tiny_chat_model


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
    [".hidden.gguf", "-flag.gguf", "a b.gguf", "ä.gguf", "x" * 121 + ".gguf", "a.GGUF", "a.gguf.part", "a\n.gguf"],
)
def test_odd_names_are_passed_over(models: Path, name: str):
    (models / name).write_bytes((models / "chat.gguf").read_bytes())
    shelf = ModelFiles(models).scan()
    assert set(shelf.files) == {"chat", "embedding"}
    assert shelf.broken == {}


def test_links_pipes_and_folders_are_passed_over(models: Path, tmp_path: Path):
    outside = write_tiny_chat_model(tmp_path / "outside.gguf")
    (models / "link.gguf").symlink_to(outside)
    os.mkfifo(models / "pipe.gguf")
    (models / "folder.gguf").mkdir()
    assert set(ModelFiles(models).scan().files) == {"chat", "embedding"}


def test_projectors_and_adapters_are_no_models(models: Path):
    write_tiny_chat_model(models / "mmproj-chat.gguf")
    write_tiny_chat_model(models / "lora.gguf", strings={"general.type": "adapter"})
    write_tiny_chat_model(models / "vision.gguf", architecture="clip")
    assert set(ModelFiles(models).scan().files) == {"chat", "embedding"}


def test_a_split_model_appears_once_when_all_its_parts_are_there(models: Path):
    first = write_tiny_chat_model(models / "big-00001-of-00002.gguf")
    assert "big" not in ModelFiles(models).scan().files
    (models / "big-00002-of-00002.gguf").write_bytes(b"x" * 100)
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
