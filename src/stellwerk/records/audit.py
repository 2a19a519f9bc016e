"""Who changed what, when and from where: a chain of records in which none can be altered or left out unseen.

Each record carries a digest over itself and the digest before it. What the chain cannot show is that records were cut
off its end, or that somebody who may write to the database computed all of it anew: who fears that keeps a copy of
`newest` elsewhere.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Double,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    cast,
    insert,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from stellwerk.core.errors import TooLarge
from stellwerk.storage.tables import metadata, row_number

MOST_RECORDS = 1_000
"""In one answer of `read`."""

_START = bytes(32)
_BATCH = 500
_MOST_DETAIL_BYTES = 256 * 1024

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", String(254), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("peer", String(64), nullable=False),
    Column("action", String(60), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("details", JSON(none_as_null=True), nullable=False),
    # SHA-256 over the record before and this one.
    Column("digest", LargeBinary(32), nullable=False),
    Index(None, "at"),
    Index(None, "subject"),
)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a change: the name of a user, or `cli:` and the login name; with which key, and from where."""

    name: str
    key_id: str = ""
    peer: str = ""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `at` is Unix seconds."""

    id: int
    at: float
    actor: str
    key_id: str
    peer: str
    action: str
    subject: str
    details: dict[str, Any]


class Newest(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the chain: whoever keeps it can show later that nothing before it changed."""

    id: int
    digest: bytes


_FIELDS = AuditRecord.__struct_fields__
_records = select(*(audit_log.c[name] for name in _FIELDS))
# As it lies in the file: what somebody altered there need not be of the column's type any more.
_stored = select(
    *(type_coerce(audit_log.c[name], NullType()) for name in _FIELDS if name != "details"),
    cast(audit_log.c.details, Text),
    type_coerce(audit_log.c.digest, NullType()),
)


def append(
    connection: Connection, actor: Actor, action: str, subject: str, details: Mapping[str, Any], *, now: float
) -> None:
    """Records a change in the transaction that makes it, which must hold the write lock so that the chain cannot fork.

    `details` are plain facts that JSON can hold. Raises TypeError for secrets and bytes, ValueError for numbers that
    are none, and TooLarge.
    """
    facts = _plain(details)
    before = newest(connection)
    record = AuditRecord(
        id=before.id + 1 if before else 1,
        at=float(now),
        actor=actor.name[:254],
        key_id=actor.key_id[:64],
        peer=actor.peer[:64],
        action=action[:60],
        subject=subject[:300],
        details=facts,
    )
    digest = _digest(before.digest if before else _START, msgspec.structs.astuple(record))
    connection.execute(insert(audit_log).values({**msgspec.structs.asdict(record), "digest": digest}))


def read(
    connection: Connection, *, limit: int, before: int | None = None, subject: str | None = None
) -> list[AuditRecord]:
    """The newest records first, `limit` of them and never more than MOST_RECORDS, all with ids below `before`."""
    query = _records.order_by(audit_log.c.id.desc()).limit(max(0, min(limit, MOST_RECORDS)))
    if before is not None:
        query = query.where(audit_log.c.id < before)
    if subject is not None:
        query = query.where(audit_log.c.subject == subject)
    return [AuditRecord(**row) for row in connection.execute(query).mappings()]


def newest(connection: Connection) -> Newest | None:
    """The end of the chain; None before the first record."""
    query = select(audit_log.c.id, audit_log.c.digest).order_by(audit_log.c.id.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else Newest(id=row.id, digest=row.digest)


def verify(connection: Connection, *, known: Newest | None = None) -> int | None:
    """Id of the first record that breaks the chain, None when it is whole.

    With `known`, an end that was noted earlier, records that are missing at the end break it too.
    """
    query = _stored.order_by(audit_log.c.id).limit(_BATCH)
    digest, last, noted = _START, 0, known is None
    while rows := connection.execute(query.where(audit_log.c.id > last)).all():
        for *facts, details, stored in rows:
            last += 1
            expected = _recompute(digest, facts, details)
            if expected is None or facts[0] != last or stored != expected:
                return last
            if known is not None and known.id == last:
                if known.digest != expected:
                    return last
                noted = True
            digest = expected
    return None if noted else last + 1


def _recompute(before: bytes, facts: list[Any], details: str) -> bytes | None:
    try:
        return _digest(before, (*facts, json.loads(details)))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def _digest(before: bytes, record: tuple[Any, ...]) -> bytes:
    # MessagePack carries every length and type with it: no two records have the same bytes.
    return hashlib.sha256(before + msgspec.msgpack.encode(record, order="deterministic")).digest()


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as they come back from the database. Bytes are refused with the secrets: here they are digests."""
    facts = msgspec.to_builtins(
        dict(details), order="deterministic", str_keys=True, builtin_types=(bytes, bytearray, memoryview)
    )
    text = json.dumps(facts, allow_nan=False)
    if len(text) > _MOST_DETAIL_BYTES:
        raise TooLarge("The change is too large to be recorded.", code="change_too_large")
    plain: dict[str, Any] = json.loads(text)
    return plain
