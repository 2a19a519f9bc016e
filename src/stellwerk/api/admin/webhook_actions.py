"""Every administrative change of a webhook, with its audit record in the same transaction; for the API, the command
line and the shell.

All take the connection of a writing transaction and the actor first; errors are those of the tables' own functions.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from stellwerk.core.secrets import Secret
from stellwerk.records import audit
from stellwerk.records.audit import Actor
from stellwerk.storage.sealing import Seal
from stellwerk.webhooks import outbox, subscriptions
from stellwerk.webhooks.outbox import Delivery
from stellwerk.webhooks.signing import new_secret, seal_secret
from stellwerk.webhooks.subscriptions import Subscription

_UNRECORDED = frozenset({"id", "created_at", "failing_since"})


class NewWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook is made from."""

    url: str
    events: tuple[str, ...]
    description: str = ""
    with_images: bool = False
    with_key: bool = False


class WebhookChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different; what is not set stays."""

    url: str | UnsetType = UNSET
    events: Iterable[str] | UnsetType = UNSET
    description: str | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    with_images: bool | UnsetType = UNSET
    with_key: bool | UnsetType = UNSET


def create_webhook(
    connection: Connection, actor: Actor, new: NewWebhook, seal: Seal, *, now: float
) -> tuple[Subscription, Secret]:
    """The stored webhook and its signing secret, which is never seen again. Raises BadRequest naming the field."""
    secret = new_secret()
    made = subscriptions.create(connection, **msgspec.structs.asdict(new), secret=seal_secret(seal, secret), now=now)
    audit.append(connection, actor, "webhook.create", _webhook(made.id), _facts(made), now=now)
    return made, secret


def change_webhook(
    connection: Connection, actor: Actor, webhook_id: int, changes: WebhookChanges, *, now: float
) -> Subscription:
    """Raises NotFound and BadRequest. A change that changes nothing leaves no record."""
    before, after = subscriptions.change(connection, webhook_id, now=now, **msgspec.structs.asdict(changes))
    facts, others = _facts(before), _facts(after)
    if before.url != after.url and facts["url"] == others["url"]:
        facts["url"], others["url"] = f"{facts['url']}/…", f"{others['url']}/… (another path)"
    differences = {
        name: {"before": facts[name], "after": value} for name, value in others.items() if facts[name] != value
    }
    if differences:
        audit.append(connection, actor, "webhook.change", _webhook(webhook_id), differences, now=now)
    return after


def renew_secret(connection: Connection, actor: Actor, webhook_id: int, seal: Seal, *, now: float) -> Secret:
    """The new signing secret, which is never seen again; the old one counts beside it for a day. Raises NotFound."""
    secret = new_secret()
    subscriptions.change(connection, webhook_id, now=now, secret=seal_secret(seal, secret))
    audit.append(connection, actor, "webhook.secret", _webhook(webhook_id), {}, now=now)
    return secret


def delete_webhook(connection: Connection, actor: Actor, webhook_id: int, *, now: float) -> Subscription:
    """What was deleted, with its messages and their log. Raises NotFound."""
    before = subscriptions.get(connection, webhook_id)
    subscriptions.delete(connection, webhook_id)
    audit.append(connection, actor, "webhook.delete", _webhook(webhook_id), {"url": origin_of(before.url)}, now=now)
    return before


def retry_delivery(connection: Connection, actor: Actor, message_id: str, *, now: float) -> Delivery:
    """Makes a message due at once. Raises NotFound, and Conflict when its content is not kept any more."""
    delivery = outbox.retry(connection, message_id, now)
    details = {"message": message_id}
    audit.append(connection, actor, "webhook.retry", _webhook(delivery.subscription_id), details, now=now)
    return delivery


def origin_of(url: str) -> str:
    """The part of a webhook's URL that may be seen by everybody: receivers know their senders by the rest."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _webhook(webhook_id: int) -> str:
    return f"webhook:{webhook_id}"


def _facts(record: Subscription) -> dict[str, Any]:
    values = {name: value for name, value in msgspec.structs.asdict(record).items() if name not in _UNRECORDED}
    return {**values, "url": origin_of(record.url), "events": list(record.events)}
