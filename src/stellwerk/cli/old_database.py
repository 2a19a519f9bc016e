"""The SQLite file of another program: opened for reading only, and read row by row, since nothing in it is certain."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from stellwerk.cli.tables import Wording

MOST_ROWS = 1_000_000
"""Read of one table; what comes after them is counted only."""

BUSY_SECONDS = 5.0
"""How long a statement waits for the program that writes to the file."""

_MOST_BYTES = 1 << 20
"""Of one row."""
_MAGIC = b"SQLite format 3\x00"
_WAL_VERSION = 2
_LATEST = 253_402_300_799
"""Seconds of the last moment that has a date."""

TEXTS = {
    "no_file": {"en": "There is no file {file}.", "de": "Eine Datei {file} gibt es nicht."},
    "unreadable": {"en": "{file} cannot be read.", "de": "{file} lässt sich nicht lesen."},
    "no_database": {"en": "{file} is no SQLite database.", "de": "{file} ist keine SQLite-Datenbank."},
    "unfinished": {
        "en": "{file} was not closed properly or is in use. Stop its program, or start and stop it once.",
        "de": "{file} wurde nicht ordentlich geschlossen oder ist in Gebrauch. Das zugehörige Programm beenden, "
        "oder es einmal starten und beenden.",
    },
    "damaged": {"en": "The table {table} is damaged.", "de": "Die Tabelle {table} ist beschädigt."},
}
text = Wording(TEXTS)


class OldRow(msgspec.Struct, frozen=True):
    """One row by its place in the table; `values` None when it is damaged or larger than a row can be."""

    number: int
    values: Mapping[str, Any] | None


class OldTable(msgspec.Struct, frozen=True):
    name: str
    numbers: Sequence[int]
    columns: tuple[str, ...]
    left_out: int
    """Rows beyond the bound."""


class OldDatabase:
    """Made by `opened`; a table is looked for by its name in any case."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def table(self, name: str, columns: Sequence[str], most: int = MOST_ROWS) -> OldTable | None:
        """What there is to read of these columns; None when there is no such table, or no way to read it row by row.

        Ends the command when the table is damaged.
        """
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)"
        try:
            found = self._connection.execute(query, (name,)).fetchone()
            if found is None:
                return None
            present = {
                row[0].lower() for row in self._connection.execute("SELECT name FROM pragma_table_info(?)", found)
            }
            table = _quoted(found[0])
            query = f"SELECT rowid FROM {table} ORDER BY rowid LIMIT {most}"  # noqa: S608  # quoted
            numbers = [row[0] for row in self._connection.execute(query)]
            left_out = 0
            if len(numbers) == most:
                left_out = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] - most  # noqa: S608
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return None
        except sqlite3.DatabaseError:
            text.fail("damaged", table=name)
        known = tuple(column for column in columns if column.lower() in present)
        return OldTable(name, numbers, known, max(left_out, 0))

    def rows(self, table: OldTable) -> Iterator[OldRow]:
        """Each row with the columns that the table has; one that has gone meanwhile is left out."""
        columns = ", ".join(map(_quoted, table.columns))
        query = f"SELECT {columns} FROM {_quoted(table.name)} WHERE rowid = ?"  # noqa: S608  # quoted above
        for number in table.numbers:
            try:
                found = self._connection.execute(query, (number,)).fetchone()
            except sqlite3.DatabaseError:
                yield OldRow(number, None)
            else:
                if found is not None:
                    yield OldRow(number, dict(zip(table.columns, found, strict=True)))


@contextlib.contextmanager
def opened(file: Path, *, busy_seconds: float = BUSY_SECONDS) -> Iterator[OldDatabase]:
    """Opens the file without changing it or anything beside it; ends the command with a sentence where it cannot."""
    try:
        connection = _connect(file, busy_seconds)
    except FileNotFoundError:
        text.fail("no_file", file=str(file))
    except OSError:
        text.fail("unreadable", file=str(file))
    except sqlite3.DatabaseError as error:
        text.fail(_fault(error), file=str(file))
    with contextlib.closing(connection):
        try:
            yield OldDatabase(connection)
        except sqlite3.DatabaseError as error:
            text.fail(_fault(error), file=str(file))


def _fault(error: sqlite3.DatabaseError) -> str:
    return "unfinished" if isinstance(error, sqlite3.OperationalError) else "no_database"


def _connect(file: Path, busy_seconds: float) -> sqlite3.Connection:
    if not file.is_file():
        raise FileNotFoundError(file)
    with file.open("rb") as stream:
        head = stream.read(20)
    if len(head) < 20 or not head.startswith(_MAGIC):
        raise sqlite3.DatabaseError
    # A log beside the file holds rows that are not in it yet. Without one nobody writes, and reading must not make one.
    logged = head[18] == _WAL_VERSION or head[19] == _WAL_VERSION
    calm = logged and not Path(f"{file}-wal").exists()
    address = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if calm else ''}"
    connection = sqlite3.connect(address, uri=True, timeout=busy_seconds, isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    # Times are stored as text, and text may be any bytes.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for statement in ("PRAGMA query_only=ON", "PRAGMA trusted_schema=OFF", "PRAGMA cell_size_check=ON"):
        connection.execute(statement).close()
    try:
        # The first look at the file itself.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def read_time(value: Any) -> float | None:
    """Unix seconds of a moment as SQLite and Go write it, UTC unless it says otherwise; None when it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value <= _LATEST else None
    if not isinstance(value, str):
        return None
    # Go writes nine digits of a second, and behind its zone sometimes the zone's name and a monotonic clock.
    words = value.strip()[:64].replace("T", " ", 1).split(" ")
    zone = words[2] if len(words) > 2 and words[2][:1] in ("+", "-") else ""
    try:
        moment = datetime.fromisoformat(" ".join(words[:2]) + zone)
        seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LATEST else None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
