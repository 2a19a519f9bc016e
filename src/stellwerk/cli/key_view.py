"""How stored keys are shown: in a table, one by one, and as JSON. Never the key itself: nobody knows it any more."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from stellwerk.auth.keys import KeyRecord
from stellwerk.auth.users import list_users
from stellwerk.cli.data import OpenFolder
from stellwerk.cli.limits import Spendings, limit_fields, limit_values, model_words
from stellwerk.cli.tables import Column, Wording, local_date, local_time, moment, print_record, print_table
from stellwerk.ledger.budgets import Limit
from stellwerk.ledger.reports import last_used

TEXTS: Mapping[str, Mapping[str, str]] = {
    "active": {"en": "active", "de": "gültig"},
    "expired": {"en": "expired", "de": "abgelaufen"},
    "revoked": {"en": "revoked", "de": "widerrufen"},
    "anywhere": {"en": "anywhere", "de": "überall"},
    "never": {"en": "never", "de": "nie"},
    "column_id": {"en": "id", "de": "ID"},
    "column_name": {"en": "name", "de": "Name"},
    "column_user": {"en": "user", "de": "Benutzer"},
    "column_role": {"en": "role", "de": "Rolle"},
    "column_key": {"en": "key", "de": "Schlüssel"},
    "column_models": {"en": "models", "de": "Modelle"},
    "column_networks": {"en": "networks", "de": "Netze"},
    "column_priority": {"en": "priority", "de": "Priorität"},
    "column_created": {"en": "created", "de": "erstellt"},
    "column_expires": {"en": "expires", "de": "läuft ab"},
    "column_last_used": {"en": "last used", "de": "zuletzt"},
    "column_state": {"en": "state", "de": "Zustand"},
}
text = Wording(TEXTS)

_COLUMNS = ("id", "name", "user", "role", "key", "models", "expires", "last_used", "state")
_CHOSEN = frozenset({"name", "user", "models"})
"""Columns that people have filled, which may be long."""


class KeyView:
    """Keys with what other tables know of them: their users, and when they were last used."""

    def __init__(self, connection: Connection, records: Sequence[KeyRecord], folder: OpenFolder) -> None:
        self.records = records
        self._now = folder.now
        limits = {record.id: _limit(record) for record in records}
        self._limits = {key_id: limit for key_id, limit in limits.items() if limit is not None}
        self._spendings = Spendings(connection, list(self._limits.values()), folder)
        self._owners = {user.id: user.email for user in list_users(connection)}
        self._used = last_used(connection, [record.id for record in records])

    def values(self) -> list[dict[str, Any]]:
        """For programs: times in RFC 3339, null where there is none."""
        return [self._values(record) for record in self.records]

    def print_table(self) -> None:
        usual = {"models": model_words(None), "expires": text("never")}
        columns = [Column(text(f"column_{name}"), wraps=name in _CHOSEN, usual=usual.get(name)) for name in _COLUMNS]
        # The rest of a key's beginning is its id, which has a column of its own.
        rows = [self._cells(record) | {"key": f"…{record.last_four}"} for record in self.records]
        print_table(columns, [[cells[name] for name in _COLUMNS] for cells in rows])

    def print_each(self) -> None:
        for record in self.records:
            fields = [(text(f"column_{name}"), value) for name, value in self._cells(record).items()]
            print_record(fields + limit_fields(record.allowance, self._limits.get(record.id), self._spendings))

    def _values(self, record: KeyRecord) -> dict[str, Any]:
        return {
            "id": record.id,
            "name": record.name,
            "user_id": record.user_id,
            "user": self._owners.get(record.user_id),
            "role": record.role,
            "key": record.hint,
            "models": None if record.models is None else sorted(record.models),
            "networks": record.networks,
            "priority": record.priority,
            **limit_values(record.allowance, self._limits.get(record.id), self._spendings),
            "created": moment(record.created_at),
            "expires": moment(record.expires_at),
            "revoked": moment(record.revoked_at),
            "last_used": moment(self._used.get(record.id)),
            "state": record.state(self._now),
        }

    def _cells(self, record: KeyRecord) -> dict[str, str]:
        used = self._used.get(record.id)
        return {
            "id": record.id,
            "name": record.name,
            "user": self._owners.get(record.user_id, str(record.user_id)),
            "role": str(record.role),
            "key": record.hint,
            "models": model_words(record.models),
            "networks": text("anywhere") if record.networks is None else ", ".join(record.networks),
            "priority": str(record.priority),
            "created": local_time(record.created_at),
            "expires": text("never") if record.expires_at is None else local_date(record.expires_at),
            "last_used": text("never") if used is None else local_date(used),
            "state": text(record.state(self._now)),
        }


def _limit(record: KeyRecord) -> Limit | None:
    return None if record.budget is None else Limit(user_id=None, key_id=record.id, budget=record.budget)
