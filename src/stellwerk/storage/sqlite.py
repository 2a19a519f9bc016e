"""How SQLite is opened: the one place that knows its settings."""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, Pool, QueuePool, create_engine, event

BUSY_SECONDS = 5.0
"""How long a statement waits for another process that writes."""

_WAL_BYTES = 64 * 1024 * 1024


def connect(
    path: Path, *, foreign_keys: bool = True, read_only: bool = False, busy_seconds: float = BUSY_SECONDS
) -> sqlite3.Connection:
    """A connection in autocommit mode, so that only explicit BEGINs open transactions. It never creates the file."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}",
            "PRAGMA trusted_schema=OFF",
            "PRAGMA secure_delete=ON",
            f"PRAGMA journal_size_limit={_WAL_BYTES}",
            f"PRAGMA query_only={'ON' if read_only else 'OFF'}",
        ):
            connection.execute(statement).close()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def make_engine(
    path: Path, *, immediate: bool, foreign_keys: bool = True, busy_seconds: float = BUSY_SECONDS
) -> Engine:
    """An engine for writing (`immediate`: takes the write lock when a transaction begins) or for reading only."""
    pool: type[Pool] = NullPool if immediate else QueuePool
    engine = create_engine(
        "sqlite+pysqlite://",
        creator=lambda: connect(path, foreign_keys=foreign_keys, read_only=not immediate, busy_seconds=busy_seconds),
        poolclass=pool,
        # Parameters hold digests and names; an error's text may be logged.
        hide_parameters=True,
    )
    # A transaction that begins by reading and writes later cannot wait for the lock: it would have to start again.
    begin = "BEGIN IMMEDIATE" if immediate else "BEGIN"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
