"""The command `stellwerk`.

A command is a module in this folder that defines `app`, a `typer.Typer` made with `add_completion=False`: with one
command in it, it is that command; with several, a group. It is registered by one line in COMMANDS, and imported only
when it is used or when the help lists it, so that no command pays for the imports of another.

A ConfigError that a command lets through is printed and ends it with EX_CONFIG.
"""

import errno
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException
from typer.core import TyperGroup
from typer.main import get_command

import stellwerk
from stellwerk.cli.language import describe, language, text
from stellwerk.config.problems import ConfigError

EX_CONFIG = 78
"""From sysexits.h: something is wrong with the config."""
EX_IOERR = 74
"""What was to be written could not be."""
INTERRUPTED = 130
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_OBJECTS_BETWEEN_COLLECTIONS = 100_000

COMMANDS: Mapping[str, str] = {
    "serve": "stellwerk.cli.serve",
    "chat": "stellwerk.cli.chat",
    "ask": "stellwerk.cli.ask",
    "ocr": "stellwerk.cli.ocr",
    "jobs": "stellwerk.cli.jobs",
    "models": "stellwerk.cli.models",
    "console": "stellwerk.cli.console",
    "users": "stellwerk.cli.users",
    "keys": "stellwerk.cli.keys",
    "webhooks": "stellwerk.cli.webhooks",
    "shell": "stellwerk.cli.shell",
    "usage": "stellwerk.cli.usage",
    "ledger": "stellwerk.cli.ledger",
    "signups": "stellwerk.cli.signups",
    "audit": "stellwerk.cli.audit",
    "upstream-keys": "stellwerk.cli.upstream_keys",
    "import": "stellwerk.cli.import_data",
    "config": "stellwerk.cli.config",
}
"""Name of each command and its module, in the order of the help."""


class Modules(Mapping[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        # What is imported stays: looking for garbage in it takes a tenth of the time to start.
        gc.disable()
        try:
            command = get_command(import_module(COMMANDS[name]).app)
        finally:
            gc.freeze()
            gc.enable()
        command.name = name
        if _speaks_german():
            _german_help().translate(command)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(TyperGroup):
    """The registered commands, and what all of them do when they are interrupted or the config is wrong."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": Modules()})

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        if _speaks_german():
            _german_help().translate(self)
        try:
            return super().make_context(*arguments, **settings)
        except ClickException as error:
            raise _worded(error) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except ClickException as error:
            raise _worded(error) from None
        except typer.Abort:
            typer.echo(text("main.aborted"), err=True)
            raise typer.Exit(1) from None
        except ConfigError as error:
            report(error)
            raise typer.Exit(EX_CONFIG) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def report(error: ConfigError) -> None:
    """Prints every problem to standard error, one a line, and how many there are."""
    for problem in error.problems:
        typer.echo(describe(problem), err=True)
    count = len(error.problems)
    typer.echo(text("config.one_problem") if count == 1 else text("config.problems", count=count), err=True)


def _speaks_german() -> bool:
    return language(os.environ) == "de"


def _german_help() -> ModuleType:
    # Nobody else needs it.
    return import_module("stellwerk.cli.german_help")


def _worded(error: ClickException) -> ClickException:
    return _german_help().translated_error(error) if _speaks_german() else error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stellwerk {stellwerk.__version__}")
        raise typer.Exit


@app.callback()
def stellwerk_command(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """One gateway in front of every language model: cloud vendors, Ollama and your own GGUF files."""


def main() -> None:
    """Runs the command line and exits."""
    # The same holds for most of what is made before the first request.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 50, 50)
    try:
        app(prog_name="stellwerk")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        typer.echo(text("main.no_room"), err=True)
        # What could not be written would be tried again at the end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EX_IOERR)
