"""How users are shown: in a table, one by one, and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from stellwerk.auth.keys import key_counts
from stellwerk.auth.users import UserRecord
from stellwerk.cli.data import OpenFolder
from stellwerk.cli.limits import Spendings, limit_fields, limit_values, model_words
from stellwerk.cli.tables import (
    NOTHING,
    Column,
    Wording,
    local_date,
    moment,
    money,
    print_table,
    units,
)
from stellwerk.core.principal import Tier
from stellwerk.ledger.accounts import balances
from stellwerk.ledger.budgets import Limit

TEXTS: Mapping[str, Mapping[str, str]] = {
    "active": {"en": "active", "de": "aktiv"},
    "disabled": {"en": "disabled", "de": "gesperrt"},
    "yes": {"en": "yes", "de": "ja"},
    "no": {"en": "no", "de": "nein"},
    "column_id": {"en": "id", "de": "Nr."},
    "column_email": {"en": "e-mail", "de": "E-Mail"},
    "column_name": {"en": "name", "de": "Name"},
    "column_role": {"en": "role", "de": "Rolle"},
    "column_tier": {"en": "tier", "de": "Tarif"},
    "column_state": {"en": "state", "de": "Zustand"},
    "column_balance": {"en": "balance", "de": "Guthaben"},
    "column_held": {"en": "held", "de": "reserviert"},
    "column_keys": {"en": "keys", "de": "Schlüssel"},
    "column_created": {"en": "created", "de": "angelegt"},
    "column_password": {"en": "password", "de": "Passwort"},
    "column_models": {"en": "models", "de": "Modelle"},
}
text = Wording(TEXTS)

_COLUMNS = ("id", "email", "name", "role", "tier", "state", "balance", "keys", "created")
_CHOSEN = frozenset({"email", "name"})
_NUMBERS = frozenset({"id", "balance", "keys"})


class UserView:
    """Users with what other tables know of them: their balances and how many of their keys are in use."""

    def __init__(self, connection: Connection, records: Sequence[UserRecord], folder: OpenFolder) -> None:
        self.records = records
        self._currency = folder.currency(connection)
        limits = {record.id: _limit(record) for record in records}
        self._limits = {user_id: limit for user_id, limit in limits.items() if limit is not None}
        self._spendings = Spendings(connection, list(self._limits.values()), folder)
        self._balances = balances(connection)
        self._keys = key_counts(connection, now=folder.now)

    def values(self) -> list[dict[str, Any]]:
        """For programs: times in RFC 3339, amounts in units of the currency."""
        return [self._values(record) for record in self.records]

    def print_table(self) -> None:
        columns = [
            Column(
                text(f"column_{name}"),
                wraps=name in _CHOSEN,
                right=name in _NUMBERS,
                usual="" if name == "name" else None,
            )
            for name in _COLUMNS
        ]
        print_table(columns, [[self._cells(record)[name] for name in _COLUMNS] for record in self.records])

    def fields(self, record: UserRecord) -> list[tuple[str, str]]:
        """All that is known of one, as titles and words."""
        return [
            *((text(f"column_{name}"), value) for name, value in self._cells(record).items()),
            *limit_fields(record.allowance, self._limits.get(record.id), self._spendings),
        ]

    def _values(self, record: UserRecord) -> dict[str, Any]:
        balance = self._balances.get(record.id)
        return {
            "id": record.id,
            "email": record.email,
            "name": record.name,
            "role": record.role,
            "tier": record.tier,
            "active": record.active,
            "balance": units(balance.available if balance else 0),
            "held": units(balance.held if balance else 0),
            "currency": self._currency,
            "key_count": self._keys.get(record.id, 0),
            "has_password": record.has_password,
            "models": None if record.models is None else sorted(record.models),
            **limit_values(record.allowance, self._limits.get(record.id), self._spendings),
            "created": moment(record.created_at),
        }

    def _cells(self, record: UserRecord) -> dict[str, str]:
        return {
            "id": str(record.id),
            "email": record.email,
            "name": record.name,
            "role": str(record.role),
            "tier": str(record.tier),
            "state": text("active" if record.active else "disabled"),
            "balance": self._amount(record, "available"),
            "held": self._amount(record, "held"),
            "keys": str(self._keys.get(record.id, 0)),
            "created": local_date(record.created_at),
            "password": text("yes" if record.has_password else "no"),
            "models": model_words(record.models),
        }

    def _amount(self, record: UserRecord, kind: str) -> str:
        balance = self._balances.get(record.id)
        if balance is None and record.tier is not Tier.PAYG:
            return NOTHING
        return money(getattr(balance, kind) if balance else 0, self._currency)


def _limit(record: UserRecord) -> Limit | None:
    return None if record.budget is None else Limit(user_id=record.id, key_id=None, budget=record.budget)
