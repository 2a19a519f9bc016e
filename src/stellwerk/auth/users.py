"""The people: who may come in, as what, and how much. Nobody is deleted, because money and records refer to them."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from stellwerk.auth.fields import LONGEST_NAME, check_limits, check_models, fold_limits, limits_to_columns
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.principal import Allowance, Budget, Role, Tier
from stellwerk.storage.tables import metadata, row_number

MOST_USERS = 100_000
"""Rows of the table. Every process keeps all of them in memory."""

LONGEST_EMAIL = 254

BuiltIn = Literal["admin", "local"]

_BUILT_IN: dict[str, Role] = {"admin": Role.ADMIN, "local": Role.USER}
# What has a meaning of its own around an address in the header of a mail.
_NEVER_IN_EMAIL = frozenset('<>()[]\\,;:"')

users = Table(
    "users",
    metadata,
    Column("id", row_number, primary_key=True),
    # Rises with every change of any row, so that a reader asks only for what it has not seen.
    Column("revision", BigInteger, nullable=False),
    # In lower case; two built-in accounts are called `admin` and `local`.
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("role", String(10), nullable=False),
    Column("tier", String(10), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("password", String(200)),
    Column("password_changed_at", Double),
    Column("created_at", Double, nullable=False),
    Column("models", JSON(none_as_null=True)),
    Column("requests_per_minute", Integer),
    Column("burst", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", Integer),
    Column("budget", BigInteger),
    Column("budget_window", String(5)),
    Index(None, "revision"),
    # A number that was somebody's is never somebody else's.
    sqlite_autoincrement=True,
)


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    """What a user is made from. `models` None allows all."""

    email: str
    name: str = ""
    role: Role = Role.USER
    tier: Tier = Tier.PAYG
    models: frozenset[str] | None = None
    allowance: Allowance = Allowance()
    budget: Budget | None = None


class UserChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different; what is not set stays."""

    email: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    tier: Tier | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    models: frozenset[str] | UnsetType | None = UNSET
    allowance: Allowance | UnsetType = UNSET
    budget: Budget | UnsetType | None = UNSET


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored user; `created_at` in Unix seconds."""

    id: int
    revision: int
    email: str
    name: str
    role: Role
    tier: Tier
    active: bool
    has_password: bool
    created_at: float
    models: frozenset[str] | None
    allowance: Allowance
    budget: Budget | None

    @property
    def is_built_in(self) -> bool:
        return self.email in _BUILT_IN


_STORED = tuple(str(column.name) for column in users.c if column.name not in {"password", "password_changed_at"})
_records: Select[Any] = select(*(users.c[name] for name in _STORED), users.c.password.is_not(None))


def check_email(text: str) -> str:
    """The address trimmed and in lower case. Raises BadRequest, code `invalid_email`, when it cannot be one."""
    email = text.strip().lower()
    local, _, domain = email.partition("@")
    if (
        not local
        or not domain
        or "@" in domain
        or len(email) > LONGEST_EMAIL
        or not email.isprintable()
        or " " in email
        or not _NEVER_IN_EMAIL.isdisjoint(email)
    ):
        raise BadRequest("This is not an e-mail address.", param="email", code="invalid_email")
    return email


def role_for_tier(tier: Tier, role: Role | None, before: Role | None) -> Role:
    """The role of whoever gets this tier: `role` where it is named, else `admin` follows the tier of that name."""
    if role is not None:
        return role
    if tier is Tier.ADMIN:
        return Role.ADMIN
    return Role.USER if before is None or before is Role.ADMIN else before


def create_user(connection: Connection, user: NewUser, *, now: float, most: int = MOST_USERS) -> UserRecord:
    """Raises BadRequest: `email_taken`, `too_many_users`, or naming the field that cannot be so."""
    checked = msgspec.structs.asdict(user) | _checked(msgspec.structs.asdict(user))
    _refuse_taken(connection, checked["email"])
    if (connection.scalar(select(func.count()).select_from(users)) or 0) >= most:
        raise BadRequest(f"There are {most} users already.", code="too_many_users")
    return _insert(connection, now, checked)


def change_user(connection: Connection, user_id: int, changes: UserChanges) -> tuple[UserRecord, UserRecord]:
    """Changes what is set and returns the user before and after.

    Raises NotFound, code `user_not_found`, and BadRequest: `email_taken`, `built_in_account`, or naming the field.
    """
    before = find_user(connection, user_id)
    if before is None:
        raise unknown_user()
    fields = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}
    if before.is_built_in:
        _protect_built_in(before, fields)
    after = msgspec.structs.replace(before, **_checked(fields))
    if after == before:
        return before, before
    if after.email != before.email:
        _refuse_taken(connection, after.email)
    after = msgspec.structs.replace(after, revision=_next_revision(connection))
    connection.execute(update(users).where(users.c.id == user_id).values(_columns(after)))
    return before, after


def find_user(connection: Connection, user_id: int) -> UserRecord | None:
    return _one(connection, _records.where(users.c.id == user_id))


def find_user_by_email(connection: Connection, email: str) -> UserRecord | None:
    """Blanks around the address and its case do not matter."""
    return _one(connection, _records.where(users.c.email == email.strip().lower()))


def find_users_by_name(connection: Connection, name: str) -> list[UserRecord]:
    """Those with a password who are called exactly so, two at most; only they can log in by it."""
    query = _records.where(users.c.name == name, users.c.password.is_not(None)).order_by(users.c.id).limit(2)
    return [_record(row) for row in connection.execute(query)]


def list_users(connection: Connection) -> list[UserRecord]:
    """Everybody, newest first."""
    return [_record(row) for row in connection.execute(_records.order_by(users.c.id.desc()))]


def changed_users(connection: Connection, since: int) -> list[UserRecord]:
    """Users whose revision is higher than `since`, in the order of their revisions."""
    query = _records.where(users.c.revision > since).order_by(users.c.revision)
    return [_record(row) for row in connection.execute(query)]


def built_in_user(connection: Connection, name: BuiltIn, *, now: float) -> int:
    """The number of a built-in account, which is made when it is first asked for."""
    found = connection.scalar(select(users.c.id).where(users.c.email == name))
    if found is not None:
        return int(found)
    new = NewUser(email=name, name=name, role=_BUILT_IN[name], tier=Tier.ADMIN)
    return _insert(connection, now, msgspec.structs.asdict(new)).id


def read_password(connection: Connection, email: str) -> tuple[UserRecord, str | None] | None:
    """Who has this address and the encoded password, None where none was set; None when nobody has it."""
    user = find_user_by_email(connection, email)
    if user is None:
        return None
    return user, connection.scalar(select(users.c.password).where(users.c.id == user.id))


def store_password(connection: Connection, user_id: int, encoded: str | None, *, now: float) -> None:
    """Sets the encoded password, or takes it away with None. Logins go on until somebody ends them. Raises NotFound."""
    values = {"password": encoded, "password_changed_at": now, "revision": _next_revision(connection)}
    if connection.execute(update(users).where(users.c.id == user_id).values(values)).rowcount == 0:
        raise unknown_user()


def unknown_user() -> NotFound:
    return NotFound("There is no such user.", code="user_not_found")


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they are stored. Raises BadRequest."""
    checked = dict(fields)
    if "email" in fields:
        checked["email"] = check_email(fields["email"])
    if "name" in fields:
        checked["name"] = fields["name"].strip()
        if len(checked["name"]) > LONGEST_NAME or not checked["name"].isprintable():
            raise BadRequest("A name has at most 100 printable characters.", param="name", code="invalid_name")
    if fields.get("models") is not None:
        checked["models"] = check_models(fields["models"])
    check_limits(fields.get("allowance", Allowance()), fields.get("budget"))
    return checked


def _protect_built_in(user: UserRecord, fields: dict[str, Any]) -> None:
    """The key of the environment, and every key that was made for nobody, depend on these accounts."""
    fixed = ("email", "name", "role", "tier", "active") if user.email == "admin" else ("email", "name")
    for field in fixed:
        if field in fields and fields.pop(field) != getattr(user, field):
            raise BadRequest(
                f"The {field} of the built-in account '{user.email}' cannot be changed.",
                param=field,
                code="built_in_account",
            )


def _refuse_taken(connection: Connection, email: str) -> None:
    if connection.scalar(select(users.c.id).where(users.c.email == email)) is not None:
        raise BadRequest("Email already exists", param="email", code="email_taken")


def _insert(connection: Connection, now: float, fields: dict[str, Any]) -> UserRecord:
    record = UserRecord(
        id=0, revision=_next_revision(connection), active=True, has_password=False, created_at=now, **fields
    )
    statement = insert(users).values(_columns(record) | {"created_at": now}).returning(users.c.id)
    return msgspec.structs.replace(record, id=connection.execute(statement).scalar_one())


def _columns(record: UserRecord) -> dict[str, Any]:
    """What a change may set."""
    return {
        "revision": record.revision,
        "email": record.email,
        "name": record.name,
        "role": str(record.role),
        "tier": str(record.tier),
        "active": record.active,
        "models": None if record.models is None else sorted(record.models),
        **limits_to_columns(record.allowance, record.budget),
    }


def _next_revision(connection: Connection) -> int:
    return (connection.scalar(select(func.max(users.c.revision))) or 0) + 1


def _one(connection: Connection, query: Select[Any]) -> UserRecord | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> UserRecord:
    return msgspec.convert(fold_limits(dict(zip((*_STORED, "has_password"), row, strict=True))), UserRecord)
