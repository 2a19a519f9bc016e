"""Batches: many requests in one file, answered within a day. What becomes of each stands with its job."""

from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from stellwerk.core.errors import NotFound
from stellwerk.records.files import Whose, conditions_of
from stellwerk.storage.tables import metadata, row_number

MOST_OPEN = 20
"""Of one owner."""
KEPT_SECONDS = 30 * 24 * 3600.0

batches = Table(
    "batches",
    metadata,
    Column("number", row_number, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("job_id", String(36), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("endpoint", String(40), nullable=False),
    Column("input_file_id", String(40), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("cancelling_at", Double),
    Column("ended_at", Double),
    # Null as long as its jobs say how it stands.
    Column("status", String(11)),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("errors", JSON(none_as_null=True)),
    Column("output_file_id", String(40)),
    Column("error_file_id", String(40)),
    Index(None, "user_id", "number"),
    Index(None, "key_id", "number"),
    Index(None, "ended_at"),
    sqlite_autoincrement=True,
)
_batches = batches.c
_SHOWN = tuple(column for column in batches.columns if column.name != "number")


class StoredBatch(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    job_id: str
    key_id: str
    user_id: int
    endpoint: str
    input_file_id: str
    labels: dict[str, str] | None
    """The client's metadata."""
    created_at: float
    expires_at: float
    cancelling_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    """completed, failed, expired or cancelled; None as long as it goes on."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] | None = None
    """What is wrong with the input file."""
    output_file_id: str | None = None
    error_file_id: str | None = None


def ensure(connection: Connection, batch: StoredBatch) -> StoredBatch:
    """The stored one of this id; makes it when there is none."""
    known = _find(connection, batch.id)
    if known is None:
        connection.execute(insert(batches).values(**msgspec.structs.asdict(batch)))
    return known or batch


def change(connection: Connection, batch_id: str, **columns: Any) -> None:
    """Of a batch that goes on; an ended one stays as it is."""
    connection.execute(update(batches).where(_batches.id == batch_id, _batches.status.is_(None)).values(**columns))


def find(connection: Connection, batch_id: str) -> StoredBatch:
    """Raises NotFound, code `batch_not_found`."""
    batch = _find(connection, batch_id)
    if batch is None:
        raise batch_not_found()
    return batch


def list_batches(
    connection: Connection, whose: Whose, *, after: str | None = None, limit: int = 20
) -> list[StoredBatch]:
    """Newest first; `after` is the id of the last one that was seen before."""
    conditions = conditions_of(_batches, whose)
    if after is not None:
        number = connection.scalar(select(_batches.number).where(_batches.id == after, *conditions_of(_batches, whose)))
        if number is None:
            raise batch_not_found()
        conditions.append(_batches.number < number)
    query = select(*_SHOWN).where(*conditions).order_by(_batches.number.desc()).limit(limit)
    return [_read(row) for row in connection.execute(query)]


def count_open(connection: Connection, whose: Whose) -> int:
    query = select(func.count()).where(_batches.status.is_(None), *conditions_of(_batches, whose))
    return connection.scalar(query) or 0


def prune(connection: Connection, now: float) -> int:
    """Forgets batches that ended long ago."""
    return connection.execute(delete(batches).where(_batches.ended_at < now - KEPT_SECONDS)).rowcount


def batch_not_found() -> NotFound:
    return NotFound("There is no such batch.", code="batch_not_found", param="batch_id")


def _find(connection: Connection, batch_id: str) -> StoredBatch | None:
    row = connection.execute(select(*_SHOWN).where(_batches.id == batch_id)).one_or_none()
    return None if row is None else _read(row)


def _read(row: Any) -> StoredBatch:
    return StoredBatch(**row._mapping)  # noqa: SLF001 - the public name of a row's columns
