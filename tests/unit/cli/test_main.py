import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import stellwerk
from stellwerk.cli.main import COMMANDS, EX_CONFIG, EX_IOERR, INTERRUPTED, Commands, app
from stellwerk.config.problems import ConfigError, ConfigProblem


def test_the_version_is_shown():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"stellwerk {stellwerk.__version__}\n")


def test_without_a_command_there_is_help():
    result = CliRunner().invoke(app, [])
    assert "config" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_with_an_app_and_has_help(command: str):
    assert isinstance(import_module(COMMANDS[command]).app, typer.Typer)
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"stellwerk {command}" in result.output.replace("root", "stellwerk")


def test_an_unknown_command_is_refused():
    result = CliRunner().invoke(app, ["confg"])
    assert result.exit_code == 2
    assert "config" in result.output


def failing(error: BaseException) -> typer.Typer:
    made = typer.Typer(cls=type("Failing", (Commands,), {"get_command": lambda self, ctx, name: command}))

    single = typer.Typer(add_completion=False)

    @single.command()
    def fail() -> None:
        raise error

    command = typer.main.get_command(single)

    @made.callback()
    def root() -> None: ...

    return made


def test_an_interrupt_ends_with_its_status_and_no_traceback():
    result = CliRunner().invoke(failing(KeyboardInterrupt()), ["x"])
    assert result.exit_code == INTERRUPTED
    assert "Traceback" not in result.output


def test_a_wrong_config_is_printed_and_ends_with_its_status(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "C")
    problem = ConfigProblem(file="a.yaml", line=1, column=2, key="k", code="bad_key")
    result = CliRunner().invoke(failing(ConfigError([problem])), ["x"])
    assert result.exit_code == EX_CONFIG
    assert result.stderr == "a.yaml:1:2: k: a key must be text\n1 problem.\n"


def test_starting_the_command_imports_nothing_heavy():
    heavy = ["rich", "sqlalchemy", "yaml", "uvicorn", "msgspec", "asyncio", "stellwerk.cli.config"]
    program = f"import sys, stellwerk.cli.main; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=dict(os.environ)
    )
    assert result.stdout.strip() == "[]"


def test_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "stellwerk", "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout == f"stellwerk {stellwerk.__version__}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_output_that_finds_no_room_ends_with_a_sentence_and_no_traceback():
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "stellwerk", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == EX_IOERR
    assert done.stderr.startswith("The output is not complete") or done.stderr.startswith("Die Ausgabe")
    assert done.stderr.count("\n") == 1
