"""The table of subscriptions: which receiver wants to hear of which events."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Double,
    LargeBinary,
    RowMapping,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.storage.tables import metadata, row_number
from stellwerk.webhooks.payloads import EVENTS

MOST_SUBSCRIPTIONS = 100
LONGEST_URL = 2048
LONGEST_DESCRIPTION = 200
ROTATION_SECONDS = 24 * 3600.0
"""How long messages carry a signature with the old secret too after it was replaced."""

webhook_subscriptions = Table(
    "webhook_subscriptions",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("url", String(LONGEST_URL), nullable=False),
    Column("events", JSON, nullable=False),
    Column("description", String(LONGEST_DESCRIPTION), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("disabled_reason", String(200)),
    Column("with_images", Boolean, nullable=False),
    Column("with_key", Boolean, nullable=False),
    # Sealed, as everything that is secret here.
    Column("secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    Column("previous_until", Double),
    Column("failing_since", Double),
    Column("created_at", Double, nullable=False),
    # A number is never given twice: what an old message says of it stays true.
    sqlite_autoincrement=True,
)

_columns = webhook_subscriptions.c
_SHOWN = (
    _columns.id,
    _columns.url,
    _columns.events,
    _columns.description,
    _columns.active,
    _columns.disabled_reason,
    _columns.with_images,
    _columns.with_key,
    _columns.failing_since,
    _columns.created_at,
)
_SECRETS = (
    _columns.secret,
    _columns.previous_secret,
    _columns.previous_until,
)


class WebhookLimit(BadRequest):
    """There is no room for another subscription."""

    code = "too_many_webhooks"


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver. Times are Unix seconds."""

    id: int
    url: str
    events: tuple[str, ...]
    description: str
    active: bool
    disabled_reason: str | None
    """Why the gateway, or an admin, has switched it off."""
    with_images: bool
    """Messages `generate.requested` carry the images of the request."""
    with_key: bool
    """Messages `generate.requested` carry the whole key of the request."""
    failing_since: float | None
    """When the first of the deliveries failed after which none has succeeded."""
    created_at: float


class StoredSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """The sealed signing secrets of a subscription; the previous one counts until `previous_until`."""

    secret: bytes
    previous_secret: bytes | None
    previous_until: float | None


def create(
    connection: Connection,
    *,
    url: str,
    events: Iterable[str],
    secret: bytes,
    description: str = "",
    with_images: bool = False,
    with_key: bool = False,
    now: float,
) -> Subscription:
    """Stores a new subscription; `secret` is sealed (`signing.seal_secret`).

    Whether the URL leads anywhere that is allowed is the egress guard's question, at every delivery. Raises
    WebhookLimit and BadRequest naming the field that cannot be so.
    """
    columns = {
        "url": check_url(url),
        "events": check_events(events),
        "description": check_description(description),
        "active": True,
        "with_images": with_images,
        "with_key": with_key,
        "secret": secret,
        "created_at": now,
    }
    if (connection.scalar(select(func.count()).select_from(webhook_subscriptions)) or 0) >= MOST_SUBSCRIPTIONS:
        raise WebhookLimit(f"There are {MOST_SUBSCRIPTIONS} webhooks already. Delete one that is not needed any more.")
    made = connection.execute(insert(webhook_subscriptions).values(columns)).inserted_primary_key
    return get(connection, made[0] if made else 0)


def list_subscriptions(connection: Connection) -> list[Subscription]:
    """All of them, oldest first."""
    return [_read(row) for row in connection.execute(select(*_SHOWN).order_by(_columns.id)).mappings()]


def list_with_secrets(connection: Connection) -> list[tuple[Subscription, StoredSecrets]]:
    """The same, with what signs their messages."""
    rows = connection.execute(select(*_SHOWN, *_SECRETS).order_by(_columns.id)).mappings()
    return [(_read(row), _read_secrets(row)) for row in rows]


def get(connection: Connection, subscription_id: int) -> Subscription:
    """Raises NotFound, code `webhook_not_found`."""
    row = connection.execute(select(*_SHOWN).where(_columns.id == subscription_id)).mappings().one_or_none()
    if row is None:
        raise _not_found()
    return _read(row)


def change(
    connection: Connection,
    subscription_id: int,
    *,
    now: float,
    url: str | UnsetType = UNSET,
    events: Iterable[str] | UnsetType = UNSET,
    description: str | UnsetType = UNSET,
    active: bool | UnsetType = UNSET,
    with_images: bool | UnsetType = UNSET,
    with_key: bool | UnsetType = UNSET,
    secret: bytes | UnsetType = UNSET,
) -> tuple[Subscription, Subscription]:
    """Changes what is set and returns the subscription before and after.

    `active` True gives it a new start after it was disabled. The old signing secret counts beside a new one for a day.
    Raises NotFound, code `webhook_not_found`, and BadRequest naming the field that cannot be so.
    """
    before = get(connection, subscription_id)
    columns: dict[str, Any] = {
        name: value
        for name, value in {"active": active, "with_images": with_images, "with_key": with_key}.items()
        if value is not UNSET
    }
    if url is not UNSET:
        columns["url"] = check_url(url)
    if events is not UNSET:
        columns["events"] = check_events(events)
    if description is not UNSET:
        columns["description"] = check_description(description)
    if active is True:
        columns |= {"disabled_reason": None, "failing_since": None}
    if secret is not UNSET:
        columns |= {
            "previous_secret": _columns.secret,
            "previous_until": now + ROTATION_SECONDS,
            "secret": secret,
        }
    if columns:
        _update(connection, subscription_id, columns)
    return before, get(connection, subscription_id)


def disable(connection: Connection, subscription_id: int, reason: str) -> bool:
    """Switches it off and keeps why. False when it is off already or there is none."""
    statement = (
        update(webhook_subscriptions)
        .where(_columns.id == subscription_id, _columns.active)
        .values(active=False, disabled_reason=reason[:200])
    )
    return connection.execute(statement).rowcount > 0


def delete(connection: Connection, subscription_id: int) -> bool:
    """Deletes it with its messages and their log. False when there is none."""
    statement = webhook_subscriptions.delete().where(_columns.id == subscription_id)
    return connection.execute(statement).rowcount > 0


def set_failing(connection: Connection, subscription_id: int, since: float | None) -> None:
    _update(connection, subscription_id, {"failing_since": since})


def check_url(url: str) -> str:
    """The URL, when it can be one. Raises BadRequest, code `invalid_url`."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or len(url) > LONGEST_URL or not all("!" <= character <= "~" for character in url):
        raise BadRequest(
            f"A webhook needs an http or https URL of at most {LONGEST_URL} visible ASCII characters.",
            param="url",
            code="invalid_url",
        )
    return url


def check_events(events: Iterable[str]) -> list[str]:
    """Each once, in the order of EVENTS. Raises BadRequest, code `invalid_events`."""
    wanted = frozenset(events)
    if not wanted or not wanted <= frozenset(EVENTS):
        raise BadRequest(
            f"A webhook needs at least one of these events: {', '.join(EVENTS)}.", param="events", code="invalid_events"
        )
    return [event for event in EVENTS if event in wanted]


def check_description(text: str) -> str:
    """Without blanks around it. Raises BadRequest, code `invalid_description`."""
    description = text.strip()
    if len(description) > LONGEST_DESCRIPTION or (description and not description.isprintable()):
        raise BadRequest(
            f"A description has at most {LONGEST_DESCRIPTION} printable characters.",
            param="description",
            code="invalid_description",
        )
    return description


def _update(connection: Connection, subscription_id: int, columns: dict[str, Any]) -> None:
    statement = update(webhook_subscriptions).where(_columns.id == subscription_id)
    connection.execute(statement.values(columns))


def _read(row: RowMapping) -> Subscription:
    return msgspec.convert({str(column.name): row[column] for column in _SHOWN}, Subscription)


def _read_secrets(row: RowMapping) -> StoredSecrets:
    return StoredSecrets(**{column.name: row[column] for column in _SECRETS})


def _not_found() -> NotFound:
    return NotFound("There is no such webhook.", code="webhook_not_found")
