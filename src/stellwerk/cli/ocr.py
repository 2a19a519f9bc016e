"""`stellwerk ocr`: reads the text of pictures and PDF files."""

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated, Any

import msgspec
import typer

from stellwerk.cli.client_access import (
    INTERRUPTED,
    GivenKey,
    Timeout,
    Url,
    exit_code,
    find_caller,
    find_url,
    say,
    told,
)
from stellwerk.cli.data import Data
from stellwerk.cli.job_progress import Show, watched
from stellwerk.cli.job_view import print_text
from stellwerk.cli.refusals import explain_text
from stellwerk.cli.tables import Wording, print_json
from stellwerk.client.async_client import AsyncClient
from stellwerk.client.client import Priority
from stellwerk.client.errors import StellwerkError
from stellwerk.client.ocr import Document, Mode, Reading

app = typer.Typer(add_completion=False)

_AT_ONCE = 4
_MOST_PAGES = 10_000
_MOST_BYTES = 64 << 20
_RANGE = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "unreadable": {"en": "{file} cannot be read: {reason}", "de": "{file} lässt sich nicht lesen: {reason}"},
    "too_large": {"en": "{file} has more than {most} MiB.", "de": "{file} hat mehr als {most} MiB."},
    "unwritable": {"en": "{file} cannot be written: {reason}", "de": "{file} lässt sich nicht schreiben: {reason}"},
    "exists": {"en": "{file} exists already.", "de": "{file} gibt es schon."},
    "bad_pages": {
        "en": "Pages are numbers and ranges such as 1-3,7.",
        "de": "Seiten sind Nummern und Bereiche wie 1-3,7.",
    },
    "degraded": {
        "en": "{file}: the text of page {pages} may be incomplete.",
        "de": "{file}: Der Text von Seite {pages} ist vielleicht unvollständig.",
    },
    "written": {"en": "{file} written.", "de": "{file} geschrieben."},
    "goes_on": {
        "en": "No longer waiting. What was sent is still read: stellwerk jobs wait {ids}",
        "de": "Es wird nicht mehr gewartet. Was gesendet ist, wird weiter gelesen: stellwerk jobs wait {ids}",
    },
    "stopped": {"en": "Stopped.", "de": "Abgebrochen."},
}
text = Wording(TEXTS)


class Form(StrEnum):
    TEXT = "text"
    MD = "md"
    JSON = "json"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How documents are to be read."""

    mode: Mode | None
    model: str | None
    pages: list[int] | None
    form: Form
    priority: Priority | None
    timeout: float | None


class _Unreadable(Exception):
    """Its text is for people."""


@app.command()
def ocr(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files, https URLs, or - for standard input.")],
    mode: Annotated[Mode | None, typer.Option(help="How finely to look; without it as the gateway is told.")] = None,
    out: Annotated[
        Form, typer.Option(help="As text, as Markdown, or as JSON with the place of each line.")
    ] = Form.TEXT,
    to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write a file for each document there.")] = None,
    pages: Annotated[str | None, typer.Option(metavar="1-3,7", help="Only these pages, from 1.")] = None,
    model: Annotated[str | None, typer.Option(help="A model that sees; without it the gateway's own engine.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="In the queue.")] = None,
    timeout: Timeout = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    url: Url = None,
    key: GivenKey = None,
    data: Data = None,
) -> None:
    """Read the text of documents: JPEG, PNG, WebP, BMP, TIFF and PDF.

    Ends with 1 when one of them could not be read, with 75 when one was not ready after --timeout. Ctrl+C stops
    waiting; the gateway goes on, and `stellwerk jobs wait` prints what it read.
    """
    url = find_url(url, data)
    wanted = Wanted(mode=mode, model=model, pages=parse_pages(pages), form=out, priority=priority, timeout=timeout)
    under_way: dict[str, str] = {}
    try:
        with told(url):
            client = AsyncClient(url, find_caller(url, key, data))
            with watched(quiet=quiet) as show:
                outcomes = asyncio.run(_read_all(client, files, wanted, show, under_way))
        worst = _print_all(files, outcomes, wanted, to, url)
    except KeyboardInterrupt:
        if under_way:
            text.say("goes_on", ids=" ".join(under_way.values()))
        else:
            text.say("stopped")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(worst)


def parse_pages(given: str | None) -> list[int] | None:
    """Counted from 0; None for all."""
    if given is None:
        return None
    pages: list[int] = []
    for each in given.split(","):
        match = _RANGE.fullmatch(each.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if not 0 < first <= last or last > _MOST_PAGES:
            raise typer.BadParameter(text("bad_pages"), param_hint="--pages")
        pages.extend(range(first - 1, last))
    return list(dict.fromkeys(pages))


Outcome = Reading | StellwerkError | _Unreadable


async def _read_all(
    client: AsyncClient, files: Sequence[str], wanted: Wanted, show: Show, under_way: dict[str, str]
) -> list[Outcome]:
    """One outcome a file, in their order. `under_way` holds the jobs that have not ended yet, by place and name."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def read(place: int, file: str) -> Outcome:
        name = f"{place} {file}"
        try:
            async with turns:
                document = await asyncio.to_thread(_document, file)
                handle = await client.submit_ocr(
                    document,
                    mode=wanted.mode,
                    model=wanted.model,
                    pages=wanted.pages,
                    boxes=wanted.form is Form.JSON,
                    priority=wanted.priority,
                )
                del document
                under_way[name] = handle.id
                job = await handle.wait(wanted.timeout, lambda state: show(PurePath(file).name or file, state))
                under_way.pop(name)
                job.check()
                return (await client.jobs.result(handle.id)).read(Reading)
        except (StellwerkError, _Unreadable) as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(place, file)) for place, file in enumerate(files)]
    return [task.result() for task in tasks]


def _document(file: str) -> Document:
    """Raises _Unreadable."""
    if file.startswith(("https://", "http://")):
        return file
    try:
        if file == "-":
            found = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                found = opened.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _Unreadable(text("unreadable", file=file, reason=explain_text(reason))) from None
    if len(found) > _MOST_BYTES:
        raise _Unreadable(text("too_large", file=file, most=_MOST_BYTES >> 20))
    return found


def _print_all(files: Sequence[str], outcomes: Sequence[Outcome], wanted: Wanted, to: Path | None, url: str) -> int:
    """Prints what was read and says what was not; the exit code."""
    worst = 0
    good: list[tuple[str, Reading]] = []
    for file, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, Reading):
            good.append((file, outcome))
            _warn(file, outcome)
        elif isinstance(outcome, StellwerkError):
            say(outcome, url, about=file)
            worst = max(worst, exit_code(outcome))
        else:
            typer.echo(str(outcome), err=True)
            worst = max(worst, 1)
    if to is not None:
        return max(worst, _write_all(good, wanted.form, to))
    if wanted.form is Form.JSON:
        print_json([_values(file, reading) for file, reading in good])
        return worst
    for file, reading in good:
        if len(files) > 1:
            print_text(f"==> {file} <==")
        print_text(reading.text if wanted.form is Form.TEXT else reading.markdown)
    return worst


def _write_all(good: Sequence[tuple[str, Reading]], form: Form, to: Path) -> int:
    """Files that are there already are kept; the exit code."""
    worst = 0
    for file, reading in good:
        stem = "stdin" if file == "-" else PurePath(file.rstrip("/")).stem or "document"
        target = to / f"{stem}.{'txt' if form is Form.TEXT else form}"
        try:
            to.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8", errors="replace") as opened:
                opened.write(_content(file, reading, form) + "\n")
            text.say("written", file=str(target))
        except FileExistsError:
            text.say("exists", file=str(target))
            worst = 1
        except OSError as error:
            text.say("unwritable", file=str(target), reason=explain_text(error.strerror or str(error)))
            worst = 1
    return worst


def _content(file: str, reading: Reading, form: Form) -> str:
    if form is Form.JSON:
        return msgspec.json.format(msgspec.json.encode(_values(file, reading))).decode()
    return reading.text if form is Form.TEXT else reading.markdown


def _values(file: str, reading: Reading) -> dict[str, Any]:
    return {"file": file, **msgspec.to_builtins(reading)}


def _warn(file: str, reading: Reading) -> None:
    degraded = [str(page.index + 1) for page in reading.pages if page.degraded]
    if degraded:
        text.say("degraded", file=file, pages=", ".join(degraded))
