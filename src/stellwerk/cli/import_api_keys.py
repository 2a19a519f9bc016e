"""Takes over what an `apiKeys.db` of Go Ollama API holds: keys, the moments of their calls, and webhooks."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection

from stellwerk.api.admin import actions
from stellwerk.api.admin.webhook_actions import NewWebhook, create_webhook
from stellwerk.auth.fields import LONGEST_NAME
from stellwerk.auth.keys import KeyRecord, NewKey
from stellwerk.auth.tokens import Digest, KeyFault
from stellwerk.cli.data import OpenFolder
from stellwerk.cli.import_report import Finding, refused
from stellwerk.cli.old_database import OldRow, read_time
from stellwerk.cli.refusals import explain
from stellwerk.cli.tables import NOTHING, Wording, visible
from stellwerk.core.errors import BadRequest, NotFound, UpstreamError
from stellwerk.core.principal import Allowance
from stellwerk.core.secrets import Secret
from stellwerk.http.egress import Egress
from stellwerk.http.egress_url import UrlRefused, parse_url
from stellwerk.ledger.past_calls import PastCall, add_past_call
from stellwerk.storage.sealing import Seal
from stellwerk.webhooks.payloads import GENERATE_REQUESTED
from stellwerk.webhooks.subscriptions import list_subscriptions

KEYS, USAGE, WEBHOOKS = "apiKeys", "apiUsage", "webhooks"
KEY_COLUMNS = ("key", "created_at", "rate_limit", "active", "description")
USAGE_COLUMNS = ("key", "timestamp")
WEBHOOK_COLUMNS = ("id", "url")
MOST_WEBHOOKS = 200
"""Looked at: each may cost a look-up of its host name."""

_LOOK_UPS_AT_ONCE = 2
_RATE_LIMIT = 10
"""Requests a minute of a key that does not say: the documented default."""
_SOURCE = "go-ollama-api"
_LARGEST_ROW_NUMBER = 2**63

TEXTS = {
    "damaged": {"en": "the row is damaged or too large", "de": "die Zeile ist beschädigt oder zu groß"},
    "no_key": {"en": "there is no key in it", "de": "es steht kein Schlüssel darin"},
    KeyFault.TOO_SHORT: {
        "en": "the key is too short: fewer than 16 characters can be guessed",
        "de": "der Schlüssel ist zu kurz: weniger als 16 Zeichen lassen sich erraten",
    },
    KeyFault.TOO_LONG: {"en": "the key is too long", "de": "der Schlüssel ist zu lang"},
    KeyFault.UNUSABLE: {
        "en": "the key has blanks or characters outside ASCII",
        "de": "der Schlüssel enthält Leerzeichen oder Zeichen außerhalb von ASCII",
    },
    KeyFault.GUESSABLE: {"en": "the key is easy to guess", "de": "der Schlüssel ist leicht zu erraten"},
    "bad_number": {"en": "{column} is not a whole number", "de": "{column} ist keine ganze Zahl"},
    "inactive": {
        "en": "it was deactivated and stays so until `stellwerk keys update ID --expires none`",
        "de": "er war abgeschaltet und bleibt es bis zu `stellwerk keys update ID --expires none`",
    },
    "no_such_key": {
        "en": "its key is not among those that are taken over",
        "de": "sein Schlüssel ist nicht unter den übernommenen",
    },
    "bad_time": {"en": "the time cannot be read", "de": "die Zeit ist nicht lesbar"},
    "no_url": {"en": "there is no URL in it", "de": "es steht keine URL darin"},
    "no_address": {
        "en": "its host name has no address at the moment",
        "de": "der Hostname hat im Augenblick keine Adresse",
    },
    "url_refused": {
        "en": "{message}",
        "de": "die URL führt nicht zu einer öffentlichen Adresse oder hat eine Form, die nicht aufgerufen wird; "
        "in egress.allowed_origins lassen sich einzelne Ziele erlauben",
    },
}
text = Wording(TEXTS)


class _Owner(msgspec.Struct, frozen=True):
    key_id: str
    user_id: int


class ApiKeysImport:
    """Takes the rows of the three tables in their order: keys, usage, webhooks.

    Each `take_…` stores one row in the transaction of `connection`. What it remembers of the keys counts also when
    that transaction is rolled back, so that a dry run says of calls what a real one would.
    """

    def __init__(self, folder: OpenFolder, digest: Digest, egress: Egress, seal: Seal) -> None:
        self._folder = folder
        self._digest = digest
        self._egress = egress
        self._seal = seal
        self._owners: dict[bytes, _Owner] = {}
        self._calls: Counter[tuple[str, float]] = Counter()
        self._urls: set[str] = set()

    # --- keys

    def take_key(self, connection: Connection, row: OldRow, user_id: int | None) -> Finding:
        values = row.values
        if values is None:
            return refused(KEYS, row.number, NOTHING, text("damaged"))
        given = values.get("key")
        if not isinstance(given, str) or not given:
            return refused(KEYS, row.number, NOTHING, text("no_key"))
        shown = _hint(given)
        limit, active = _number(values, "rate_limit", _RATE_LIMIT), _number(values, "active", 1)
        for column, number in (("rate_limit", limit), ("active", active)):
            if number is None:
                return refused(KEYS, row.number, shown, text("bad_number", column=column))
        now = self._folder.now
        # Nothing was granted to a limit of 0, which here would be none at all.
        usable = bool(active) and (limit or 0) > 0
        key = NewKey(
            name=_name(values.get("description"), given),
            user_id=user_id,
            allowance=Allowance(requests_per_minute=max(limit or 0, 1)),
            expires_at=None if usable else now,
        )
        created_at = read_time(values.get("created_at"))
        try:
            record, made = actions.import_key(
                connection,
                self._folder.actor,
                key,
                Secret(given),
                self._digest,
                created_at=now if created_at is None else created_at,
                now=now,
            )
        except (BadRequest, NotFound) as error:
            reason = text(KeyFault(error.param or "")) if error.code == "weak_key" else explain(error)
            return refused(KEYS, row.number, shown, reason)
        self._remember(record)
        note = None if usable or not made else text("inactive")
        return Finding(table=KEYS, row=row.number, what=shown, result="imported" if made else "present", reason=note)

    def _remember(self, record: KeyRecord) -> None:
        self._owners[record.digest] = _Owner(record.id, record.user_id)

    # --- calls

    def take_call(self, connection: Connection, row: OldRow) -> Finding:
        values = row.values
        if values is None:
            return refused(USAGE, row.number, NOTHING, text("damaged"))
        given = values.get("key")
        shown = _hint(given) if isinstance(given, str) else NOTHING
        owner = self._owners.get(self._digest(given.encode())) if isinstance(given, str) else None
        if owner is None:
            return refused(USAGE, row.number, shown, text("no_such_key"))
        at = read_time(values.get("timestamp"))
        if at is None:
            return refused(USAGE, row.number, shown, text("bad_time"))
        # Several calls of a key have the same second; the rows have no number that would stay.
        self._calls[owner.key_id, at] += 1
        call = PastCall(
            id=f"{_SOURCE}-{self._calls[owner.key_id, at]}", at=at, key_id=owner.key_id, user_id=owner.user_id
        )
        made = add_past_call(connection, call)
        return Finding(table=USAGE, row=row.number, what=shown, result="imported" if made else "present")

    # --- webhooks

    def look_up(self, rows: Iterable[OldRow]) -> list["CheckedWebhook"]:
        """Judges the URLs before anything is written: a slow resolver must not keep others from the database."""
        return asyncio.run(self._look_up(rows))

    async def _look_up(self, rows: Iterable[OldRow]) -> list["CheckedWebhook"]:
        places = asyncio.Semaphore(_LOOK_UPS_AT_ONCE)

        async def look_up(row: OldRow) -> CheckedWebhook:
            async with places:
                return await self._check(row)

        return await asyncio.gather(*map(look_up, rows))

    async def _check(self, row: OldRow) -> "CheckedWebhook":
        if row.values is None:
            return CheckedWebhook(row, "", NOTHING, refusal=text("damaged"))
        url = row.values.get("url")
        url = url.strip() if isinstance(url, str) else ""
        if not url:
            return CheckedWebhook(row, "", NOTHING, refusal=text("no_url"))
        shown = NOTHING
        try:
            shown = parse_url(url).origin
            await self._egress.check(url)
        except UrlRefused as error:
            return CheckedWebhook(row, url, shown, refusal=text("url_refused", message=error.message.rstrip(".")))
        except UpstreamError:
            # Every delivery asks again.
            return CheckedWebhook(row, url, shown, note=text("no_address"))
        return CheckedWebhook(row, url, shown)

    def take_webhook(self, connection: Connection, checked: "CheckedWebhook") -> Finding:
        row, url, shown = checked.row, checked.url, checked.shown
        known = {each.url for each in list_subscriptions(connection) if GENERATE_REQUESTED in each.events}
        if url and url in known | self._urls:
            return Finding(table=WEBHOOKS, row=row.number, what=shown, result="present")
        if checked.refusal is not None:
            return refused(WEBHOOKS, row.number, shown, checked.refusal)
        new = NewWebhook(url=url, events=(GENERATE_REQUESTED,), description=_SOURCE)
        try:
            create_webhook(connection, self._folder.actor, new, self._seal, now=self._folder.now)
        except BadRequest as error:
            return refused(WEBHOOKS, row.number, shown, explain(error))
        self._urls.add(url)
        return Finding(table=WEBHOOKS, row=row.number, what=shown, result="imported", reason=checked.note)


class CheckedWebhook(msgspec.Struct, frozen=True):
    """A row of webhooks after its URL was judged."""

    row: OldRow
    url: str
    shown: str
    """The origin alone: receivers know their senders by the rest."""
    refusal: str | None = None
    note: str | None = None


def _number(values: Any, column: str, default: int) -> int | None:
    """The whole number in a column, `default` where it is empty or not there, None where it is something else."""
    value = values.get(column)
    if value is None:
        return default
    return value if isinstance(value, int) and abs(value) < _LARGEST_ROW_NUMBER else None


def _hint(key: str) -> str:
    """How a key is shown: enough to find it again, and no more."""
    return visible(f"…{key[-4:]}") if len(key) >= 16 else "…"


def _name(description: Any, key: str) -> str:
    """A key's description as a name; one that has none is called by its end."""
    words = visible(description).strip()[:LONGEST_NAME].strip() if isinstance(description, str) else ""
    return words or f"{_SOURCE} {_hint(key)}"
