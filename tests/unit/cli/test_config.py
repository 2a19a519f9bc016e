import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from stellwerk.cli.main import app
from stellwerk.config.example import example, schema

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `stellwerk config …` in an empty folder, in English, without config of the machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("STELLWERK_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("STELLWERK_CONFIG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["config", *arguments])


def test_init_writes_the_example_for_its_owner_and_the_schema_beside_it(run: Run, tmp_path: Path):
    result = run("init")
    assert result.exit_code == 0
    assert result.stdout == "Written: stellwerk.yaml, and stellwerk.schema.json for editors.\n"
    file = tmp_path / "stellwerk.yaml"
    assert file.read_text(encoding="utf-8") == example()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads((tmp_path / "stellwerk.schema.json").read_text(encoding="utf-8"))["title"] == "stellwerk.yaml"
    assert run("check").stdout == "stellwerk.yaml is right.\n"


def test_init_replaces_a_file_only_when_it_is_told_to(run: Run, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("drain_seconds: 1\n")
    refused = run("init", "mine.yaml")
    assert (refused.exit_code, file.read_text()) == (1, "drain_seconds: 1\n")
    assert "mine.yaml exists already" in refused.stderr
    assert not (tmp_path / "stellwerk.schema.json").exists()
    assert run("init", "mine.yaml", "--force").exit_code == 0
    assert file.read_text() == example()


def test_init_says_why_it_cannot_write(run: Run):
    result = run("init", "no/such/folder.yaml")
    assert result.exit_code == 1
    assert "no/such/folder.yaml cannot be written: No such file or directory" in result.stderr


def test_check_without_a_file_checks_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch):
    assert run("check").stdout == "There is no config file; the defaults and the environment are right.\n"
    monkeypatch.setenv("STELLWERK_LISTEN__PROT", "1")
    result = run("check")
    assert result.exit_code == 78
    assert "STELLWERK_LISTEN__PROT: no setting belongs to this environment variable" in result.stderr


def test_check_prints_every_problem_with_file_line_and_key(run: Run, tmp_path: Path):
    (tmp_path / "stellwerk.yaml").write_text("listen:\n  prot: 1\n  host: 5\nproviders: {opnai: {}}\n")
    result = run("check")
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "stellwerk.yaml:2:3: listen.prot: unknown key prot; did you mean port?",
        "stellwerk.yaml:3:9: listen.host: expected text, found a whole number",
        "2 problems.",
    ]


def test_check_knows_the_vendors(run: Run, tmp_path: Path):
    (tmp_path / "a.yaml").write_text("providers:\n  opnai: {}\n")
    result = run("check", "a.yaml")
    assert result.exit_code == 78
    assert "a.yaml:2:3: providers.opnai: no vendor is called opnai; did you mean openai?" in result.stderr


def test_check_speaks_german_where_the_machine_does(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (tmp_path / "stellwerk.yaml").write_text("listen: {prot: 1}\n")
    result = run("check")
    assert result.stderr.splitlines() == [
        "stellwerk.yaml:1:10: listen.prot: unbekannter Schlüssel prot; ist port gemeint?",
        "1 Fehler.",
    ]


def test_check_finds_the_file_in_the_data_folder(run: Run, tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stellwerk.yaml").write_text("drain_seconds: 1\n")
    assert run("check", "--data", "other").stdout == "other/stellwerk.yaml is right.\n"


def test_a_file_that_is_not_there_is_an_error(run: Run):
    result = run("check", "none.yaml")
    assert result.exit_code == 78
    assert result.stderr.startswith("none.yaml: the file cannot be read")


def test_schema_prints_the_schema(run: Run):
    assert json.loads(run("schema").stdout)["$defs"].keys() == schema()["$defs"].keys()


def test_show_prints_the_settings_in_use_without_secrets(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "stellwerk.yaml").write_text("providers:\n  openai: {api_key: '${KEY}'}\n")
    monkeypatch.setenv("KEY", "sk-secret")
    monkeypatch.setenv("STELLWERK_LISTEN__PORT", "4100")
    result = run("show")
    assert result.exit_code == 0
    assert "sk-secret" not in result.output
    assert result.stdout.startswith("# Config file: stellwerk.yaml\n")
    assert "  port: 4100  # STELLWERK_LISTEN__PORT\n" in result.stdout
    assert '    api_key: "***"  # stellwerk.yaml:2\n' in result.stdout
    assert yaml.safe_load(result.stdout)["listen"]["port"] == 4100


def test_show_of_a_wrong_config_shows_what_is_wrong(run: Run, tmp_path: Path):
    (tmp_path / "stellwerk.yaml").write_text("x: 1\n")
    assert run("show").exit_code == 78
