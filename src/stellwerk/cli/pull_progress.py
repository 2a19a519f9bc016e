"""A download as it is watched: a bar on a terminal, a line now and then elsewhere. All on standard error."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from stellwerk.api.admin.download_shapes import DownloadShape
from stellwerk.cli.language import language
from stellwerk.cli.tables import Wording, visible

TEXTS: Mapping[str, Mapping[str, str]] = {
    "queued": {"en": "waits", "de": "wartet"},
    "running": {"en": "is fetched", "de": "wird geholt"},
    "verifying": {"en": "is checked", "de": "wird geprüft"},
    "paused": {"en": "paused", "de": "angehalten"},
    "done": {"en": "done", "de": "fertig"},
    "failed": {"en": "failed", "de": "gescheitert"},
    "cancelled": {"en": "cancelled", "de": "abgebrochen"},
    "of": {"en": "{done} of {all}", "de": "{done} von {all}"},
    "speed": {"en": "{rate}/s, {left} left", "de": "{rate}/s, noch {left}"},
    "line": {"en": "{model}: {percent} % ({amount})", "de": "{model}: {percent} % ({amount})"},
}
text = Wording(TEXTS)

_STEP = 10
"""Percent between two lines."""


@contextlib.contextmanager
def watched() -> Iterator[Callable[[DownloadShape], None]]:
    """What is to be called with each state of one download."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines().show
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TextColumn("{task.fields[facts]}", markup=False), console=console) as progress:
        yield _Bar(progress).show


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, facts="")

    def show(self, state: DownloadShape) -> None:
        facts = f"{amount(state)}  {speed(state) or text(state.status)}"
        self._progress.update(
            self._task,
            description=visible(state.model),
            total=state.total or None,
            completed=state.completed,
            facts=facts,
        )


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0

    def show(self, state: DownloadShape) -> None:
        if state.percent >= self._next:
            self._next = state.percent - state.percent % _STEP + _STEP
            line = text("line", model=state.model, percent=round(state.percent), amount=amount(state))
            typer.echo(line, err=True)


def amount(state: DownloadShape) -> str:
    """How many bytes of how many, as people write them."""
    return text("of", done=size(state.completed), all=size(state.total))


def speed(state: DownloadShape) -> str:
    """Empty while it is not known."""
    if state.bytes_per_second is None or state.eta_seconds is None:
        return ""
    return text("speed", rate=size(round(state.bytes_per_second)), left=duration(state.eta_seconds))


def size(count: int) -> str:
    """`4.7 GB`, or `4,7 GB` in German."""
    shown = decimal(count)
    if language(os.environ) == "de":
        return shown.replace(",", "").replace(".", ",").replace("bytes", "Byte").replace("byte", "Byte")
    return shown


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
