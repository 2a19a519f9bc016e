"""How webhooks and their messages look in JSON."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stellwerk.api._shapes import Instant, show_instant
from stellwerk.webhooks.outbox import Delivery
from stellwerk.webhooks.subscriptions import LONGEST_DESCRIPTION, LONGEST_URL, Subscription

WebhookId = Annotated[int, Meta(ge=1, le=2**53 - 1, description="Number of a webhook.", examples=[1])]
DeliveryId = Annotated[
    str, Meta(pattern="^msg_[0-9a-f]{32}$", description="Id of a message.", examples=[f"msg_{'5f' * 16}"])
]
EventName = Literal[
    "request.finished", "generate.requested", "budget.reached", "key.parked", "engine.crashed", "job.finished"
]
Url = Annotated[
    str, Meta(min_length=8, max_length=LONGEST_URL, description="http or https.", examples=["https://example.org/hook"])
]
Events = Annotated[list[EventName], Meta(min_length=1, max_length=20)]
Description = Annotated[str, Meta(max_length=LONGEST_DESCRIPTION, pattern=r"^[^\x00-\x1f\x7f]*$")]
WithImages = Annotated[bool, Meta(description="Send the images of requests in `generate.requested` too.")]
WithKey = Annotated[bool, Meta(description="Send the whole key of requests in `generate.requested`, not its mask.")]
SigningSecret = Annotated[str, Meta(description="Checks the signatures; shown this one time.")]


class NewWebhookBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A receiver and what it is told."""

    url: Url
    events: Events
    description: Description = ""
    with_images: WithImages = False
    with_key: WithKey = False


class WebhookChangesBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    active: Annotated[bool, Meta(description="Switches it on or off.")] | UnsetType = UNSET
    with_images: WithImages | UnsetType = UNSET
    with_key: WithKey | UnsetType = UNSET


class WebhookShape(msgspec.Struct, kw_only=True):
    """A receiver; its signing secret is never shown again."""

    id: int
    url: str
    events: list[str]
    description: str
    active: bool
    disabled_reason: Annotated[str | None, Meta(description="Why the gateway has switched it off.")]
    with_images: bool
    with_key: bool
    failing_since: Annotated[Instant | None, Meta(description="Since then every delivery has failed.")]
    created_at: Instant


class NewWebhookShape(WebhookShape, kw_only=True):
    """A new receiver with its signing secret."""

    secret: SigningSecret


class SecretShape(msgspec.Struct, kw_only=True):
    """A new signing secret. For 24 hours messages are signed with the old one too."""

    secret: SigningSecret


class DeletedWebhook(msgspec.Struct, kw_only=True):
    """A receiver that is told nothing any more."""

    status: str


class AttemptShape(msgspec.Struct, kw_only=True):
    """One attempt to deliver a message."""

    at: Instant
    status: Annotated[int | None, Meta(description="The receiver's; null when it gave none.")]
    milliseconds: int
    error: Annotated[str | None, Meta(description="Null when the message arrived.")]


class DeliveryShape(msgspec.Struct, kw_only=True):
    """A message and what came of it."""

    id: str
    webhook_id: int
    event: str
    state: Literal["pending", "delivered", "failed"]
    created_at: Instant
    next_attempt_at: Instant | None
    settled_at: Instant | None
    attempts: int
    log: list[AttemptShape]


class DeliveriesQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How many; the newest come first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


def show_delivery(delivery: Delivery) -> DeliveryShape:
    return DeliveryShape(
        id=delivery.id,
        webhook_id=delivery.subscription_id,
        event=delivery.event,
        state=delivery.state.value,
        created_at=show_instant(delivery.created_at),
        next_attempt_at=_when(delivery.next_attempt_at),
        settled_at=_when(delivery.settled_at),
        attempts=delivery.attempts,
        log=[
            AttemptShape(
                at=show_instant(attempt.at),
                status=attempt.status,
                milliseconds=attempt.milliseconds,
                error=attempt.error,
            )
            for attempt in delivery.log
        ],
    )


def show_webhook(record: Subscription) -> WebhookShape:
    return WebhookShape(
        id=record.id,
        url=record.url,
        events=list(record.events),
        description=record.description,
        active=record.active,
        disabled_reason=record.disabled_reason,
        with_images=record.with_images,
        with_key=record.with_key,
        failing_since=_when(record.failing_since),
        created_at=show_instant(record.created_at),
    )


def _when(at: float | None) -> str | None:
    return None if at is None else show_instant(at)


SHOWN_ONCE = "whsec_<44 characters that are shown this one time>"
WEBHOOK: dict[str, Any] = {
    "id": 1,
    "url": "https://example.org/hook",
    "events": ["request.finished"],
    "description": "",
    "active": True,
    "disabled_reason": None,
    "with_images": False,
    "with_key": False,
    "failing_since": None,
    "created_at": "2026-11-21T09:30:00.000Z",
}
DELIVERY: dict[str, Any] = {
    "id": f"msg_{'5f' * 16}",
    "webhook_id": 1,
    "event": "request.finished",
    "state": "delivered",
    "created_at": "2026-11-21T09:30:00.000Z",
    "next_attempt_at": None,
    "settled_at": "2026-11-21T09:30:00.250Z",
    "attempts": 1,
    "log": [{"at": "2026-11-21T09:30:00.100Z", "status": 204, "milliseconds": 150, "error": None}],
}
