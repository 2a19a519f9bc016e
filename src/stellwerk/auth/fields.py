"""Fields that users and keys share: what may stand in them, and how limits stand in columns."""

from collections.abc import Iterable
from typing import Any

from stellwerk.core.errors import BadRequest
from stellwerk.core.principal import Allowance, Budget

LONGEST_NAME = 100
MOST_MODELS = 1000
LONGEST_MODEL_NAME = 200
MOST_REQUESTS = 1_000_000
"""Of requests a minute, of a burst and of concurrent requests."""
MOST_TOKENS = 10**12
"""Tokens a minute."""
MOST_MONEY = 10**15
"""Micro units of a budget: a thousand million of the currency."""

_MOST = {
    "requests_per_minute": MOST_REQUESTS,
    "burst": MOST_REQUESTS,
    "tokens_per_minute": MOST_TOKENS,
    "concurrent_requests": MOST_REQUESTS,
}


def check_name(text: str) -> str:
    """The name without blanks around it. Raises BadRequest, code `invalid_name`, unless it has 1 to 100 characters."""
    name = text.strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadRequest("A name has 1 to 100 printable characters.", param="name", code="invalid_name")
    return name


def check_models(names: Iterable[str]) -> frozenset[str]:
    """The names without blanks around them. Raises BadRequest, code `invalid_models`; an empty list is no model."""
    models = frozenset(name.strip() for name in names)
    if len(models) > MOST_MODELS or not all(
        0 < len(name) <= LONGEST_MODEL_NAME and name.isprintable() for name in models
    ):
        raise BadRequest(
            "Models are at most 1000 names of 1 to 200 printable characters.", param="models", code="invalid_models"
        )
    return models


def check_limits(allowance: Allowance, budget: Budget | None) -> None:
    """Raises BadRequest, code `invalid_limit`, naming the field that is negative or too large to be meant."""
    for name, most in _MOST.items():
        value = getattr(allowance, name)
        if value is not None and not 0 <= value <= most:
            raise BadRequest(f"{name} is a number from 0 to {most}.", param=name, code="invalid_limit")
    if budget is not None and not 0 <= budget.amount <= MOST_MONEY:
        raise BadRequest("A budget is an amount from 0 to 1000000000.", param="budget", code="invalid_limit")


def limits_to_columns(allowance: Allowance, budget: Budget | None) -> dict[str, Any]:
    return {
        "requests_per_minute": allowance.requests_per_minute,
        "burst": allowance.burst,
        "tokens_per_minute": allowance.tokens_per_minute,
        "concurrent_requests": allowance.concurrent_requests,
        "budget": None if budget is None else budget.amount,
        "budget_window": None if budget is None else str(budget.window),
    }


def fold_limits(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row with those of the limits gathered into `allowance` and `budget`."""
    amount, window = columns.pop("budget"), columns.pop("budget_window")
    columns["allowance"] = {name: columns.pop(name) for name in _MOST}
    columns["budget"] = None if amount is None else {"amount": amount, "window": window}
    return columns
