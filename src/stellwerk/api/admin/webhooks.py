"""/admin/api/webhooks: who is told what happens in the gateway, and what came of telling them.

Only administrators see any of it: a receiver's URL may let in whoever knows it.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._transactions import Result
from stellwerk.api.admin import webhook_actions as actions
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.webhook_actions import NewWebhook, WebhookChanges
from stellwerk.api.admin.webhook_shapes import (
    DELIVERY,
    SHOWN_ONCE,
    WEBHOOK,
    DeletedWebhook,
    DeliveriesQuery,
    DeliveryId,
    DeliveryShape,
    NewWebhookBody,
    NewWebhookShape,
    SecretShape,
    WebhookChangesBody,
    WebhookId,
    WebhookShape,
    show_delivery,
    show_webhook,
)
from stellwerk.core.errors import BadRequest, Conflict, NotFound, Unavailable, UpstreamError
from stellwerk.core.principal import ADMINS
from stellwerk.records import audit
from stellwerk.records.audit import Actor
from stellwerk.storage.sealing import Seal
from stellwerk.webhooks import outbox, subscriptions
from stellwerk.webhooks.outbox import Delivery
from stellwerk.webhooks.subscriptions import MOST_SUBSCRIPTIONS

_TAG = "Webhooks"

CheckUrl = Callable[[str], Awaitable[object]]
"""Raises UrlRefused for a URL that may not be called, UpstreamError when it cannot be told now."""
SendTest = Callable[[int], Awaitable[Delivery]]
"""Delivers a test message to the webhook of that number. Raises NotFound, and Conflict when it is switched off."""


class WebhooksAPI:
    """`refresh` makes the deliveries of this process take over what was changed."""

    def __init__(
        self,
        administration: Administration,
        *,
        seal: Seal,
        check: CheckUrl,
        test: SendTest,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._administration = administration
        self._seal = seal
        self._check = check
        self._test = test
        self._refresh = refresh

    def register(self, registry: Registry) -> None:
        for endpoint in (*self._of_webhooks(), *self._of_one(), *self._of_deliveries()):
            registry.add(endpoint)

    def _of_webhooks(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path="/admin/api/webhooks",
                access=ADMINS,
                tag=_TAG,
                summary="List webhooks, oldest first",
                handler=self._list,
                answer=list[WebhookShape],
                example=[WEBHOOK],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="POST",
                path="/admin/api/webhooks",
                access=ADMINS,
                tag=_TAG,
                summary="Add a webhook",
                description="The signing secret is in this answer and never comes again. URLs in private networks are "
                f"refused unless `egress.allowed_origins` names their origin; {MOST_SUBSCRIPTIONS} webhooks at most.",
                handler=self._create,
                body=NewWebhookBody,
                body_example={"url": "https://example.org/hook", "events": ["request.finished"]},
                answer=NewWebhookShape,
                example={**WEBHOOK, "secret": SHOWN_ONCE},
                errors=(Unavailable,),
            ),
        )

    def _of_one(self) -> tuple[Endpoint, ...]:
        one: dict[str, Any] = {"access": ADMINS, "tag": _TAG, "path_parameters": {"webhook_id": WebhookId}}
        path, errors = "/admin/api/webhooks/{webhook_id}", (NotFound, Unavailable)
        return (
            Endpoint(
                method="GET",
                path=path,
                summary="Show a webhook",
                handler=self._show,
                answer=WebhookShape,
                example=WEBHOOK,
                errors=errors,
                **one,
            ),
            Endpoint(
                method="PATCH",
                path=path,
                summary="Change a webhook",
                description="`active` true gives one that the gateway has switched off a new start.",
                handler=self._change,
                body=WebhookChangesBody,
                body_example={"active": True},
                answer=WebhookShape,
                example=WEBHOOK,
                errors=errors,
                **one,
            ),
            Endpoint(
                method="DELETE",
                path=path,
                summary="Delete a webhook with its messages and their log",
                handler=self._delete,
                answer=DeletedWebhook,
                example={"status": "deleted"},
                errors=errors,
                **one,
            ),
            Endpoint(
                method="POST",
                path=f"{path}/secret",
                summary="Replace the signing secret",
                description="The new one is in this answer and never comes again.",
                handler=self._renew,
                answer=SecretShape,
                example={"secret": SHOWN_ONCE},
                errors=errors,
                **one,
            ),
        )

    def _of_deliveries(self) -> tuple[Endpoint, ...]:
        one: dict[str, Any] = {"access": ADMINS, "tag": _TAG}
        of_webhook = {"webhook_id": WebhookId}
        return (
            Endpoint(
                method="POST",
                path="/admin/api/webhooks/{webhook_id}/test",
                summary="Send a message `test` now, once",
                description="Answers what came of it. 409 for a webhook that is switched off.",
                handler=self._send_test,
                path_parameters=of_webhook,
                answer=DeliveryShape,
                example={**DELIVERY, "event": "test"},
                errors=(NotFound, Conflict, Unavailable),
                **one,
            ),
            Endpoint(
                method="GET",
                path="/admin/api/webhooks/{webhook_id}/deliveries",
                summary="List the messages of a webhook, newest first",
                handler=self._list_deliveries,
                path_parameters=of_webhook,
                query=DeliveriesQuery,
                answer=list[DeliveryShape],
                example=[DELIVERY],
                errors=(NotFound, Unavailable),
                **one,
            ),
            Endpoint(
                method="POST",
                path="/admin/api/webhooks/deliveries/{delivery_id}/retry",
                summary="Send a message again, under the same id",
                description="409 when its content is not kept any more: it has arrived, or failed days ago.",
                handler=self._retry,
                path_parameters={"delivery_id": DeliveryId},
                answer=DeliveryShape,
                example={**DELIVERY, "state": "pending", "next_attempt_at": "2026-11-21T09:30:00.000Z"},
                errors=(NotFound, Conflict, Unavailable),
                **one,
            ),
        )

    # --- what they do

    async def _list(self, _: Asked) -> list[WebhookShape]:
        return [show_webhook(record) for record in await self._administration.fetch(subscriptions.list_subscriptions)]

    async def _show(self, asked: Asked) -> WebhookShape:
        webhook_id = asked.parameters["webhook_id"]
        return show_webhook(
            await self._administration.fetch(lambda connection: subscriptions.get(connection, webhook_id))
        )

    async def _create(self, asked: Asked) -> NewWebhookShape:
        body: NewWebhookBody = asked.body
        await self._check_url(body.url)
        new = NewWebhook(**{**msgspec.structs.asdict(body), "events": tuple(body.events)})
        seal = self._seal
        record, secret = await self._write(
            asked, lambda connection, actor, now: actions.create_webhook(connection, actor, new, seal, now=now)
        )
        return NewWebhookShape(**msgspec.structs.asdict(show_webhook(record)), secret=secret.reveal())

    async def _change(self, asked: Asked) -> WebhookShape:
        body: WebhookChangesBody = asked.body
        webhook_id, changes = asked.parameters["webhook_id"], WebhookChanges(**msgspec.structs.asdict(body))
        if body.url is not UNSET:
            await self._check_url(body.url)
        return show_webhook(
            await self._write(
                asked,
                lambda connection, actor, now: actions.change_webhook(connection, actor, webhook_id, changes, now=now),
            )
        )

    async def _delete(self, asked: Asked) -> DeletedWebhook:
        webhook_id = asked.parameters["webhook_id"]
        await self._write(
            asked, lambda connection, actor, now: actions.delete_webhook(connection, actor, webhook_id, now=now)
        )
        return DeletedWebhook(status="deleted")

    async def _renew(self, asked: Asked) -> SecretShape:
        webhook_id, seal = asked.parameters["webhook_id"], self._seal
        secret = await self._write(
            asked, lambda connection, actor, now: actions.renew_secret(connection, actor, webhook_id, seal, now=now)
        )
        return SecretShape(secret=secret.reveal())

    async def _send_test(self, asked: Asked) -> DeliveryShape:
        webhook_id = asked.parameters["webhook_id"]
        delivery = await self._test(webhook_id)
        await self._write(
            asked,
            lambda connection, actor, now: audit.append(
                connection, actor, "webhook.test", f"webhook:{webhook_id}", {"state": str(delivery.state)}, now=now
            ),
        )
        return show_delivery(delivery)

    async def _list_deliveries(self, asked: Asked) -> list[DeliveryShape]:
        webhook_id, query = asked.parameters["webhook_id"], asked.query

        def read(connection: Connection) -> list[Delivery]:
            subscriptions.get(connection, webhook_id)
            return outbox.list_deliveries(connection, webhook_id, query.limit)

        return [show_delivery(delivery) for delivery in await self._administration.fetch(read)]

    async def _retry(self, asked: Asked) -> DeliveryShape:
        delivery_id = asked.parameters["delivery_id"]
        return show_delivery(
            await self._write(
                asked,
                lambda connection, actor, now: actions.retry_delivery(connection, actor, delivery_id, now=now),
            )
        )

    async def _check_url(self, url: str) -> None:
        """Raises BadRequest that names `url`. A name without an address now may have one when it is needed."""
        try:
            await self._check(url)
        except UpstreamError:
            return
        except BadRequest as refused:
            raise BadRequest(refused.message, code=refused.code, param="url") from None

    async def _write(self, asked: Asked, work: Callable[[Connection, Actor, float], Result]) -> Result:
        result = await self._administration.change(asked, work)
        # It is stored already: an error here would make the client do it twice.
        with suppress(Unavailable):
            await self._refresh()
        return result
