"""How webhooks are shown: in a table and as JSON. Never their signing secrets."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.cli.language import language
from stellwerk.cli.tables import NOTHING, Column, Wording, local_time, moment, print_table
from stellwerk.tui.refusals import BY_CODE
from stellwerk.webhooks.outbox import Delivery
from stellwerk.webhooks.subscriptions import Subscription

TEXTS: Mapping[str, Mapping[str, str]] = {
    "active": {"en": "active", "de": "an"},
    "failing": {"en": "fails since {at}", "de": "scheitert seit {at}"},
    "off": {"en": "off", "de": "aus"},
    "off_because": {"en": "off: {reason}", "de": "aus: {reason}"},
    "pending": {"en": "waits, next at {at}", "de": "wartet, nächster Versuch {at}"},
    "delivered": {"en": "delivered", "de": "zugestellt"},
    "failed": {"en": "failed", "de": "gescheitert"},
    "column_message": {"en": "message", "de": "Nachricht"},
    "column_event": {"en": "event", "de": "Ereignis"},
    "column_at": {"en": "at", "de": "Zeit"},
    "column_attempts": {"en": "attempts", "de": "Versuche"},
    "column_error": {"en": "last error", "de": "letzter Fehler"},
    "column_id": {"en": "id", "de": "Nr."},
    "column_url": {"en": "URL", "de": "URL"},
    "column_events": {"en": "events", "de": "Ereignisse"},
    "column_state": {"en": "state", "de": "Zustand"},
    "column_description": {"en": "description", "de": "Beschreibung"},
}
text = Wording(TEXTS)

FAILURES: Mapping[str, str] = {
    "The receiver did not answer in time.": "Der Empfänger hat nicht rechtzeitig geantwortet.",
    "The receiver cannot be reached.": "Der Empfänger ist nicht zu erreichen.",
    "The receiver redirects, and redirects are not followed.": "Der Empfänger leitet um, und Umleitungen wird nicht "
    "gefolgt.",
    "The receiver answered 410 Gone.": "Der Empfänger hat mit 410 geantwortet: Er will nichts mehr.",
    "All deliveries of five days have failed.": "Alle Zustellungen von fünf Tagen sind gescheitert.",
    "The delivery failed inside the gateway.": "Die Zustellung ist im Gateway selbst gescheitert.",
    "The message was sealed with a secret that the gateway does not have any more.": "Die Nachricht war mit einem "
    "Geheimnis verschlossen, das das Gateway nicht mehr hat.",
    "The URL did not answer in time.": "Der Empfänger hat nicht rechtzeitig geantwortet.",
    "The host of the URL could not be reached in time.": "Der Empfänger war nicht rechtzeitig zu erreichen.",
    "The host of the URL cannot be reached.": "Der Empfänger ist nicht zu erreichen.",
    "The host name of the URL has no address at the moment.": "Der Name in der URL hat gerade keine Adresse.",
    "The TLS certificate or protocol of the URL's host is not valid.": "Zertifikat oder Protokoll (TLS) des Empfängers "
    "ist nicht gültig.",
}
"""What is stored of deliveries is English; here in German."""
_ANSWERED = re.compile(r"The receiver answered (\d{3})\.")

_COLUMNS = ("id", "url", "events", "state", "description")
_DELIVERY_COLUMNS = ("message", "event", "at", "state", "attempts", "error")
_USUAL = {"description": NOTHING, "error": NOTHING}
"""Cells of columns that are left out when they say nothing else."""


def print_webhooks(records: Sequence[Subscription]) -> None:
    columns = [
        Column(text(f"column_{name}"), wraps=name not in ("id", "state"), right=name == "id", usual=_USUAL.get(name))
        for name in _COLUMNS
    ]
    print_table(columns, [_cells(record) for record in records])


def webhook_values(record: Subscription) -> dict[str, Any]:
    """For programs: times in RFC 3339, null where there is none."""
    return {
        "id": record.id,
        "url": record.url,
        "events": record.events,
        "description": record.description,
        "active": record.active,
        "disabled_reason": record.disabled_reason,
        "with_images": record.with_images,
        "with_key": record.with_key,
        "failing_since": moment(record.failing_since),
        "created": moment(record.created_at),
    }


def print_deliveries(deliveries: Sequence[Delivery]) -> None:
    columns = [
        Column(text(f"column_{name}"), wraps=name == "error", right=name == "attempts", usual=_USUAL.get(name))
        for name in _DELIVERY_COLUMNS
    ]
    print_table(columns, [_delivery_cells(delivery) for delivery in deliveries])


def delivery_values(delivery: Delivery) -> dict[str, Any]:
    """For programs: times in RFC 3339, null where there is none."""
    return {
        "id": delivery.id,
        "webhook_id": delivery.subscription_id,
        "event": delivery.event,
        "state": str(delivery.state),
        "created": moment(delivery.created_at),
        "next_attempt": moment(delivery.next_attempt_at),
        "settled": moment(delivery.settled_at),
        "attempts": delivery.attempts,
        "log": [
            {
                "at": moment(attempt.at),
                "status": attempt.status,
                "milliseconds": attempt.milliseconds,
                "error": attempt.error,
            }
            for attempt in delivery.log
        ],
    }


def explain_failure(reason: str) -> str:
    """What came of a delivery, as it is stored, in the language of who reads it."""
    if language(os.environ) != "de":
        return reason
    answered = _ANSWERED.fullmatch(reason)
    if answered is not None:
        return f"Der Empfänger hat mit {answered[1]} geantwortet."
    # Of a URL that is refused only now there are as many words as there are ways to write one.
    return FAILURES.get(reason) or (BY_CODE["url_refused"] if reason.startswith("The URL ") else reason)


def _delivery_cells(delivery: Delivery) -> list[str]:
    error = delivery.log[-1].error if delivery.log else None
    next_at = delivery.next_attempt_at
    return [
        delivery.id,
        delivery.event,
        local_time(delivery.created_at),
        text(str(delivery.state), at="" if next_at is None else local_time(next_at)),
        str(delivery.attempts),
        explain_failure(error) if error else NOTHING,
    ]


def _cells(record: Subscription) -> list[str]:
    return [str(record.id), record.url, ", ".join(record.events), _state(record), record.description or NOTHING]


def _state(record: Subscription) -> str:
    if not record.active:
        return (
            text("off_because", reason=explain_failure(record.disabled_reason))
            if record.disabled_reason
            else text("off")
        )
    return text("active") if record.failing_since is None else text("failing", at=local_time(record.failing_since))
