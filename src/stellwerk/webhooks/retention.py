"""Keeps the outbox and its log small: deletes what is too old or too much."""

from sqlalchemy import Connection, delete, select, update

from stellwerk.webhooks.outbox import webhook_attempts, webhook_messages
from stellwerk.webhooks.schedule import State
from stellwerk.webhooks.subscriptions import webhook_subscriptions

MOST_SETTLED = 1_000
"""Messages of one subscription that are remembered once they are delivered or have failed; the same of its attempts."""
KEPT_SECONDS = 30 * 24 * 3600.0
"""How long they are remembered."""
FAILED_BODY_SECONDS = 3 * 24 * 3600.0
"""How long a failed message can be sent again by hand: then its body is deleted."""
PENDING_SECONDS = 5 * 24 * 3600.0
"""A message that has waited for so long has failed; hardly one grows that old unless its subscription is disabled."""

_messages = webhook_messages.c
_attempts = webhook_attempts.c


def prune(connection: Connection, now: float) -> None:
    """Deletes what is too old or too much of it. Run it every minute or so."""
    for subscription_id in connection.scalars(select(webhook_subscriptions.c.id)).all():
        _give_up_old(connection, subscription_id, now)
        _prune_settled(connection, subscription_id, now)
        _prune_log(connection, subscription_id, now)


def _give_up_old(connection: Connection, subscription_id: int, now: float) -> None:
    old = (
        _messages.subscription_id == subscription_id,
        _messages.state == State.PENDING,
        _messages.due_at <= now,
        _messages.created_at < now - PENDING_SECONDS,
    )
    connection.execute(update(webhook_messages).where(*old).values(state=State.FAILED, settled_at=now, lease=None))


def _prune_settled(connection: Connection, subscription_id: int, now: float) -> None:
    settled = _messages.subscription_id == subscription_id, _messages.state.in_((State.DELIVERED, State.FAILED))
    unneeded = _messages.body.is_not(None), _messages.settled_at < now - FAILED_BODY_SECONDS
    connection.execute(update(webhook_messages).where(*settled, *unneeded).values(body=None))
    connection.execute(delete(webhook_messages).where(*settled, _messages.settled_at < now - KEPT_SECONDS))
    query = select(_messages.number).where(*settled).order_by(_messages.number.desc()).offset(MOST_SETTLED).limit(1)
    if (last := connection.scalar(query)) is not None:
        connection.execute(delete(webhook_messages).where(*settled, _messages.number <= last))


def _prune_log(connection: Connection, subscription_id: int, now: float) -> None:
    own = _attempts.subscription_id == subscription_id
    connection.execute(delete(webhook_attempts).where(own, _attempts.at < now - KEPT_SECONDS))
    query = select(_attempts.number).where(own).order_by(_attempts.number.desc()).offset(MOST_SETTLED).limit(1)
    if (last := connection.scalar(query)) is not None:
        connection.execute(delete(webhook_attempts).where(own, _attempts.number <= last))
