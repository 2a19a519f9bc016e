"""Logins with a password: what is remembered of each, so that it can be ended."""

import secrets
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    Select,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from stellwerk.auth.access_tokens import RefreshClaims
from stellwerk.auth.users import users
from stellwerk.storage.tables import metadata

REFRESH_SECONDS = 7 * 86_400.0
"""How long a login lasts without being refreshed."""
LOGIN_SECONDS = 30 * 86_400.0
"""How long it lasts at most, however often it is refreshed."""
MOST_LOGINS = 50
"""Active logins of one user; one more ends the oldest."""

REMEMBERED_SECONDS = 2 * 86_400.0
"""So long after its end a login is known to have ended: no access token of it lives on, and no job that it has queued
waits that long unless the operator lets jobs wait for more than a day."""

_KEPT_SECONDS = 30 * 86_400.0

logins = Table(
    "logins",
    metadata,
    Column("id", String(16), primary_key=True),
    # Rises with every login that ends before its time.
    Column("revision", BigInteger, nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    # Of the one refresh token that is good; an older one that comes back was stolen, or the newer one was.
    Column("generation", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("refreshed_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("end_reason", String(20)),
    Index(None, "revision"),
    Index(None, "user_id"),
)


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A login that is good now; `expires_at` is Unix seconds and holds until the next refresh."""

    id: str
    user_id: int
    generation: int
    expires_at: float


class Refused(StrEnum):
    """Why a refresh token buys nothing."""

    EXPIRED = "expired"
    ENDED = "ended"
    """The login was ended before, or there never was one."""
    DISABLED = "disabled"
    """Its user may not come in any more; the login has been ended."""
    REUSED = "reuse"
    """The token had been used up; the login has been ended, because somebody holds a copy."""


class EndedLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A login that ended before its time; until `expires_at` somebody may want to act in its name."""

    id: str
    revision: int
    expires_at: float


def start_login(connection: Connection, user_id: int, *, now: float, lifetime: float = REFRESH_SECONDS) -> Login:
    """Begins a login of a user whose password was right."""
    _make_room(connection, user_id, now)
    login = Login(id=secrets.token_hex(8), user_id=user_id, generation=0, expires_at=now + min(lifetime, LOGIN_SECONDS))
    connection.execute(
        insert(logins).values(
            id=login.id,
            revision=0,
            user_id=user_id,
            generation=0,
            created_at=now,
            refreshed_at=now,
            expires_at=login.expires_at,
        )
    )
    return login


def rotate(
    connection: Connection, claims: RefreshClaims, *, now: float, lifetime: float = REFRESH_SECONDS
) -> Login | Refused:
    """Uses a refresh token up: the login with its next generation, or why there is none.

    A refusal is returned and not raised, so that the end of a login whose token came twice is committed.
    """
    row = connection.execute(
        select(logins.c.generation, logins.c.created_at, logins.c.expires_at, logins.c.ended_at, users.c.active)
        .join(users, users.c.id == logins.c.user_id)
        .where(logins.c.id == claims.login_id, logins.c.user_id == claims.user_id)
    ).one_or_none()
    if row is None or row.ended_at is not None:
        return Refused.ENDED
    # A higher one is possible too, after a backup was restored; then the row knows less than some token out there.
    if claims.generation != row.generation:
        end_login(connection, claims.login_id, Refused.REUSED, now)
        return Refused.REUSED
    if not row.active:
        end_login(connection, claims.login_id, Refused.DISABLED, now)
        return Refused.DISABLED
    if row.expires_at <= now:
        return Refused.EXPIRED
    login = Login(
        id=claims.login_id,
        user_id=claims.user_id,
        generation=row.generation + 1,
        expires_at=min(now + lifetime, row.created_at + LOGIN_SECONDS),
    )
    connection.execute(
        update(logins)
        .where(logins.c.id == login.id)
        .values(generation=login.generation, refreshed_at=now, expires_at=login.expires_at)
    )
    return login


def end_login(connection: Connection, login_id: str, reason: str, now: float) -> bool:
    """False when there is no such login or it has ended before."""
    return _end(connection, [login_id], reason, now) > 0


def end_logins_of(
    connection: Connection, user_id: int, reason: str, now: float, except_login: str | None = None
) -> int:
    """Ends every login of a user, but for one; returns how many there were."""
    found = connection.scalars(_active(user_id, now))
    return _end(connection, [login_id for login_id in found if login_id != except_login], reason, now)


def ended_logins(connection: Connection, since: int) -> list[EndedLogin]:
    """Logins that ended before their time with a revision higher than `since`, in the order of their revisions."""
    columns = (logins.c.id, logins.c.revision, logins.c.ended_at)
    rows = connection.execute(select(*columns).where(logins.c.revision > since).order_by(logins.c.revision))
    return [EndedLogin(id=row.id, revision=row.revision, expires_at=row.ended_at + REMEMBERED_SECONDS) for row in rows]


def delete_old(connection: Connection, now: float) -> int:
    """Deletes logins that expired more than 30 days ago; returns how many.

    The highest revision stays: readers that have seen it would miss the next ones if numbers began anew.
    """
    last = select(func.max(logins.c.revision)).scalar_subquery()
    old = (logins.c.expires_at < now - _KEPT_SECONDS) & ((logins.c.revision == 0) | (logins.c.revision < last))
    return connection.execute(delete(logins).where(old)).rowcount


def _make_room(connection: Connection, user_id: int, now: float) -> None:
    active = list(connection.scalars(_active(user_id, now)))
    _end(connection, active[: max(0, len(active) + 1 - MOST_LOGINS)], "too_many", now)


def _active(user_id: int, now: float) -> Select[Any]:
    """Ids of the logins of a user that are good, oldest first."""
    return (
        select(logins.c.id)
        .where(logins.c.user_id == user_id, logins.c.ended_at.is_(None), logins.c.expires_at > now)
        .order_by(logins.c.created_at, logins.c.id)
    )


def _end(connection: Connection, login_ids: list[str], reason: str, now: float) -> int:
    if not login_ids:
        return 0
    revision = (connection.scalar(select(func.max(logins.c.revision))) or 0) + 1
    statement = (
        update(logins)
        .where(logins.c.id.in_(login_ids), logins.c.ended_at.is_(None))
        .values(ended_at=now, end_reason=str(reason), revision=revision)
    )
    return connection.execute(statement).rowcount
