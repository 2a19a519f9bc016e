"""Brings the database file to the schema that this code knows, by Alembic revisions.

Alembic takes a fifth of a second and eleven megabytes to import, so it is imported only when there is a revision to
run. A new database is made from `migrations/sqlite.sql`, which holds what all revisions together leave behind; a test
compares the two.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from stellwerk.storage.failures import (
    DatabaseCorrupt,
    DatabaseTooNew,
    MigrationFailed,
    is_corruption,
)
from stellwerk.storage.folder import FolderLock, sync_folder
from stellwerk.storage.sqlite import connect, make_engine

NEW_DATABASE = "sqlite.sql"
_SCHEMA_LOCK = "schema.lock"


class Schema(msgspec.Struct, frozen=True):
    """A folder of Alembic revisions, numbered in order with four digits, and the newest of them."""

    head: str
    folder: Path


SCHEMA = Schema(head="0010", folder=Path(__file__).parent / "migrations")
"""What this code works with."""


def ensure_schema(path: Path, *, owner: bool, schema: Schema = SCHEMA) -> None:
    """Creates the database or migrates it to the newest schema; does nothing, cheaply, when it is there already.

    `owner` says that this process holds the lock of the folder. Without it an existing database is migrated only when
    no gateway runs on it. Raises StorageRefused.
    """
    if read_version(path, schema) == schema.head:
        return
    with FolderLock(path.parent, _SCHEMA_LOCK, wait=True):
        # Another process may have done it while this one waited.
        version = read_version(path, schema)
        if version is None:
            _create(path, schema)
        elif version != schema.head:
            with contextlib.nullcontext() if owner else FolderLock(path.parent):
                _back_up(path, version)
                _upgrade(path, schema, version)


def read_version(path: Path, schema: Schema = SCHEMA) -> str | None:
    """The revision of an existing database, None when there is no file."""
    if not path.exists():
        return None
    if path.stat().st_size == 0:
        raise _corrupt(path, "it is empty")
    try:
        with contextlib.closing(connect(path)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        if is_corruption(error):
            raise _corrupt(path, str(error)) from error
        if "no such table" in str(error):
            raise _corrupt(path, "it has no schema version, so it is not one of Stellwerk's") from error
        raise DatabaseCorrupt(f"The database {path} cannot be opened: {error}.") from error
    if row is None:
        raise _corrupt(path, "its schema version is missing")
    version = str(row[0])
    if version > schema.head:
        raise DatabaseTooNew(
            f"The database {path} was written by a newer Stellwerk (schema {version}, this one knows {schema.head}). "
            "Install that version again, or restore the backup that was made before the upgrade."
        )
    return version


def check_integrity(path: Path, *, up_to_bytes: int) -> None:
    """Reads the whole file, unless it is larger than that. Raises DatabaseCorrupt."""
    if path.stat().st_size > up_to_bytes:
        return
    try:
        with contextlib.closing(connect(path)) as connection:
            finding = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if not is_corruption(error):
            raise DatabaseCorrupt(f"The database {path} cannot be read: {error}.") from error
        finding = str(error)
    if finding != "ok":
        raise _corrupt(path, finding.replace("\n", " "))


def _corrupt(path: Path, finding: str) -> DatabaseCorrupt:
    return DatabaseCorrupt(
        f"The database {path} is damaged ({finding}). Put a backup of that file in its place, together with no "
        f"{path.name}-wal and {path.name}-shm, or move it away to begin with an empty one."
    )


def _create(path: Path, schema: Schema) -> None:
    # Built under another name: a process killed here leaves no half-made database behind.
    fresh = path.with_name(f"{path.name}.new")
    for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    script = schema.folder / NEW_DATABASE
    if script.exists():
        with contextlib.closing(connect(fresh)) as connection:
            connection.executescript(f"BEGIN;\n{script.read_text('utf-8')}\nCOMMIT;")
    else:
        _upgrade(fresh, schema, None)
    fresh.rename(path)
    sync_folder(path.parent)


def _back_up(path: Path, version: str) -> None:
    """Copies the database as it is, with what still stands in the write-ahead log; one copy a schema version."""
    fresh = path.with_name(f"{path.name}.backup.new")
    try:
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(connect(path)) as source, contextlib.closing(sqlite3.connect(fresh)) as copy:
            source.backup(copy)
        fresh.rename(path.with_name(f"{path.name}.schema-{version}.backup"))
    except (sqlite3.Error, OSError) as error:
        raise MigrationFailed(f"The database {path} cannot be copied before its upgrade: {error}.") from error
    sync_folder(path.parent)


def _upgrade(path: Path, schema: Schema, version: str | None) -> None:
    engine = make_engine(path, immediate=True, foreign_keys=False)
    try:
        with engine.begin() as connection:
            run_revisions(connection, schema)
    except Exception as error:
        # Whatever a revision raised: the transaction is rolled back, and the operator learns which file and why.
        state = "is as it was before" if version else "was not made"
        raise MigrationFailed(
            f"The database {path} cannot be brought to schema {schema.head} and {state}: {error}."
        ) from error
    finally:
        engine.dispose()


def write_new_database_script(path: Path, schema: Schema = SCHEMA) -> str:
    """The SQL that makes a database as the revisions do; `path` is where they make one for it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _upgrade(path, schema, None)
    with contextlib.closing(connect(path)) as connection:
        rows = connection.execute(
            # SQLite makes its own table for numbers that are never given twice.
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'sqlite_sequence' "
            "ORDER BY type <> 'table', iif(type = 'table', rowid, 0), type, name"
        ).fetchall()
    statements = [f"{row[0]};" for row in rows]
    statements.append(f"INSERT INTO alembic_version (version_num) VALUES ('{schema.head}');")  # noqa: S608  # our own
    return "\n".join(statements) + "\n"


def run_revisions(connection: Connection, schema: Schema = SCHEMA) -> None:
    """Runs the revisions that are missing in the transaction of `connection`."""
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    settings = Config()
    settings.set_main_option("script_location", str(schema.folder).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = connection
    command.upgrade(settings, schema.head)
