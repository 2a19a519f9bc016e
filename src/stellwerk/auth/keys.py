"""The table of API keys. A key never comes back and is never deleted: it is revoked, and its row stays for reports."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from stellwerk.auth.fields import check_limits, check_models, check_name, fold_limits, limits_to_columns
from stellwerk.auth.networks import parse_networks
from stellwerk.auth.tokens import PREFIX, Digest, find_fault, is_foreign_id, new_foreign_id, new_token
from stellwerk.auth.users import UserRecord, built_in_user, find_user
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.principal import Allowance, Budget, Priority, Role
from stellwerk.core.secrets import Secret
from stellwerk.storage.tables import metadata

MOST_KEYS = 200_000
"""Rows of the table. Every process keeps all of them in memory."""

MOST_KEYS_OF_USER = 100
"""Active keys of one person. The built-in accounts own what belongs to nobody, and only the table bounds that."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(10), primary_key=True),
    # Rises with every change of any row, so that a reader asks only for what it has not seen.
    Column("revision", BigInteger, nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("name", String(100), nullable=False),
    # The most that the key may be; its user may be less.
    Column("role", String(10), nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("networks", JSON(none_as_null=True)),
    Column("priority", String(6), nullable=False),
    Column("requests_per_minute", Integer),
    Column("burst", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", Integer),
    Column("budget", BigInteger),
    Column("budget_window", String(5)),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("last_four", String(4), nullable=False),
    Index(None, "revision"),
    Index(None, "user_id"),
)


class KeyLimit(BadRequest):
    """There is no room for another key: in the table, or among those of the user."""

    code = "too_many_keys"


class WeakKeyRefused(BadRequest):
    """A key that was made elsewhere can be guessed or is no key at all; the message never repeats it."""

    code = "weak_key"


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is made from. Times are Unix seconds; `models` and `networks` None allow all."""

    name: str
    user_id: int | None = None
    """Whose it is; None is the built-in account that fits the role."""
    role: Role = Role.USER
    models: frozenset[str] | None = None
    networks: tuple[str, ...] | None = None
    """Addresses and CIDR ranges that it may be used from."""
    priority: Priority = Priority.HIGH
    allowance: Allowance = Allowance()
    budget: Budget | None = None
    expires_at: float | None = None


class KeyChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different; what is not set stays."""

    name: str | UnsetType = UNSET
    models: frozenset[str] | UnsetType | None = UNSET
    networks: tuple[str, ...] | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    allowance: Allowance | UnsetType = UNSET
    budget: Budget | UnsetType | None = UNSET
    expires_at: float | UnsetType | None = UNSET


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key. Its `role` is a ceiling: its user may be less."""

    id: str
    revision: int
    user_id: int
    name: str
    role: Role
    models: frozenset[str] | None
    networks: tuple[str, ...] | None
    priority: Priority
    allowance: Allowance
    budget: Budget | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    digest: bytes
    last_four: str

    @property
    def hint(self) -> str:
        """How the key is shown once it cannot be shown any more."""
        return f"{'' if is_foreign_id(self.id) else PREFIX}…{self.last_four}"

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


_STORED = tuple(str(column.name) for column in api_keys.c)
_records = select(api_keys)


def create_key(
    connection: Connection, key: NewKey, digest: Digest, *, now: float, most: int = MOST_KEYS
) -> tuple[KeyRecord, Secret]:
    """Makes and stores a key. Its text is returned here and never again.

    Raises KeyLimit, BadRequest naming the field that cannot be so, and NotFound for a user who is disabled or unknown.
    """
    fields = _fields(connection, key, now, most)
    key_id, token = new_token()
    return _store(connection, fields, key_id, token, digest, created_at=now), token


def import_key(
    connection: Connection,
    key: NewKey,
    token: Secret,
    digest: Digest,
    *,
    created_at: float,
    now: float,
    most: int = MOST_KEYS,
) -> tuple[KeyRecord, bool]:
    """Stores a key whose text was made elsewhere. Returns it and whether it is new: one that is there already stays as
    it is.

    Raises as `create_key` does, and WeakKeyRefused.
    """
    fault = find_fault(token)
    if fault is not None:
        raise WeakKeyRefused(f"The key is not taken: it is {fault}.", param=str(fault))
    known = connection.execute(_records.where(api_keys.c.digest == digest(token.reveal().encode()))).one_or_none()
    if known is not None:
        return _record(known), False
    fields = _fields(connection, key, now, most)
    return _store(connection, fields, new_foreign_id(), token, digest, created_at=min(created_at, now)), True


def change_key(connection: Connection, key_id: str, changes: KeyChanges) -> tuple[KeyRecord, KeyRecord]:
    """Changes what is set and returns the key before and after.

    Raises NotFound, code `key_not_found`, and BadRequest naming the field that cannot be so.
    """
    before = find_key(connection, key_id)
    if before is None:
        raise NotFound("There is no such key.", code="key_not_found")
    fields = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}
    after = msgspec.structs.replace(before, **_checked(fields))
    if after == before:
        return before, before
    after = msgspec.structs.replace(after, revision=_next_revision(connection))
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(_columns(after)))
    return before, after


def revoke_key(connection: Connection, key_id: str, *, now: float) -> bool:
    """Ends a key for good. False when there is no such key or it was revoked before."""
    statement = (
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now, revision=_next_revision(connection))
    )
    return connection.execute(statement).rowcount > 0


def find_key(connection: Connection, key_id: str) -> KeyRecord | None:
    row = connection.execute(_records.where(api_keys.c.id == key_id)).one_or_none()
    return None if row is None else _record(row)


def list_keys(connection: Connection, user_id: int | None = None) -> list[KeyRecord]:
    """All keys, or those of one user, oldest first."""
    query = _records.order_by(api_keys.c.created_at, api_keys.c.id)
    if user_id is not None:
        query = query.where(api_keys.c.user_id == user_id)
    return _read(connection, query)


def key_counts(connection: Connection, *, now: float | None = None) -> dict[int, int]:
    """How many keys each user has that were not revoked and, with `now`, have not expired."""
    query = select(api_keys.c.user_id, func.count()).where(api_keys.c.revoked_at.is_(None))
    if now is not None:
        query = query.where(api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > now))
    return {row[0]: row[1] for row in connection.execute(query.group_by(api_keys.c.user_id))}


def changed_keys(connection: Connection, since: int) -> list[KeyRecord]:
    """Keys whose revision is higher than `since`, in the order of their revisions."""
    return _read(connection, _records.where(api_keys.c.revision > since).order_by(api_keys.c.revision))


def has_keys(connection: Connection, role: Role | None = None) -> bool:
    """Whether any key was ever made, or any of that role."""
    query = select(api_keys.c.id).limit(1)
    if role is not None:
        query = query.where(api_keys.c.role == str(role))
    return connection.scalar(query) is not None


def _fields(connection: Connection, key: NewKey, now: float, most: int) -> dict[str, Any]:
    """What `key` says as it is stored. Raises as `create_key` does."""
    fields = msgspec.structs.asdict(key)
    fields |= _checked(fields)
    owner = _owner(connection, key, now)
    fields["user_id"] = owner.id
    if owner.role is Role.VIEWER and key.role is Role.USER:
        # A plain key of who looks on looks on: the default of this field must not make one that is good for nothing.
        fields["role"] = Role.VIEWER
    elif owner.role is Role.USER and key.role is Role.VIEWER:
        raise BadRequest("A user who may not look on cannot have a key that may.", param="role", code="invalid_role")
    if (connection.scalar(select(func.count()).select_from(api_keys)) or 0) >= most:
        raise KeyLimit(f"There are {most} keys already.")
    return fields


def _store(
    connection: Connection,
    fields: dict[str, Any],
    key_id: str,
    token: Secret,
    digest: Digest,
    *,
    created_at: float,
) -> KeyRecord:
    text = token.reveal()
    record = KeyRecord(
        id=key_id,
        revision=_next_revision(connection),
        created_at=created_at,
        revoked_at=None,
        digest=digest(text.encode()),
        last_four=text[-4:],
        **fields,
    )
    connection.execute(insert(api_keys).values(_columns(record)))
    return record


def _owner(connection: Connection, key: NewKey, now: float) -> UserRecord:
    user_id = key.user_id
    if user_id is None:
        user_id = built_in_user(connection, "local" if key.role is Role.USER else "admin", now=now)
    user = find_user(connection, user_id)
    if user is None or not user.active:
        raise NotFound("There is no such user, or the account is disabled.", code="user_not_found")
    if not user.is_built_in and key_counts(connection, now=now).get(user_id, 0) >= MOST_KEYS_OF_USER:
        raise KeyLimit(f"The user has {MOST_KEYS_OF_USER} keys already. Revoke one that is not needed any more.")
    return user


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they are stored. Raises BadRequest."""
    checked = dict(fields)
    if "name" in fields:
        checked["name"] = check_name(fields["name"])
    if fields.get("models") is not None:
        checked["models"] = check_models(fields["models"])
    if fields.get("networks") is not None:
        checked["networks"] = parse_networks(fields["networks"])
    check_limits(fields.get("allowance", Allowance()), fields.get("budget"))
    return checked


def _columns(record: KeyRecord) -> dict[str, Any]:
    columns = msgspec.structs.asdict(record)
    del columns["allowance"]
    return columns | {
        "role": str(record.role),
        "priority": str(record.priority),
        "models": None if record.models is None else sorted(record.models),
        "networks": None if record.networks is None else list(record.networks),
        **limits_to_columns(record.allowance, record.budget),
    }


def _next_revision(connection: Connection) -> int:
    return (connection.scalar(select(func.max(api_keys.c.revision))) or 0) + 1


def _read(connection: Connection, query: Select[Any]) -> list[KeyRecord]:
    return [_record(row) for row in connection.execute(query)]


def _record(row: Row[Any]) -> KeyRecord:
    return msgspec.convert(fold_limits(dict(zip(_STORED, row, strict=True))), KeyRecord)
