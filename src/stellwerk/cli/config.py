"""`stellwerk config`: write, check and show the settings."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from stellwerk.cli.language import text
from stellwerk.cli.refusals import explain_text
from stellwerk.config.example import SCHEMA_NAME, effective, example, schema
from stellwerk.config.reading import FILE_NAME, data_folder, find, read
from stellwerk.providers.vendors import load_vendors

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Write, check and show the settings (stellwerk.yaml)."
)

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The config file; found as serve does without it.")]
Data = Annotated[Path | None, typer.Option("--data", help="The data folder, where a config file may be.")]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path(FILE_NAME),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write an annotated config file with every key and its default, and a JSON Schema for editors beside it."""
    companion = file.with_name(SCHEMA_NAME)
    try:
        # The file may come to hold keys, so it is for its owner only.
        _write(file, example(), os.O_TRUNC if force else os.O_EXCL, 0o600)
        _write(companion, _schema_text(), os.O_TRUNC, 0o644)
    except FileExistsError:
        typer.echo(text("config.exists", file=file), err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(
            text("config.cannot_write", file=error.filename, reason=explain_text(error.strerror or str(error))),
            err=True,
        )
        raise typer.Exit(1) from None
    typer.echo(text("config.written", file=file, schema=companion))


@app.command()
def check(file: File = None, data: Data = None) -> None:
    """Check the config file and the STELLWERK_* variables; exit with 78 when something is wrong."""
    found = _find(file, data)
    read(found, os.environ, load_vendors())
    typer.echo(text("config.right", file=found) if found else text("config.right_without_file"))


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the config file."""
    typer.echo(_schema_text(), nl=False)


@app.command()
def show(file: File = None, data: Data = None) -> None:
    """Print the settings in use, secrets as ***, and where each one that was set comes from."""
    found = _find(file, data)
    reading = read(found, os.environ, load_vendors())
    typer.echo("# " + (text("config.shown", file=found) if found else text("config.shown_without_file")))
    typer.echo(effective(reading.config, reading.origins), nl=False)


def _find(file: Path | None, data: Path | None) -> Path | None:
    return find(file, os.environ, data_folder(data, os.environ))


def _schema_text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, content: str, flag: int, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
