"""How commands print what they found: tables, records, money and JSON, with nothing in it that steers a terminal."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stellwerk.cli.language import language

MICRO = 1_000_000
NOTHING = "–"
"""A cell without a value."""
_LEAST_WRAPPED = 12
"""Characters that a long cell needs on a line to be read at all."""

_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Column(msgspec.Struct, frozen=True):
    title: str
    wraps: bool = False
    """Its cells may be long, since people chose what stands in them."""
    right: bool = False
    """Numbers end at the same place."""
    usual: str | None = None
    """On a terminal, whose lines are short, the column is left out when all of its cells are this."""


class Wording:
    """The texts of one command in English and German, by key; calling it gives one with its placeholders filled."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]]) -> None:
        self._texts = texts

    def __call__(self, key: str, /, **values: Any) -> str:
        harmless = {name: visible(value) if isinstance(value, str) else value for name, value in values.items()}
        return self._texts[key][language(os.environ)].format_map(harmless)

    def fail(self, key: str, /, **values: Any) -> NoReturn:
        """Says it on standard error and ends the command with 1."""
        typer.echo(self(key, **values), err=True)
        raise typer.Exit(1)

    def say(self, key: str, /, **values: Any) -> None:
        """Says it on standard error, so that standard output holds results only."""
        typer.echo(self(key, **values), err=True)


def visible(text: str) -> str:
    """The text with a `?` for every character that would move the cursor, end a line or turn the writing around."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """A drawn table on a terminal; one line a row with tabs in between for other programs.

    What a terminal is too narrow for stands below each row: nothing is cut.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    console = Console()
    if not console.is_terminal:
        _print_lines(columns, rows)
        return
    shown = [
        place
        for place, column in enumerate(columns)
        if column.usual is None or any(row[place] != column.usual for row in rows)
    ]
    columns = [columns[place] for place in shown]
    rows = [[row[place] for place in shown] for row in rows]
    widths = _least_widths(columns, rows)
    if sum(widths) + len(widths) + 1 > console.width:
        _print_stacked(console, columns, rows, widths)
    else:
        _print_drawn(console, columns, rows)


def _least_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Of each column, when none of its cells is cut."""
    titles = [column.title for column in columns]
    natural = [max(map(cell_len, cells)) for cells in zip(titles, *rows, strict=True)]
    return [
        max(cell_len(column.title), min(width, _LEAST_WRAPPED)) if column.wraps else width
        for column, width in zip(columns, natural, strict=True)
    ]


def _print_drawn(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            no_wrap=not column.wraps,
            min_width=cell_len(column.title),
            justify="right" if column.right else "left",
        )
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


def _print_stacked(
    console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str]], widths: Sequence[int]
) -> None:
    """A line a row with as many columns as there is room for, the first at least, and the others below it."""
    fitting = [place for place in range(1, len(widths) + 1) if sum(widths[:place]) + place <= console.width + 1]
    most = next((place for place, column in enumerate(columns) if column.wraps), len(columns))
    kept = max(1, min(most, fitting[-1] if fitting else 1))
    _print_head(console, columns[:kept], widths)
    for row in rows:
        console.print(Text(_line(row[:kept], widths), overflow="fold"))
        rest = [
            f"{column.title}: {cell}"
            for column, cell in zip(columns[kept:], row[kept:], strict=True)
            if cell not in ("", NOTHING, column.usual)
        ]
        if rest:
            console.print(Padding(Text(", ".join(rest), style="dim", overflow="fold"), (0, 0, 0, 4)))


def _print_head(console: Console, columns: Sequence[Column], widths: Sequence[int]) -> None:
    titles = [column.title for column in columns]
    console.print(Text(_line(titles, widths), style="bold", overflow="fold"))


def print_entries(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """As `print_table`, for rows whose last cell is long: on a terminal it stands below the others."""
    rows = [[visible(cell) for cell in row] for row in rows]
    console = Console()
    if not console.is_terminal:
        _print_lines(columns, rows)
        return
    titles = [column.title for column in columns[:-1]]
    widths = [max(map(cell_len, cells)) for cells in zip(titles, *(row[:-1] for row in rows), strict=True)]
    _print_head(console, columns[:-1], widths)
    for row in rows:
        console.print(Text(_line(row[:-1], widths), overflow="fold"))
        if row[-1]:
            console.print(Padding(Text(row[-1], style="dim", overflow="fold"), (0, 0, 0, 4)))


def _print_lines(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    for cells in ([column.title for column in columns], *rows):
        typer.echo("\t".join(cells))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=False)).rstrip()


def print_record(fields: Iterable[tuple[str, str]]) -> None:
    """One thing with all that is known of it: a line a field."""
    lines = [(name, visible(value)) for name, value in fields]
    console = Console()
    if not console.is_terminal:
        for name, value in lines:
            typer.echo(f"{name}\t{value}")
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, value in lines:
        table.add_row(Text(name), Text(value, overflow="fold"))
    console.print(table)


def print_json(value: Any) -> None:
    """Indented JSON; what a terminal would act upon is escaped."""
    text = msgspec.json.format(_ENCODER.encode(value)).decode()
    typer.echo("".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text))


def money(micro: int, currency: str) -> str:
    """`12.50 EUR`, or `12,50 EUR` in German, with as many digits as the amount has, two at least."""
    return f"{number(Decimal(micro) / MICRO)} {currency}"


def number(value: Decimal) -> str:
    """With two decimal places at least and the decimal sign of the language."""
    digits = f"{value:f}"
    whole, _, fraction = digits.partition(".")
    comma = "," if language(os.environ) == "de" else "."
    return whole + comma + fraction.rstrip("0").ljust(2, "0")


def units(micro: int) -> Decimal:
    """Micro units as an exact number of currency units, for JSON."""
    return Decimal(micro) / MICRO


def moment(at: float | None) -> datetime | None:
    """For JSON: RFC 3339 in UTC, whole seconds."""
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(microsecond=0)


def local_date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d}"


def local_time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M}"


def utc_time(at: float) -> str:
    """For what counts from a moment that was stated in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _escaped(letter: str) -> str:
    units_of_utf16 = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units_of_utf16[i]:02x}{units_of_utf16[i + 1]:02x}" for i in range(0, len(units_of_utf16), 2))
