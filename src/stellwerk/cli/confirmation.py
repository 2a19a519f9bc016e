"""A question to which somebody at the terminal says yes or no."""

import sys

import typer

from stellwerk.cli.language import text

_YES = frozenset({"y", "yes", "j", "ja"})
_NO = frozenset({"n", "no", "nein", ""})


def confirmed(question: str) -> bool:
    """Asks on standard error until the answer is one; an empty line is a no. Raises typer.Abort at the input's end."""
    while True:
        typer.echo(f"{question} [{text('confirm.choice')}]: ", nl=False, err=True)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            typer.echo(err=True)
            raise typer.Abort
        answer = line.strip().lower()
        if answer in _YES or answer in _NO:
            return answer in _YES
        typer.echo(text("confirm.unclear"), err=True)
