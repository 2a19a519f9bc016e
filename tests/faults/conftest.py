import shutil
from pathlib import Path

import pytest

from tests.tiny_gguf import write_tiny_chat_model, write_tiny_embedding_model


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_chat_model(folder / "chat.gguf")
    write_tiny_embedding_model(folder / "embedding.gguf")
    return folder


@pytest.fixture
def models(tiny_models: Path, tmp_path: Path) -> Path:
    """A models folder of the test's own with `chat` and `embedding` in it."""
    return Path(shutil.copytree(tiny_models, tmp_path / "models"))
