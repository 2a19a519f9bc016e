from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from stellwerk.config.problems import ConfigError, ConfigProblem
from stellwerk.config.reading import load


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a config file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "stellwerk.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def wrong(write: Callable[[str], Path]) -> Callable[..., list[ConfigProblem]]:
    """The problems of a config text and an environment; fails when there are none."""

    def wrong(text: str, environ: Mapping[str, str] | None = None, **options: object) -> list[ConfigProblem]:
        with pytest.raises(ConfigError) as caught:
            load(write(text), environ or {}, **options)
        return list(caught.value.problems)

    return wrong
