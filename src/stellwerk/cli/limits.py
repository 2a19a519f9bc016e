"""How the limits and the budget of a user or a key are shown."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from stellwerk.cli.data import OpenFolder
from stellwerk.cli.tables import Wording, moment, money, units, utc_time
from stellwerk.core.principal import Allowance
from stellwerk.ledger.budgets import Limit, Spending, read_spending

TEXTS = {
    "requests_per_minute": {"en": "requests/minute", "de": "Anfragen/Minute"},
    "burst": {"en": "burst", "de": "Anfragen auf einmal"},
    "tokens_per_minute": {"en": "tokens/minute", "de": "Tokens/Minute"},
    "concurrent_requests": {"en": "concurrent requests", "de": "gleichzeitige Anfragen"},
    "budget": {"en": "budget", "de": "Budget"},
    "configured": {"en": "as configured", "de": "wie konfiguriert"},
    "unlimited": {"en": "unlimited", "de": "unbegrenzt"},
    "budget_left": {"en": "left of it", "de": "davon übrig"},
    "left": {"en": "{amount}, until {end}", "de": "{amount}, bis {end}"},
    "no_budget": {"en": "none", "de": "keins"},
    "day": {"en": "{amount} a day", "de": "{amount} am Tag"},
    "week": {"en": "{amount} a week", "de": "{amount} in der Woche"},
    "month": {"en": "{amount} a month", "de": "{amount} im Monat"},
    "all_models": {"en": "all", "de": "alle"},
}
text = Wording(TEXTS)


class Spendings:
    """The current window of every budget among some users or keys, and the currency of their amounts."""

    def __init__(self, connection: Connection, limits: Sequence[Limit], folder: OpenFolder) -> None:
        # The config is read only when there is an amount to show.
        self.currency = folder.currency(connection) if limits else ""
        # One by one: a statement takes so many parameters and no more.
        self._of = {limit.subject: read_spending(connection, [limit], folder.now)[0] for limit in limits}

    def __getitem__(self, limit: Limit) -> Spending:
        return self._of[limit.subject]


def limit_values(allowance: Allowance, limit: Limit | None, spendings: Spendings) -> dict[str, Any]:
    """For JSON: null is what the config says, 0 unlimited."""
    budget = None
    if limit is not None:
        window = spendings[limit]
        budget = {
            "amount": units(window.amount),
            "window": limit.budget.window,
            "currency": spendings.currency,
            "spent": units(window.spent),
            "held": units(window.held),
            "begins_anew": moment(window.end),
        }
    return {**msgspec.structs.asdict(allowance), "budget": budget}


def limit_fields(allowance: Allowance, limit: Limit | None, spendings: Spendings) -> list[tuple[str, str]]:
    """For people: titles and words."""
    fields = [(text(name), _limit(value)) for name, value in msgspec.structs.asdict(allowance).items()]
    if limit is None:
        return [*fields, (text("budget"), text("no_budget"))]
    window, currency = spendings[limit], spendings.currency
    left = max(0, window.amount - window.spent - window.held)
    words = text("left", amount=money(left, currency), end=utc_time(window.end))
    return [
        *fields,
        (text("budget"), text(limit.budget.window, amount=money(window.amount, currency))),
        (text("budget_left"), words),
    ]


def model_words(models: frozenset[str] | None) -> str:
    return text("all_models") if models is None else ", ".join(sorted(models))


def _limit(value: int | None) -> str:
    if value is None:
        return text("configured")
    return str(value) if value else text("unlimited")
