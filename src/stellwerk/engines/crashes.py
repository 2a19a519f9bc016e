"""What is remembered of engines that crashed: the newest 1000 cases, in the database."""

import logging
import signal
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeAlias

import msgspec
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)

from stellwerk.storage.tables import metadata, row_number

log = logging.getLogger("stellwerk.engines")

MOST_CRASHES = 1000
MOST_LINES = 20
MOST_REQUESTS = 64

engine_crashes = Table(
    "engine_crashes",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("at", Double, nullable=False),
    Column("model", Text, nullable=False),
    Column("engine", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("exit_code", Integer),
    Column("signal", String(32)),
    Column("memory_mib", Double),
    Column("uptime", Double, nullable=False),
    Column("had_served", Boolean, nullable=False),
    Column("last_lines", JSON, nullable=False),
    Column("request_ids", JSON, nullable=False),
    sqlite_autoincrement=True,
)

Submit: TypeAlias = Callable[[Callable[[Connection], object]], Future[object]]


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """One end of an engine that nobody wanted. Holds no path, no key and no prompt; for operators all the same."""

    at: float
    """Unix seconds."""
    model: str
    engine: str
    reason: str
    exit_code: int | None = None
    """None when a signal ended it, or when it was we who had to."""
    signal: str | None = None
    """Such as `SIGSEGV`, when that came from elsewhere."""
    memory_mib: float | None = None
    """At the last look before, with files that it had mapped."""
    uptime: float
    """Seconds since its process was started."""
    had_served: bool
    """False for one that never became ready."""
    last_lines: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()
    """Requests that were running on it."""


def split_status(status: int | None) -> tuple[int | None, str | None]:
    """Exit code and signal of a process status, of which a negative one tells a signal."""
    if status is None or status >= 0:
        return status, None
    try:
        return None, signal.Signals(-status).name
    except ValueError:
        return None, f"signal {-status}"


def add_crash(connection: Connection, crash: Crash) -> None:
    """Stores it and forgets the oldest beyond the bound."""
    connection.execute(insert(engine_crashes).values(msgspec.to_builtins(crash)))
    newest = select(func.max(engine_crashes.c.id)).scalar_subquery()
    connection.execute(delete(engine_crashes).where(engine_crashes.c.id <= newest - MOST_CRASHES))


def list_crashes(connection: Connection, *, model: str | None = None, limit: int = 100) -> list[Crash]:
    """The newest first."""
    query = select(engine_crashes).order_by(engine_crashes.c.id.desc()).limit(min(limit, MOST_CRASHES))
    if model is not None:
        query = query.where(engine_crashes.c.model == model)
    return [msgspec.convert(row, Crash, from_attributes=True) for row in connection.execute(query)]


def crash_recorder(submit: Submit) -> Callable[[Crash], None]:
    """Stores what it is told through a writer's `submit`; neither waits nor raises."""

    def record(crash: Crash) -> None:
        submit(partial(add_crash, crash=crash)).add_done_callback(_log_failure)

    return record


def _log_failure(future: Future[object]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("the crash of an engine could not be recorded: %s", error)
