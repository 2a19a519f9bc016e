"""What `stellwerk shell` does with keys."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import typer
from sqlalchemy import Connection

from stellwerk.api.admin import actions
from stellwerk.auth.fields import MOST_REQUESTS
from stellwerk.auth.keys import KeyChanges, KeyRecord, NewKey, list_keys
from stellwerk.auth.tokens import PREFIX, Digest
from stellwerk.cli.data import OpenFolder
from stellwerk.cli.keys import admin_keys
from stellwerk.cli.tables import NOTHING, Column, Wording, local_time, print_table
from stellwerk.core.principal import Allowance
from stellwerk.core.secrets import Secret
from stellwerk.ledger.reports import last_used

MOST_AT_ONCE = 1000
_LEAST_OF_PREFIX = 3
_ID_CHARACTERS = 10
_NAME = "shell"
_CHARACTERS_OF_DATE = 10

TEXTS: Mapping[str, Mapping[str, str]] = {
    "made": {
        "en": "Key {id}, {limit}. It is shown this once:",
        "de": "Schlüssel {id}, {limit}. Er wird nur dieses eine Mal gezeigt:",
    },
    "made_several": {
        "en": "{count} keys, {limit} each. They are shown this once:",
        "de": "{count} Schlüssel, je {limit}. Sie werden nur dieses eine Mal gezeigt:",
    },
    "limit": {"en": "{count} requests a minute", "de": "{count} Anfragen je Minute"},
    "unlimited": {"en": "as many requests as anybody", "de": "so viele Anfragen wie jeder"},
    "bad_count": {
        "en": "How many is a whole number from 1 to {most}: generatekeys 5",
        "de": "Wie viele, ist eine ganze Zahl von 1 bis {most}: generatekeys 5",
    },
    "bad_limit": {
        "en": "The limit is a whole number from 0 to {most}; 0 is unlimited.",
        "de": "Das Limit ist eine ganze Zahl von 0 bis {most}; 0 heißt unbegrenzt.",
    },
    "none": {
        "en": "There are no keys yet; generatekey makes one.",
        "de": "Es gibt noch keine Schlüssel; generatekey erzeugt einen.",
    },
    "not_found": {"en": "No such key was found.", "de": "Diesen Schlüssel gibt es nicht."},
    "ambiguous": {"en": "Several keys begin so: {ids}", "de": "Mehrere Schlüssel beginnen so: {ids}"},
    "removed": {"en": "Key {id} is removed.", "de": "Schlüssel {id} ist entfernt."},
    "removed_before": {"en": "Key {id} was removed before.", "de": "Schlüssel {id} war schon entfernt."},
    "last_admin": {
        "en": "{id} is the last admin key. `stellwerk keys revoke {id} --yes` revokes it all the same.",
        "de": "{id} ist der letzte Admin-Schlüssel. `stellwerk keys revoke {id} --yes` widerruft ihn trotzdem.",
    },
    "limited": {"en": "Key {id}: {limit}.", "de": "Schlüssel {id}: {limit}."},
    "enabled": {"en": "Key {id} is active.", "de": "Schlüssel {id} ist aktiv."},
    "disabled": {
        "en": "Key {id} is deactivated; enablekey {id} makes it good again.",
        "de": "Schlüssel {id} ist abgeschaltet; enablekey {id} schaltet ihn wieder ein.",
    },
    "described": {"en": "Key {id} is called: {name}", "de": "Schlüssel {id} heißt: {name}"},
    "yes": {"en": "yes", "de": "ja"},
    "no": {"en": "no", "de": "nein"},
    "never": {"en": "never", "de": "nie"},
    "column_id": {"en": "id", "de": "ID"},
    "column_key": {"en": "key", "de": "Schlüssel"},
    "column_created": {"en": "created", "de": "erstellt"},
    "column_used": {"en": "last used", "de": "zuletzt"},
    "column_limit": {"en": "per minute", "de": "je Minute"},
    "column_active": {"en": "active", "de": "aktiv"},
    "column_description": {"en": "description", "de": "Beschreibung"},
}
text = Wording(TEXTS)

_COLUMNS = ("id", "key", "created", "used", "limit", "active", "description")


class KeyCommands:
    """Makes, lists, changes and removes keys; each method takes the words after the command.

    What goes wrong is said on standard error and raised as typer.Exit or GatewayError.
    """

    def __init__(self, folder: OpenFolder, requests_per_minute: int) -> None:
        self._folder = folder
        self._limit = requests_per_minute
        # Read once: whoever removes the file meanwhile must not make keys that the running gateway does not know.
        self._digest: Digest = folder.digest()

    def generate(self, _: Sequence[str]) -> None:
        [(record, token)] = self._make(1)
        text.say("made", id=record.id, limit=_limit_words(self._limit))
        typer.echo(token.reveal())

    def generate_several(self, words: Sequence[str]) -> None:
        count = _number(words[0])
        if count is None or not 0 < count <= MOST_AT_ONCE:
            text.fail("bad_count", most=MOST_AT_ONCE)
        made = self._make(count)
        text.say("made_several", count=count, limit=_limit_words(self._limit))
        typer.echo("\n".join(token.reveal() for _, token in made))

    def list_all(self, _: Sequence[str]) -> None:
        now = self._folder.now

        def look(connection: Connection) -> tuple[list[KeyRecord], Mapping[str, float]]:
            records = [record for record in list_keys(connection) if record.revoked_at is None]
            return records, last_used(connection, [record.id for record in records])

        records, used = self._folder.read(look)
        if not records:
            text.say("none")
            return
        columns = [Column(text(f"column_{name}"), wraps=name == "description") for name in _COLUMNS]
        print_table(columns, [_cells(record, used.get(record.id), now) for record in records])

    def remove(self, words: Sequence[str]) -> None:
        def end(connection: Connection) -> KeyRecord:
            before = self._find(connection, words[0])
            self._check_last_admin(connection, before)
            actions.revoke_key(connection, self._folder.actor, before.id, now=self._folder.now)
            return before

        before = self._folder.write(end)
        text.say("removed" if before.revoked_at is None else "removed_before", id=before.id)

    def limit(self, words: Sequence[str]) -> None:
        count = _number(words[1])
        if count is None or count > MOST_REQUESTS:
            text.fail("bad_limit", most=MOST_REQUESTS)
        record = self._change(
            words[0],
            lambda before: KeyChanges(allowance=msgspec.structs.replace(before.allowance, requests_per_minute=count)),
        )
        text.say("limited", id=record.id, limit=_limit_words(count))

    def enable(self, words: Sequence[str]) -> None:
        record = self._change(words[0], lambda _: KeyChanges(expires_at=None))
        text.say("enabled", id=record.id)

    def disable(self, words: Sequence[str]) -> None:
        def expire(connection: Connection) -> KeyRecord:
            before = self._find_usable(connection, words[0])
            self._check_last_admin(connection, before)
            now = self._folder.now
            changes = KeyChanges(expires_at=min(before.expires_at or now, now))
            return actions.change_key(connection, self._folder.actor, before.id, changes, now=now)

        text.say("disabled", id=self._folder.write(expire).id)

    def describe(self, words: Sequence[str]) -> None:
        record = self._change(words[0], lambda _: KeyChanges(name=" ".join(words[1:])))
        text.say("described", id=record.id, name=record.name)

    def ids(self) -> list[str]:
        """Of the keys that were not removed, for completion."""
        records = self._folder.read(list_keys)
        return [record.id for record in records if record.revoked_at is None]

    def _make(self, count: int) -> list[tuple[KeyRecord, Secret]]:
        key = NewKey(name=_NAME, allowance=Allowance(requests_per_minute=self._limit))
        now = self._folder.now

        def make(connection: Connection) -> list[tuple[KeyRecord, Secret]]:
            return [
                actions.create_key(connection, self._folder.actor, key, self._digest, now=now) for _ in range(count)
            ]

        return self._folder.write(make)

    def _change(self, given: str, changes: Callable[[KeyRecord], KeyChanges]) -> KeyRecord:
        def change(connection: Connection) -> KeyRecord:
            before = self._find_usable(connection, given)
            return actions.change_key(connection, self._folder.actor, before.id, changes(before), now=self._folder.now)

        return self._folder.write(change)

    def _find_usable(self, connection: Connection, given: str) -> KeyRecord:
        record = self._find(connection, given)
        if record.revoked_at is not None:
            text.fail("removed_before", id=record.id)
        return record

    def _find(self, connection: Connection, given: str) -> KeyRecord:
        """By the whole key, its id, or a beginning that no other key has."""
        records = list_keys(connection)
        digest = self._digest(given.encode(errors="replace"))
        # Masked keys are shown as `sk-sw-<id>-…1234`, and who copies all of that means the key.
        beginning = given.partition("…")[0].removeprefix(PREFIX).rstrip("-")
        found = [record for record in records if record.digest == digest] or [
            record for record in records if record.id == beginning
        ]
        if not found and _LEAST_OF_PREFIX <= len(beginning) < _ID_CHARACTERS:
            found = [record for record in records if record.revoked_at is None and record.id.startswith(beginning)]
        if not found:
            text.fail("not_found")
        if len(found) > 1:
            text.fail("ambiguous", ids=" ".join(record.id for record in found))
        return found[0]

    def _check_last_admin(self, connection: Connection, record: KeyRecord) -> None:
        if admin_keys(connection, self._folder.now) == [record.id]:
            text.fail("last_admin", id=record.id)


def _number(given: str) -> int | None:
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 9 else None


def _limit_words(count: int) -> str:
    return text("limit", count=count) if count else text("unlimited")


def _cells(record: KeyRecord, used: float | None, now: float) -> list[str]:
    limit = record.allowance.requests_per_minute
    return [
        record.id,
        # The rest of a key's beginning is its id, and one from elsewhere has none of that.
        f"…{record.last_four}",
        local_time(record.created_at)[:_CHARACTERS_OF_DATE],
        text("never") if used is None else local_time(used),
        str(limit) if limit else NOTHING,
        text("yes" if record.state(now) == "active" else "no"),
        record.name,
    ]
