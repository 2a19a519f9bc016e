"""The outbox: messages that wait for their delivery, and the log of what came of them.

A message is claimed before it is sent: its time is put off by the lease, so nobody else takes it, and when the process
that took it is killed it is due again by itself. Who settles a message names the lease, and a lease that has passed to
another process settles nothing.
"""

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Double,
    ForeignKey,
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

from stellwerk.core.errors import Conflict, NotFound
from stellwerk.storage.tables import metadata, row_number
from stellwerk.webhooks.payloads import TEST
from stellwerk.webhooks.schedule import FORGOTTEN_SECONDS, Result, State, Verdict, judge
from stellwerk.webhooks.subscriptions import disable, set_failing, webhook_subscriptions

MOST_PENDING = 10_000
"""Messages that may wait for one receiver; later ones are dropped and counted."""
MOST_PENDING_BYTES = 64 * 1024 * 1024
MOST_LISTED = 1_000

webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("number", row_number, primary_key=True),
    # What the receiver tells a repeated message by.
    Column("id", String(36), nullable=False, unique=True),
    Column("subscription_id", ForeignKey("webhook_subscriptions.id", ondelete="CASCADE"), nullable=False),
    Column("event", String(40), nullable=False),
    Column("state", String(9), nullable=False),
    # Sealed; NULL once nobody needs it any more.
    Column("body", LargeBinary),
    Column("size", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    # A claimed message is due when its lease is over.
    Column("due_at", Double, nullable=False),
    Column("lease", String(32)),
    Column("attempts", Integer, nullable=False),
    Column("settled_at", Double),
    Index(None, "subscription_id", "state", "due_at", "number", "size"),
    Index(None, "subscription_id", "number"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("number", row_number, primary_key=True),
    Column("message_number", ForeignKey("webhook_messages.number", ondelete="CASCADE"), nullable=False),
    Column("subscription_id", ForeignKey("webhook_subscriptions.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("status", Integer),
    Column("milliseconds", Integer, nullable=False),
    Column("error", String(200)),
    Index(None, "message_number"),
    Index(None, "subscription_id", "number"),
)

_messages = webhook_messages.c
_attempts = webhook_attempts.c


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message on its way into the outbox; `body` is sealed."""

    id: str
    subscription_id: int
    event: str
    body: bytes
    created_at: float


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is ours until its lease is over; `body` is sealed."""

    number: int
    id: str
    subscription_id: int
    event: str
    body: bytes | None
    lease: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery as the log has it. `error` None: it arrived."""

    at: float
    status: int | None
    milliseconds: int
    error: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message as people see it. Times are Unix seconds."""

    id: str
    subscription_id: int
    event: str
    state: State
    created_at: float
    next_attempt_at: float | None
    settled_at: float | None
    attempts: int
    log: tuple[Attempt, ...]
    """Its deliveries, oldest first."""


def new_message_id() -> str:
    return f"msg_{secrets.token_hex(16)}"


def new_owner() -> str:
    """What the leases of one process begin with."""
    return secrets.token_hex(8)


def append(
    connection: Connection,
    messages: Sequence[NewMessage],
    *,
    most: int = MOST_PENDING,
    most_bytes: int = MOST_PENDING_BYTES,
) -> Counter[int]:
    """Stores messages that are due at once. Returns how many had no room, by subscription.

    Those of a subscription that has been deleted or disabled meanwhile are left out.
    """
    dropped: Counter[int] = Counter()
    in_groups = sorted(messages, key=lambda message: message.subscription_id)
    for subscription_id, group in groupby(in_groups, key=lambda message: message.subscription_id):
        if not _is_active(connection, subscription_id):
            continue
        count, size = _pending(connection, subscription_id)
        rows = []
        for message in group:
            if count >= most or size + len(message.body) > most_bytes:
                dropped[subscription_id] += 1
                continue
            count += 1
            size += len(message.body)
            rows.append(_columns(message))
        if rows:
            connection.execute(insert(webhook_messages), rows)
    return dropped


def append_claimed(connection: Connection, message: NewMessage, *, owner: str, until: float) -> Claimed:
    """Stores one message and claims it in the same step. Raises Conflict for a subscription that is not active."""
    if not _is_active(connection, message.subscription_id):
        raise Conflict("The webhook is switched off. Switch it on first.", code="webhook_disabled")
    lease = _new_lease(owner)
    columns = _columns(message) | {"due_at": until, "lease": lease}
    made = connection.execute(insert(webhook_messages).values(columns)).inserted_primary_key
    return Claimed(
        number=made[0] if made else 0,
        id=message.id,
        subscription_id=message.subscription_id,
        event=message.event,
        body=message.body,
        lease=lease,
    )


def due_subscriptions(connection: Connection, among: Iterable[int], now: float) -> list[int]:
    """Which of these subscriptions have a message that is due."""
    due = []
    for subscription_id in among:
        query = select(func.min(_messages.due_at)).where(*_pending_of(subscription_id))
        first = connection.scalar(query)
        if first is not None and first <= now:
            due.append(subscription_id)
    return due


def claim(connection: Connection, subscription_id: int, *, owner: str, now: float, until: float) -> Claimed | None:
    """Takes the message that has been due for longest, for nobody else before `until`; None when none is due."""
    due = (*_pending_of(subscription_id), _messages.due_at <= now)
    oldest = (
        select(_messages.number, _messages.id, _messages.event, _messages.body)
        .where(*due)
        .order_by(_messages.due_at, _messages.number)
        .limit(1)
    )
    row = connection.execute(oldest).one_or_none()
    if row is None:
        return None
    lease = _new_lease(owner)
    # Asked for again in the update: on a shared database somebody else may have taken it in between.
    taken = update(webhook_messages).where(_messages.number == row.number, *due).values(due_at=until, lease=lease)
    if connection.execute(taken).rowcount == 0:
        return None
    return Claimed(
        number=row.number, id=row.id, subscription_id=subscription_id, event=row.event, body=row.body, lease=lease
    )


def release(connection: Connection, owner: str, now: float) -> None:
    """Gives back what a process has claimed and not settled: it is due at once. The owner "" is every process."""
    held = (_messages.state == State.PENDING, _messages.lease.startswith(owner))
    connection.execute(update(webhook_messages).where(*held).values(due_at=now, lease=None))


def settle(connection: Connection, claimed: Claimed, result: Result, *, now: float, chance: float) -> Verdict | None:
    """Stores what came of a delivery. None, and nothing changes, when the lease is lost or the subscription gone."""
    query = (
        select(_messages.attempts, webhook_subscriptions.c.failing_since)
        .join_from(webhook_messages, webhook_subscriptions)
        .where(*_held(claimed))
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    attempts = row.attempts + 1
    failing_since = row.failing_since
    if not result.delivered and failing_since is not None and _is_forgotten(connection, claimed.subscription_id, now):
        failing_since = None
    verdict = judge(
        result,
        attempts=attempts,
        retried=claimed.event != TEST,
        failing_since=failing_since,
        now=now,
        chance=chance,
    )
    columns: dict[str, Any] = {"state": verdict.state, "attempts": attempts, "due_at": verdict.due_at, "lease": None}
    if verdict.state is not State.PENDING:
        columns["settled_at"] = now
    if verdict.state is State.DELIVERED:
        columns["body"] = None
    connection.execute(update(webhook_messages).where(_messages.number == claimed.number).values(columns))
    _log_attempt(connection, claimed, result)
    _judge_receiver(connection, claimed.subscription_id, result, failing_since, verdict)
    return verdict


def list_deliveries(connection: Connection, subscription_id: int, limit: int = 100) -> list[Delivery]:
    """The newest messages of a subscription with the log of their deliveries, newest first."""
    query = (
        select(webhook_messages)
        .where(_messages.subscription_id == subscription_id)
        .order_by(_messages.number.desc())
        .limit(max(0, min(limit, MOST_LISTED)))
    )
    return _deliveries(connection, connection.execute(query).all())


def find_delivery(connection: Connection, message_id: str) -> Delivery:
    """Raises NotFound, code `delivery_not_found`."""
    rows = connection.execute(select(webhook_messages).where(_messages.id == message_id)).all()
    if not rows:
        raise NotFound("There is no such delivery.", code="delivery_not_found")
    return _deliveries(connection, rows)[0]


def retry(connection: Connection, message_id: str, now: float) -> Delivery:
    """Makes a message due at once; one that has failed gets all its retries anew. The id stays the same.

    Raises NotFound, code `delivery_not_found`, and Conflict, code `delivery_gone`, when its body is not kept any more.
    """
    delivery = find_delivery(connection, message_id)
    columns: dict[str, Any] = {"due_at": now, "state": State.PENDING}
    if delivery.state is not State.PENDING:
        columns |= {"attempts": 0, "settled_at": None}
    # One that is being delivered right now is not touched.
    statement = update(webhook_messages).where(
        _messages.id == message_id, _messages.lease.is_(None), _messages.body.is_not(None)
    )
    if connection.execute(statement.values(columns)).rowcount == 0 and delivery.state is not State.PENDING:
        raise Conflict(
            "The content of this delivery is not kept any more: it has arrived, or it failed days ago.",
            code="delivery_gone",
        )
    return find_delivery(connection, message_id)


def _log_attempt(connection: Connection, claimed: Claimed, result: Result) -> None:
    row = {
        "message_number": claimed.number,
        "subscription_id": claimed.subscription_id,
        "at": result.at,
        "status": result.status,
        "milliseconds": result.milliseconds,
        "error": None if result.error is None else result.error[:200],
    }
    connection.execute(insert(webhook_attempts).values(row))


def _is_forgotten(connection: Connection, subscription_id: int, now: float) -> bool:
    """Whether the last delivery of all is so long ago that a failure begins a new row."""
    query = select(_attempts.at).where(_attempts.subscription_id == subscription_id)
    last = connection.scalar(query.order_by(_attempts.number.desc()).limit(1))
    return last is None or now - last >= FORGOTTEN_SECONDS


def _judge_receiver(
    connection: Connection, subscription_id: int, result: Result, failing_since: float | None, verdict: Verdict
) -> None:
    if result.delivered:
        if failing_since is not None:
            set_failing(connection, subscription_id, None)
    elif failing_since is None:
        set_failing(connection, subscription_id, result.at)
    if verdict.disabled_reason is not None:
        disable(connection, subscription_id, verdict.disabled_reason)


def _deliveries(connection: Connection, rows: Sequence[Row[Any]]) -> list[Delivery]:
    logs: dict[int, list[Attempt]] = {row.number: [] for row in rows}
    query = select(webhook_attempts).where(_attempts.message_number.in_(list(logs))).order_by(_attempts.number)
    for row in connection.execute(query):
        logs[row.message_number].append(
            Attempt(at=row.at, status=row.status, milliseconds=row.milliseconds, error=row.error)
        )
    return [_delivery(row, logs[row.number]) for row in rows]


def _delivery(row: Row[Any], log: Sequence[Attempt]) -> Delivery:
    state = State(row.state)
    return Delivery(
        id=row.id,
        subscription_id=row.subscription_id,
        event=row.event,
        state=state,
        created_at=row.created_at,
        next_attempt_at=row.due_at if state is State.PENDING else None,
        settled_at=row.settled_at,
        attempts=row.attempts,
        log=tuple(log),
    )


def _columns(message: NewMessage) -> dict[str, Any]:
    columns = msgspec.structs.asdict(message)
    return columns | {
        "state": State.PENDING,
        "size": len(message.body),
        "due_at": message.created_at,
        "attempts": 0,
    }


def _pending_of(subscription_id: int) -> tuple[Any, ...]:
    return _messages.subscription_id == subscription_id, _messages.state == State.PENDING


def _new_lease(owner: str) -> str:
    return owner + secrets.token_hex(8)


def _held(claimed: Claimed) -> tuple[Any, ...]:
    """The message, as long as it is still claimed by the one who holds `claimed`."""
    return _messages.number == claimed.number, _messages.lease == claimed.lease, _messages.state == State.PENDING


def _pending(connection: Connection, subscription_id: int) -> tuple[int, int]:
    """How many messages wait, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(_messages.size), 0)).where(*_pending_of(subscription_id))
    count, size = connection.execute(query).one()
    return count, size


def _is_active(connection: Connection, subscription_id: int) -> bool:
    query = select(webhook_subscriptions.c.active).where(webhook_subscriptions.c.id == subscription_id)
    return bool(connection.scalar(query))
