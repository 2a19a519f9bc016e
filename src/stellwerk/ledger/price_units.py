"""The units in which people state prices, and the one unit in which we keep them."""

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Price

LARGEST = 10**18
"""Pico units: a million of the currency for one of whatever is counted."""

_THOUSAND, _MILLION = 1_000, 1_000_000
_PICO = 10**12

# What is counted, as core.plan.Price names it, and how many of it the stated price is for.
UNITS: Mapping[str, tuple[str, int]] = {
    "input_per_1k": ("input", _THOUSAND),
    "input_per_1m": ("input", _MILLION),
    "output_per_1k": ("output", _THOUSAND),
    "output_per_1m": ("output", _MILLION),
    "cache_read_per_1k": ("cache_read", _THOUSAND),
    "cache_read_per_1m": ("cache_read", _MILLION),
    "cache_write_per_1k": ("cache_write", _THOUSAND),
    "cache_write_per_1m": ("cache_write", _MILLION),
    "per_request": ("request", 1),
    "per_audio_second": ("audio_second", 1),
    "per_character": ("character", 1),
    "per_1m_characters": ("character", _MILLION),
    "per_page": ("page", 1),
}
_STATED = (
    "input_per_1m",
    "output_per_1m",
    "cache_read_per_1m",
    "cache_write_per_1m",
    "per_request",
    "per_audio_second",
    "per_1m_characters",
    "per_page",
)
_OPTIONAL = frozenset({"cache_read", "cache_write"})

_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", re.ASCII)


def read_price(stated: Mapping[str, str | Decimal], currency: str) -> Price:
    """A price from numbers of `currency` by the names of UNITS.

    Raises BadRequest, which names the unit, for a number that is not a whole number of pico units.
    """
    counted: dict[str, int] = {}
    for unit, number in stated.items():
        if unit not in UNITS:
            raise BadRequest(f"There is no unit '{unit[:40]}' for prices.", param="unit")
        name, per = UNITS[unit]
        if name in counted:
            raise BadRequest(f"The price named by '{unit}' is stated twice, in two units.", param=unit)
        counted[name] = read_pico(number, per, param=unit)
    if not counted:
        raise BadRequest("State at least one price; 0 makes the model free of charge.", param="input_per_1m")
    return Price(
        input=counted.get("input", 0),
        output=counted.get("output", 0),
        cache_read=counted.get("cache_read"),
        cache_write=counted.get("cache_write"),
        request=counted.get("request", 0),
        audio_second=counted.get("audio_second", 0),
        character=counted.get("character", 0),
        page=counted.get("page", 0),
        currency=currency,
    )


def read_pico(number: str | Decimal, per: int, *, param: str) -> int:
    """Pico units for one when `number` is the price for `per`. Raises BadRequest that names `param`."""
    text = str(number).strip()
    if _DECIMAL.fullmatch(text) is None:
        raise BadRequest(f"'{param}' must be a decimal number, zero or more, such as 0.15.", param=param)
    pico = Fraction(text) * _PICO / per
    if pico.denominator != 1:
        raise BadRequest(f"'{param}' is too fine: prices are kept in steps of 10^-12 for one unit.", param=param)
    if pico > LARGEST:
        raise BadRequest(f"'{param}' is too high.", param=param)
    return int(pico)


def state_price(price: Price) -> dict[str, Decimal]:
    """What `read_price` would make the same price of: tokens and characters by the million, never nothing."""
    stated: dict[str, Decimal] = {}
    for unit in _STATED:
        name, per = UNITS[unit]
        pico = getattr(price, name)
        # A cache price of 0 says something else than none.
        if pico or (pico is not None and name in _OPTIONAL):
            number = Decimal(pico * per).scaleb(-12)
            whole = number.to_integral_value()
            stated[unit] = whole if whole == number else number.normalize()
    return stated or {"input_per_1m": Decimal(0)}
