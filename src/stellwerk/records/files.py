"""Files that clients leave here for a while, and those that are made for them; their content is sealed by the caller.

A file lies in parts, so that none has to be held in memory as a whole.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from stellwerk.core.errors import Conflict, NotFound
from stellwerk.storage.tables import metadata, row_number

MOST_FILES = 1_000
MOST_BYTES = 2 * 1024 * 1024 * 1024
"""Of one owner, as the files were before they were sealed."""
PRUNED_AT_ONCE = 20
_LEFTOVER_SECONDS = 24 * 3600.0
"""A file that was not completed by then never will be."""

files = Table(
    "files",
    metadata,
    Column("number", row_number, primary_key=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("key_id", String(64), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("name", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Index(None, "user_id", "number"),
    Index(None, "key_id", "number"),
    Index(None, "expires_at"),
    sqlite_autoincrement=True,
)
file_parts = Table(
    "file_parts",
    metadata,
    Column("file_number", ForeignKey("files.number", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
_files = files.c
_SHOWN = (
    _files.id,
    _files.key_id,
    _files.user_id,
    _files.purpose,
    _files.name,
    _files.size,
    _files.created_at,
    _files.expires_at,
)


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    key_id: str
    user_id: int
    purpose: str
    name: str
    size: int
    created_at: float
    expires_at: float | None


class Whose(msgspec.Struct, frozen=True, kw_only=True):
    """Whose files or batches; empty for everybody's."""

    key_id: str | None = None
    user_id: int | None = None


def create(connection: Connection, file: StoredFile, parts: Sequence[bytes], whose: Whose) -> None:
    """Stores a whole file. Raises Conflict, code `too_many_files`, when its owner has no room for it."""
    of_owner = [_files.complete, *conditions_of(_files, whose)]
    count, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(_files.size), 0)).where(*of_owner)
    ).one()
    if count >= MOST_FILES or size + file.size > MOST_BYTES:
        raise Conflict(
            f"There is room for {MOST_FILES} files with {MOST_BYTES} bytes in all: delete others first.",
            code="too_many_files",
        )
    begin(connection, file)
    for number, content in enumerate(parts):
        append(connection, file.id, number, content)
    complete(connection, file.id, file.size)


def begin(connection: Connection, file: StoredFile) -> None:
    """Opens a file that is written bit by bit; nobody sees it before it is complete. An earlier one goes."""
    delete_file(connection, file.id)
    connection.execute(insert(files).values(complete=False, **msgspec.structs.asdict(file)))


def append(connection: Connection, file_id: str, part: int, content: bytes) -> None:
    number = connection.scalar(select(_files.number).where(_files.id == file_id))
    connection.execute(insert(file_parts).values(file_number=number, part=part, content=content))


def complete(connection: Connection, file_id: str, size: int) -> None:
    connection.execute(update(files).where(_files.id == file_id).values(complete=True, size=size))


def find(connection: Connection, file_id: str) -> StoredFile:
    """Raises NotFound, code `file_not_found`."""
    row = connection.execute(select(*_SHOWN).where(_files.id == file_id, _files.complete)).one_or_none()
    if row is None:
        raise file_not_found()
    return _read(row)


def read_part(connection: Connection, file_id: str, part: int) -> bytes | None:
    """None after the last."""
    query = select(file_parts.c.content).join(files).where(_files.id == file_id, file_parts.c.part == part)
    return connection.scalar(query)


def list_files(
    connection: Connection,
    whose: Whose,
    *,
    purpose: str | None = None,
    after: str | None = None,
    ascending: bool = False,
    limit: int = 100,
) -> list[StoredFile]:
    """Newest first unless `ascending`; `after` is the id of the last one that was seen before."""
    conditions = [_files.complete, *conditions_of(_files, whose)]
    if purpose is not None:
        conditions.append(_files.purpose == purpose)
    if after is not None:
        number = connection.scalar(select(_files.number).where(_files.id == after, *conditions_of(_files, whose)))
        if number is None:
            raise file_not_found()
        conditions.append(_files.number > number if ascending else _files.number < number)
    order = _files.number.asc() if ascending else _files.number.desc()
    rows = connection.execute(select(*_SHOWN).where(*conditions).order_by(order).limit(limit))
    return [_read(row) for row in rows]


def delete_file(connection: Connection, file_id: str) -> bool:
    numbers = select(_files.number).where(_files.id == file_id)
    connection.execute(delete(file_parts).where(file_parts.c.file_number.in_(numbers)))
    return connection.execute(delete(files).where(_files.id == file_id)).rowcount > 0


def prune(connection: Connection, now: float) -> int:
    """Deletes what is kept no longer; none are left when it returns fewer than PRUNED_AT_ONCE."""
    old = or_(_files.expires_at <= now, (_files.created_at < now - _LEFTOVER_SECONDS) & ~_files.complete)
    ids = connection.scalars(select(_files.id).where(old).limit(PRUNED_AT_ONCE)).all()
    for file_id in ids:
        delete_file(connection, file_id)
    return len(ids)


def file_not_found() -> NotFound:
    return NotFound("There is no such file.", code="file_not_found", param="file_id")


def conditions_of(columns: Any, whose: Whose) -> list[Any]:
    found = []
    if whose.key_id is not None:
        found.append(columns.key_id == whose.key_id)
    if whose.user_id is not None:
        found.append(columns.user_id == whose.user_id)
    return found


def _read(row: Any) -> StoredFile:
    return StoredFile(**row._mapping)  # noqa: SLF001 - the public name of a row's columns
