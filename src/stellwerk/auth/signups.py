"""Requests of strangers to become users, until an admin has decided."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Double, ForeignKey, Index, String, Table, func, insert, select, update

from stellwerk.auth.keys import KeyRecord, NewKey, create_key
from stellwerk.auth.tokens import Digest
from stellwerk.auth.users import NewUser, UserRecord, check_email, create_user, find_user_by_email
from stellwerk.core.errors import BadRequest, NotFound, Unavailable
from stellwerk.core.principal import Role, Tier
from stellwerk.core.secrets import Secret
from stellwerk.storage.tables import metadata, row_number

LONGEST_MESSAGE = 2_000
MOST_PENDING = 1_000
MOST_LISTED = 1_000
KEY_NAME = "default"
"""Of the key that an approved user gets."""

_RETRY_SECONDS = 3_600.0

signup_requests = Table(
    "signup_requests",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("email", String(254), nullable=False),
    Column("tier", String(10), nullable=False),
    Column("message", String(2000)),
    Column("status", String(10), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("decided_at", Double),
    Column("decided_by", String(254)),
    Column("user_id", ForeignKey("users.id")),
    Index(None, "email"),
    Index(None, "status"),
    sqlite_autoincrement=True,
)


class Status(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


class Signup(msgspec.Struct, frozen=True, kw_only=True):
    """A stored request; times in Unix seconds. `email` and `message` are a stranger's words."""

    id: int
    email: str
    tier: Tier
    message: str | None
    status: Status
    created_at: float
    decided_at: float | None
    decided_by: str | None
    user_id: int | None
    """Who came of it."""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was granted, and what came of it. The key's text is here and never again."""

    signup: Signup
    user: UserRecord
    key: KeyRecord
    token: Secret


_FIELDS = Signup.__struct_fields__
_records = select(*(signup_requests.c[name] for name in _FIELDS))


def ask(connection: Connection, email: str, tier: Tier, message: str | None, *, now: float) -> None:
    """Stores a request, unless the address is a user's or has one pending already: who asks must not see which.

    Raises BadRequest for what is no address and for the tier `admin`, and Unavailable, code `signups_full`.
    """
    address = check_email(email)
    if tier is Tier.ADMIN:
        raise BadRequest("The tier is one of: payg, sub.", param="tier")
    text = _clean(message)
    pending = signup_requests.c.status == str(Status.PENDING)
    # Before any look at the address, so that the refusal says nothing about it.
    if (connection.scalar(select(func.count()).where(pending)) or 0) >= MOST_PENDING:
        raise Unavailable("Too many requests are waiting.", code="signups_full", retry_after=_RETRY_SECONDS)
    is_waiting = connection.scalar(select(signup_requests.c.id).where(pending, signup_requests.c.email == address))
    if is_waiting is not None or find_user_by_email(connection, address) is not None:
        return
    values = {"email": address, "tier": str(tier), "message": text, "status": str(Status.PENDING), "created_at": now}
    connection.execute(insert(signup_requests).values(values))


def list_signups(
    connection: Connection, *, status: Status | None = None, limit: int = MOST_LISTED, before: int | None = None
) -> list[Signup]:
    """The newest requests first, `limit` of them and never more than MOST_LISTED, all with ids below `before`."""
    query = _records.order_by(signup_requests.c.id.desc()).limit(max(0, min(limit, MOST_LISTED)))
    if status is not None:
        query = query.where(signup_requests.c.status == str(status))
    if before is not None:
        query = query.where(signup_requests.c.id < before)
    return [_record(row) for row in connection.execute(query)]


def count_pending(connection: Connection) -> int:
    query = select(func.count()).where(signup_requests.c.status == str(Status.PENDING))
    return connection.scalar(query) or 0


def approve(connection: Connection, signup_id: int, digest: Digest, *, decided_by: str, now: float) -> Approval:
    """Makes the user, without a balance, and a key named `default`.

    Raises NotFound, code `signup_not_found`, and BadRequest: `signup_processed`, `user_exists`.
    """
    signup = _pending(connection, signup_id)
    if find_user_by_email(connection, signup.email) is not None:
        raise BadRequest("User already exists", code="user_exists")
    user = create_user(connection, NewUser(email=signup.email, tier=signup.tier), now=now)
    key, token = create_key(connection, NewKey(name=KEY_NAME, user_id=user.id, role=Role.USER), digest, now=now)
    decided = _decide(connection, signup, Status.APPROVED, decided_by, now, user.id)
    return Approval(signup=decided, user=user, key=key, token=token)


def reject(connection: Connection, signup_id: int, *, decided_by: str, now: float) -> Signup:
    """Raises NotFound, code `signup_not_found`, and BadRequest, code `signup_processed`."""
    return _decide(connection, _pending(connection, signup_id), Status.REJECTED, decided_by, now, None)


def _pending(connection: Connection, signup_id: int) -> Signup:
    row = connection.execute(_records.where(signup_requests.c.id == signup_id)).one_or_none()
    if row is None:
        raise NotFound("There is no such sign-up request.", code="signup_not_found")
    signup = _record(row)
    if signup.status is not Status.PENDING:
        raise BadRequest("Request already processed", code="signup_processed")
    return signup


def _decide(
    connection: Connection, signup: Signup, status: Status, decided_by: str, now: float, user_id: int | None
) -> Signup:
    decision = {"status": status, "decided_at": float(now), "decided_by": decided_by[:254], "user_id": user_id}
    statement = update(signup_requests).where(signup_requests.c.id == signup.id)
    connection.execute(statement.values(decision | {"status": str(status)}))
    return msgspec.structs.replace(signup, **decision)


def _clean(message: str | None) -> str | None:
    """Without characters that no keyboard makes, and None when nothing is left."""
    if message is None:
        return None
    text = "".join(character for character in message if character.isprintable() or character in "\n\t").strip()
    if len(text) > LONGEST_MESSAGE:
        raise BadRequest(f"A message has at most {LONGEST_MESSAGE} characters.", param="message")
    return text or None


def _record(row: Iterable[Any]) -> Signup:
    return msgspec.convert(dict(zip(_FIELDS, row, strict=True)), Signup)
