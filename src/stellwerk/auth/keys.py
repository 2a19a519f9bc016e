"""The table of API keys. A key never comes back and is never deleted: it is revoked, and its row stays for reports."""

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
    LargeBinary,
    Row,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from stellwerk.auth.tokens import PREFIX, Digest, new_token
from stellwerk.core.principal import Role
from stellwerk.core.secrets import Secret
from stellwerk.storage.tables import metadata

MOST_KEYS = 200_000
"""Rows of the table. Every process keeps all of them in memory."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(10), primary_key=True),
    # Rises with every change of any row, so that a reader asks only for what it has not seen.
    Column("revision", BigInteger, nullable=False),
    Column("name", String(100), nullable=False),
    Column("role", String(10), nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("requests_per_minute", Integer),
    Column("concurrent_requests", Integer),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("last_four", String(4), nullable=False),
    Index(None, "revision"),
)


class KeyLimit(ValueError):
    """The table of keys is full."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is made from. Times are Unix seconds, None is unlimited or the configured limit."""

    name: str
    role: Role = Role.USER
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    expires_at: float | None = None


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key."""

    id: str
    revision: int
    name: str
    role: Role
    models: frozenset[str] | None
    requests_per_minute: int | None
    concurrent_requests: int | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    digest: bytes
    last_four: str

    @property
    def hint(self) -> str:
        """How the key is shown once it cannot be shown any more."""
        return f"{PREFIX}…{self.last_four}"

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


_FIELDS = KeyRecord.__struct_fields__
_records = select(*(api_keys.c[field] for field in _FIELDS))


def create_key(
    connection: Connection, key: NewKey, digest: Digest, *, now: float, most: int = MOST_KEYS
) -> tuple[KeyRecord, Secret]:
    """Makes and stores a key. Its text is returned here and never again. Raises KeyLimit."""
    if (connection.scalar(select(func.count()).select_from(api_keys)) or 0) >= most:
        raise KeyLimit(f"There are {most} keys already.")
    key_id, token = new_token()
    text = token.reveal()
    record = KeyRecord(
        id=key_id,
        revision=_next_revision(connection),
        name=key.name,
        role=key.role,
        models=key.models,
        requests_per_minute=key.requests_per_minute,
        concurrent_requests=key.concurrent_requests,
        created_at=now,
        expires_at=key.expires_at,
        revoked_at=None,
        digest=digest(text.encode()),
        last_four=text[-4:],
    )
    values = msgspec.structs.asdict(record)
    values["models"] = None if key.models is None else sorted(key.models)
    values["role"] = str(key.role)
    connection.execute(insert(api_keys).values(values))
    return record, token


def revoke_key(connection: Connection, key_id: str, *, now: float) -> bool:
    """Ends a key for good. False when there is no such key or it was revoked before."""
    statement = (
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now, revision=_next_revision(connection))
    )
    return connection.execute(statement).rowcount > 0


def list_keys(connection: Connection) -> list[KeyRecord]:
    """All keys, oldest first."""
    return [_record(row) for row in connection.execute(_records.order_by(api_keys.c.created_at, api_keys.c.id))]


def changed_keys(connection: Connection, since: int) -> list[KeyRecord]:
    """Keys whose revision is higher than `since`, in the order of their revisions."""
    query = _records.where(api_keys.c.revision > since).order_by(api_keys.c.revision)
    return [_record(row) for row in connection.execute(query)]


def has_keys(connection: Connection, role: Role | None = None) -> bool:
    """Whether any key was ever made, or any of that role."""
    query = select(api_keys.c.id).limit(1)
    if role is not None:
        query = query.where(api_keys.c.role == str(role))
    return connection.scalar(query) is not None


def _next_revision(connection: Connection) -> int:
    return (connection.scalar(select(func.max(api_keys.c.revision))) or 0) + 1


def _record(row: Row[Any]) -> KeyRecord:
    return msgspec.convert(dict(zip(_FIELDS, row, strict=True)), KeyRecord)
