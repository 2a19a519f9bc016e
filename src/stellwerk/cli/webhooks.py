"""`stellwerk webhooks`: who is told what happens in the gateway, and what came of telling them."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from stellwerk.api.admin import webhook_actions as actions
from stellwerk.api.admin.webhook_actions import NewWebhook, WebhookChanges
from stellwerk.cli.data import AsJson, Data, OpenFolder, opened
from stellwerk.cli.tables import Wording, print_json
from stellwerk.cli.webhook_view import (
    delivery_values,
    explain_failure,
    print_deliveries,
    print_webhooks,
    webhook_values,
)
from stellwerk.config.reading import find, load_beside
from stellwerk.core.errors import UpstreamError
from stellwerk.http.egress import Egress
from stellwerk.records import audit
from stellwerk.webhooks import outbox
from stellwerk.webhooks.delivery import Answered, Webhooks
from stellwerk.webhooks.outbox import Delivery
from stellwerk.webhooks.payloads import EVENTS
from stellwerk.webhooks.schedule import State
from stellwerk.webhooks.subscriptions import get, list_subscriptions

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Tell other programs what happens in the gateway.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "added": {
        "en": "Webhook {id} is told: {events}. Its signing secret is shown this once:",
        "de": "Webhook {id} hört: {events}. Sein Signaturgeheimnis wird nur dieses eine Mal gezeigt:",
    },
    "renewed": {
        "en": "Webhook {id} has a new signing secret; for a day the old one counts too. It is shown this once:",
        "de": "Webhook {id} hat ein neues Signaturgeheimnis; einen Tag lang gilt auch das alte. "
        "Es wird nur dieses eine Mal gezeigt:",
    },
    "no_address": {
        "en": "The name in the URL has no address at the moment; at each delivery it is looked up anew.",
        "de": "Der Name in der URL hat gerade keine Adresse; bei jeder Zustellung wird er neu nachgeschlagen.",
    },
    "none": {
        "en": "There are no webhooks; `stellwerk webhooks add URL` adds one.",
        "de": "Es gibt keine Webhooks; `stellwerk webhooks add URL` fügt einen hinzu.",
    },
    "removed": {"en": "Webhook {id} is removed.", "de": "Webhook {id} ist entfernt."},
    "enabled": {"en": "Webhook {id} is on.", "de": "Webhook {id} ist an."},
    "disabled": {"en": "Webhook {id} is off.", "de": "Webhook {id} ist aus."},
    "delivered": {"en": "The message has arrived.", "de": "Die Nachricht ist angekommen."},
    "not_delivered": {
        "en": "The message has not arrived: {error}",
        "de": "Die Nachricht ist nicht angekommen: {error}",
    },
    "no_deliveries": {
        "en": "Webhook {id} has not been told anything lately.",
        "de": "Webhook {id} hat in letzter Zeit nichts gehört.",
    },
    "retried": {
        "en": "{id} is sent again as soon as a gateway runs.",
        "de": "{id} wird noch einmal gesendet, sobald ein Gateway läuft.",
    },
}
text = Wording(TEXTS)

Number = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**53 - 1, help="The number of the webhook.")]


@app.command("list")
def list_all(data: Data = None, as_json: AsJson = False) -> None:
    """List the webhooks, oldest first. Their secrets are not shown any more."""
    with opened(data) as folder:
        records = folder.read(list_subscriptions)
        if as_json:
            print_json([webhook_values(record) for record in records])
        elif records:
            print_webhooks(records)
        else:
            text.say("none")


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where messages are sent: http or https.")],
    event: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"What it is told, once or more: {', '.join(EVENTS)}.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    images: Annotated[bool, typer.Option("--images", help="Send the images of requests too.")] = False,
    whole_key: Annotated[
        bool, typer.Option("--whole-key", help="Send the keys of requests in clear, not their mask.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Add a webhook and show its signing secret, this once. Only the secret goes to standard output.

    Without --event it is told of every finished request.
    """
    with opened(data) as folder:
        check_url(url, folder)
        events = tuple(event) if event else ("request.finished",)
        new = NewWebhook(url=url, events=events, description=description, with_images=images, with_key=whole_key)
        seal = folder.seal()
        made, secret = folder.write(
            lambda connection: actions.create_webhook(connection, folder.actor, new, seal, now=folder.now)
        )
        if as_json:
            print_json(webhook_values(made) | {"secret": secret.reveal()})
        else:
            text.say("added", id=made.id, events=", ".join(made.events))
            typer.echo(secret.reveal())


@app.command()
def remove(webhook: Number, data: Data = None) -> None:
    """Remove a webhook with its messages and their log."""
    with opened(data) as folder:
        folder.write(lambda connection: actions.delete_webhook(connection, folder.actor, webhook, now=folder.now))
        text.say("removed", id=webhook)


@app.command()
def enable(webhook: Number, data: Data = None) -> None:
    """Switch a webhook on, also one that the gateway has switched off."""
    _switch(webhook, data, on=True)


@app.command()
def disable(webhook: Number, data: Data = None) -> None:
    """Switch a webhook off; what happens meanwhile it is never told."""
    _switch(webhook, data, on=False)


@app.command()
def secret(webhook: Number, data: Data = None, as_json: AsJson = False) -> None:
    """Make a new signing secret and show it, this once. For a day messages are signed with the old one too."""
    with opened(data) as folder:
        seal = folder.seal()
        made = folder.write(
            lambda connection: actions.renew_secret(connection, folder.actor, webhook, seal, now=folder.now)
        )
        if as_json:
            print_json({"id": webhook, "secret": made.reveal()})
        else:
            text.say("renewed", id=webhook)
            typer.echo(made.reveal())


@app.command("test")
def send_test(webhook: Number, data: Data = None, as_json: AsJson = False) -> None:
    """Send a test message now, with or without a running gateway, and say what came of it."""
    with opened(data) as folder:
        delivery = asyncio.run(_deliver_test(folder, webhook))
        folder.write(
            lambda connection: audit.append(
                connection,
                folder.actor,
                "webhook.test",
                f"webhook:{webhook}",
                {"state": str(delivery.state)},
                now=folder.now,
            )
        )
        if as_json:
            print_json(delivery_values(delivery))
        elif delivery.state is State.DELIVERED:
            text.say("delivered")
        if delivery.state is not State.DELIVERED:
            error = delivery.log[-1].error if delivery.log else None
            text.fail("not_delivered", error=explain_failure(error or ""))


@app.command()
def deliveries(
    webhook: Number,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the messages of a webhook and what came of them, newest first."""
    with opened(data) as folder:

        def look(connection: Connection) -> list[Delivery]:
            get(connection, webhook)
            return outbox.list_deliveries(connection, webhook, limit)

        found = folder.read(look)
        if as_json:
            print_json([delivery_values(delivery) for delivery in found])
        elif found:
            print_deliveries(found)
        else:
            text.say("no_deliveries", id=webhook)


@app.command()
def retry(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="The id of the message: msg_…")], data: Data = None
) -> None:
    """Send a message again that has failed or waits, under the same id."""
    with opened(data) as folder:
        delivery = folder.write(
            lambda connection: actions.retry_delivery(connection, folder.actor, message, now=folder.now)
        )
        text.say("retried", id=delivery.id)


def check_url(url: str, folder: OpenFolder) -> None:
    """Refuses a URL that the gateway would not call. Raises UrlRefused and ConfigError."""
    try:
        asyncio.run(_egress(folder).check(url))
    except UpstreamError:
        text.say("no_address")


def _switch(webhook: int, data: Path | None, *, on: bool) -> None:
    with opened(data) as folder:
        changes = WebhookChanges(active=on)
        folder.write(
            lambda connection: actions.change_webhook(connection, folder.actor, webhook, changes, now=folder.now)
        )
        text.say("enabled" if on else "disabled", id=webhook)


def _egress(folder: OpenFolder) -> Egress:
    allowed = load_beside(find(None, os.environ, folder.folder), os.environ).egress.allowed_origins
    return Egress(lambda: allowed)


async def _deliver_test(folder: OpenFolder, webhook: int) -> Delivery:
    async def run(work: Callable[[Connection], Answered]) -> Answered:
        return await asyncio.to_thread(folder.write, work)

    async def fetch(work: Callable[[Connection], Answered]) -> Answered:
        return await asyncio.to_thread(folder.read, work)

    def submit(work: Callable[[Connection], Any]) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(folder.write(work))
        return done

    webhooks = Webhooks(
        run=run, submit=submit, fetch=fetch, send=_egress(folder).send, seal=folder.seal(), clock=folder.clock
    )
    return await webhooks.send_test(webhook)
