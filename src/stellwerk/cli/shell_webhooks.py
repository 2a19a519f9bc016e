"""What `stellwerk shell` does with webhooks: they hear of every request to Go Ollama API."""

from collections.abc import Mapping, Sequence

import typer

from stellwerk.api.admin.webhook_actions import NewWebhook, create_webhook, delete_webhook
from stellwerk.cli.data import OpenFolder
from stellwerk.cli.tables import Wording
from stellwerk.cli.webhook_view import print_webhooks
from stellwerk.cli.webhooks import check_url
from stellwerk.webhooks.payloads import GENERATE_REQUESTED
from stellwerk.webhooks.subscriptions import list_subscriptions

TEXTS: Mapping[str, Mapping[str, str]] = {
    "added": {
        "en": "Webhook {id} is called for every request. Its signing secret is shown this once:",
        "de": "Webhook {id} wird bei jeder Anfrage gerufen. Sein Signaturgeheimnis wird nur dieses eine Mal gezeigt:",
    },
    "deleted": {"en": "Webhook {id} is deleted.", "de": "Webhook {id} ist gelöscht."},
    "bad_number": {
        "en": "A webhook is named by its number: deletewebhook 1",
        "de": "Ein Webhook wird mit seiner Nummer genannt: deletewebhook 1",
    },
    "none": {
        "en": "There are no webhooks; addwebhook URL adds one.",
        "de": "Es gibt keine Webhooks; addwebhook URL fügt einen hinzu.",
    },
}
text = Wording(TEXTS)


class WebhookCommands:
    """Adds, lists and deletes webhooks; each method takes the words after the command."""

    def __init__(self, folder: OpenFolder) -> None:
        self._folder = folder
        self._seal = folder.seal()

    def add(self, words: Sequence[str]) -> None:
        check_url(words[0], self._folder)
        new = NewWebhook(url=words[0], events=(GENERATE_REQUESTED,))
        folder = self._folder
        made, secret = folder.write(
            lambda connection: create_webhook(connection, folder.actor, new, self._seal, now=folder.now)
        )
        text.say("added", id=made.id)
        typer.echo(secret.reveal())

    def delete(self, words: Sequence[str]) -> None:
        given = words[0]
        if not (given.isascii() and given.isdigit() and len(given) <= 15):
            text.fail("bad_number")
        folder = self._folder
        folder.write(lambda connection: delete_webhook(connection, folder.actor, int(given), now=folder.now))
        text.say("deleted", id=int(given))

    def list_all(self, _: Sequence[str]) -> None:
        records = self._folder.read(list_subscriptions)
        if records:
            print_webhooks(records)
        else:
            text.say("none")

    def ids(self) -> list[str]:
        """For completion."""
        return [str(record.id) for record in self._folder.read(list_subscriptions)]
