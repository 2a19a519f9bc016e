"""Settings that an admin changed while the gateway ran; they go before those of the config file."""

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import JSON, Column, Connection, Double, String, Table, delete, insert, select

from stellwerk.core.errors import BadRequest
from stellwerk.storage.tables import metadata

_HIGHEST_PRICE = 1_000
_PRICE_DECIMALS = 12
_PRICE_LENGTH = 28
"""Characters; as many digits are counted exactly."""
_HIGHEST_RATE = 1_000_000
_log = logging.getLogger(__name__)

changed_settings = Table(
    "changed_settings",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("value", JSON(none_as_null=True)),
    Column("changed_at", Double, nullable=False),
    Column("changed_by", String(254), nullable=False),
)

Value = Decimal | int | bool


def read_settings(connection: Connection) -> dict[str, Value]:
    """What was changed, by name: prices are Decimal, rate limits int, switches bool."""
    rows = connection.execute(select(changed_settings.c.name, changed_settings.c.value))
    values: dict[str, Value] = {}
    for name, stored in rows:
        try:
            values[name] = _check(name, stored)
        except BadRequest:
            # A newer version of the gateway may have left it: the config file counts then.
            _log.warning("the changed setting %r is not understood and has no effect", name)
    return values


def change_settings(
    connection: Connection, changes: Mapping[str, Any], actor_name: str, *, now: float
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Stores the changes, all or none; None takes one back, so that the config file counts again.

    Returns everything that was changed before and is changed now. Raises BadRequest that names the setting.
    """
    checked = {name: _check(name, value, may_be_none=True) for name, value in changes.items()}
    before = read_settings(connection)
    for name, value in checked.items():
        if value == before.get(name):
            continue
        connection.execute(delete(changed_settings).where(changed_settings.c.name == name))
        if value is not None:
            # JSON knows no decimal numbers: as text a price stays what was typed.
            stored = f"{value:f}" if isinstance(value, Decimal) else value
            row = {"name": name, "value": stored, "changed_at": now, "changed_by": actor_name[:254]}
            connection.execute(insert(changed_settings).values(row))
    return before, read_settings(connection)


def _check(name: str, value: Any, *, may_be_none: bool = False) -> Any:
    check = _CHECKS.get(name)
    if check is None:
        shown = name[:100]
        raise BadRequest(
            f"There is no setting '{shown}' that can be changed. Known are: {', '.join(_CHECKS)}.",
            param=shown,
            code="unknown_setting",
        )
    return None if value is None and may_be_none else check(name, value)


def _price(name: str, value: Any) -> Decimal:
    """Currency units for 1000 tokens."""
    error = BadRequest(
        f"'{name}' must be a number from 0 to {_HIGHEST_PRICE} with at most {_PRICE_DECIMALS} decimals.", param=name
    )
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal) or len(str(value)) > _PRICE_LENGTH:
        raise error
    try:
        # The text of a float is the shortest that means it, which is what was typed.
        price = Decimal(str(value))
    except InvalidOperation:
        raise error from None
    if not price.is_finite() or not 0 <= price <= _HIGHEST_PRICE:
        raise error
    if not price:
        return Decimal(0)
    # Its smallness is looked at first: what is far smaller would be cut to zero here, or take gigabytes as text.
    if price.adjusted() < -_PRICE_DECIMALS or price != round(price, _PRICE_DECIMALS):
        raise error
    return price


def _rate(name: str, value: Any) -> int:
    """Requests per minute; 0 is unlimited."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HIGHEST_RATE:
        raise BadRequest(f"'{name}' must be a whole number from 0 to {_HIGHEST_RATE}; 0 is unlimited.", param=name)
    return value


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"'{name}' must be true or false.", param=name)
    return value


_CHECKS: Mapping[str, Callable[[str, Any], Value]] = {
    "pricing.input_per_1k": _price,
    "pricing.output_per_1k": _price,
    "rate_limits.payg": _rate,
    "rate_limits.sub": _rate,
    "signup.enabled": _switch,
}
NAMES = tuple(_CHECKS)
"""The settings that can be changed while the gateway runs."""
