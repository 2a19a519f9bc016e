from pathlib import Path

import pytest

from stellwerk.core.errors import BadRequest, Conflict
from stellwerk.engines.model_files import ModelFile, ModelFiles
from stellwerk.engines.model_folder import check_inside, copy_model, remove_model, remove_unusable


def files(folder: Path) -> dict[str, ModelFile]:
    return dict(ModelFiles(folder).scan().files)


@pytest.fixture
def split(models: Path) -> Path:
    """The folder with a model in two parts; only what its first part says counts."""
    (models / "chat.gguf").rename(models / "big-00001-of-00002.gguf")
    (models / "big-00002-of-00002.gguf").write_bytes((models / "embedding.gguf").read_bytes())
    return models


def test_a_removed_model_is_gone_with_all_its_parts(split: Path):
    remove_model(files(split)["big"], split)
    assert {path.name for path in split.iterdir()} == {"embedding.gguf"}


def test_a_copy_has_the_same_content_and_outlives_its_source(split: Path):
    before = files(split)["big"]
    copy_model(before, "other", split)
    remove_model(before, split)
    copied = files(split)["other"]
    assert (copied.size, copied.facts) == (before.size, before.facts)


def test_a_copy_takes_no_name_that_is_there(models: Path):
    with pytest.raises(Conflict) as caught:
        copy_model(files(models)["chat"], "embedding", models)
    assert caught.value.code == "model_exists"
    assert set(files(models)) == {"chat", "embedding"}


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 101, "a-mmproj", "x-00001-of-00002", "a b", "ä"])
def test_a_name_that_no_file_may_have_is_refused(models: Path, name: str):
    with pytest.raises(BadRequest) as caught:
        copy_model(files(models)["chat"], name, models)
    assert caught.value.param == "name"


def test_what_lies_elsewhere_is_left_alone(models: Path, tmp_path: Path):
    file = files(models)["chat"]
    for folder in (None, tmp_path / "other"):
        with pytest.raises(Conflict) as caught:
            remove_model(file, folder)
        assert caught.value.code == "model_protected"
    assert file.path.exists()


def test_what_lies_elsewhere_is_known_before_anything_is_removed(models: Path, tmp_path: Path):
    file = files(models)["chat"]
    check_inside(file, models)
    with pytest.raises(Conflict):
        check_inside(file, tmp_path)


def test_what_cannot_be_used_is_removed_with_all_its_parts_and_nothing_else(models: Path):
    for name in ("half.gguf", "half.bin", "half-00001-of-00002.gguf", "half-00002-of-00002.gguf"):
        (models / name).write_bytes(b"GGUF")
    (models / "half-2.gguf").write_bytes(b"GGUF")
    remove_unusable("half", models)
    assert {path.name for path in models.iterdir()} == {"chat.gguf", "embedding.gguf", "half-2.gguf"}


@pytest.mark.parametrize("name", ["nobody", "../chat", ".*", "chat.gguf"])
def test_only_what_lies_in_the_folder_under_this_very_name_is_removed(models: Path, tmp_path: Path, name: str):
    for folder in (models, tmp_path / "none", None):
        with pytest.raises(Conflict) as caught:
            remove_unusable(name, folder)
        assert caught.value.code == "model_protected"
    assert set(files(models)) == {"chat", "embedding"}
