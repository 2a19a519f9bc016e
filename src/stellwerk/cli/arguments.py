"""What commands take as arguments: amounts, budgets, limits, lifetimes, names. Nonsense ends with status 2."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, NoReturn, TypeVar

import typer
from msgspec import UNSET, UnsetType

from stellwerk.auth.fields import MOST_MONEY, MOST_REQUESTS, MOST_TOKENS
from stellwerk.cli.tables import MICRO, Wording
from stellwerk.core.principal import Allowance, Budget, Window

REMOVE = "none"
"""What an option of `update` is given to take the value away."""

TEXTS = {
    "bad_name": {
        "en": "A name has 1 to 100 visible characters.",
        "de": "Ein Name hat 1 bis 100 sichtbare Zeichen.",
    },
    "bad_models": {
        "en": "Models are a list of names with commas: 1 to 1000 names of 1 to 200 visible characters.",
        "de": "Modelle sind eine Liste von Namen mit Kommas: 1 bis 1000 Namen aus 1 bis 200 sichtbaren Zeichen.",
    },
    "bad_expiry": {
        "en": "A lifetime is a number and a unit: 45m, 12h, 30d or 52w, at most ten years.",
        "de": "Eine Lebensdauer ist eine Zahl mit Einheit: 45m, 12h, 30d oder 52w, höchstens zehn Jahre.",
    },
    "bad_money": {
        "en": "An amount is a number such as 10, 10.50 or 10,50 with at most six decimal places, up to a billion.",
        "de": "Ein Betrag ist eine Zahl wie 10, 10,50 oder 10.50 mit höchstens sechs Nachkommastellen, "
        "bis zu einer Milliarde.",
    },
    "bad_amount": {
        "en": "The amount must be more than 0.",
        "de": "Der Betrag muss größer als 0 sein.",
    },
    "bad_budget": {
        "en": "A budget is an amount and a window: 5.00/day, 20/week or 100/month.",
        "de": "Ein Budget ist ein Betrag mit Zeitraum: 5,00/day, 20/week oder 100/month.",
    },
    "bad_count": {
        "en": "This is a whole number from 0 to {most}; 0 is unlimited.",
        "de": "Das ist eine ganze Zahl von 0 bis {most}; 0 heißt unbegrenzt.",
    },
    "bad_note": {
        "en": "A note has at most 500 visible characters; a correction needs one.",
        "de": "Eine Notiz hat höchstens 500 sichtbare Zeichen; eine Berichtigung braucht eine.",
    },
}
text = Wording(TEXTS)

_LIFETIME = re.compile(r"([1-9][0-9]{0,8})([mhdw])")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_LIFETIME = 3660 * 86_400
_MONEY = re.compile(r"([+-]?)([0-9]{1,10}(?:[.,][0-9]{1,6})?)")

Value = TypeVar("Value")

Limit = Annotated[str | None, typer.Option(metavar="N", help="In place of the config's; 0 is unlimited.")]
Models = Annotated[str | None, typer.Option(metavar="A,B", help="The only models that may be used.")]
Spending = Annotated[str | None, typer.Option(metavar="5.00/day", help="The most to spend in a day, week or month.")]


def money(amount: str, hint: str, *, signed: bool = False) -> int:
    """Micro units, exactly; more than 0 unless `signed`."""
    match = _MONEY.fullmatch(amount.strip())
    if match is None:
        _refuse("bad_money", hint)
    micro = int(Decimal(match[2].replace(",", ".")) * MICRO)
    if micro > MOST_MONEY:
        _refuse("bad_money", hint)
    if match[1] == "-":
        micro = -micro
    if micro == 0 or (micro < 0 and not signed):
        _refuse("bad_amount", hint)
    return micro


def budget(given: str, hint: str = "--budget") -> Budget:
    amount, slash, window = given.partition("/")
    if not slash or window.strip() not in set(Window):
        _refuse("bad_budget", hint)
    return Budget(amount=money(amount, hint), window=Window(window.strip()))


def count(given: str, hint: str, most: int = MOST_REQUESTS) -> int:
    number = int(given) if re.fullmatch(r"[0-9]{1,15}", given.strip()) else -1
    if not 0 <= number <= most:
        _refuse("bad_count", hint, most=most)
    return number


def name(given: str, hint: str = "NAME") -> str:
    if not (0 < len(given.strip()) <= len(given) <= 100 and given.isprintable()):
        _refuse("bad_name", hint)
    return given.strip()


def note(given: str, *, needed: bool = False) -> str:
    if len(given) > 500 or not given.isprintable() or (needed and not given.strip()):
        _refuse("bad_note", "--note")
    return given.strip()


def models(given: str) -> frozenset[str]:
    names = frozenset(each.strip() for each in given.split(","))
    if len(names) > 1000 or not all(0 < len(each) <= 200 and each.isprintable() for each in names):
        _refuse("bad_models", "--models")
    return names


def lifetime(given: str, hint: str = "--expires") -> int:
    """Seconds."""
    match = _LIFETIME.fullmatch(given)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST_LIFETIME:
        _refuse("bad_expiry", hint)
    return seconds


def allowance(
    requests_per_minute: str | None,
    burst: str | None,
    tokens_per_minute: str | None,
    concurrent_requests: str | None,
    *,
    before: Allowance = Allowance(),
) -> Allowance:
    """The limits of `before` with those that were given; `none` takes one away."""

    def changed(given: str | None, old: int | None, hint: str, most: int = MOST_REQUESTS) -> int | None:
        if given is None:
            return old
        return None if given == REMOVE else count(given, hint, most)

    return Allowance(
        requests_per_minute=changed(requests_per_minute, before.requests_per_minute, "--requests-per-minute"),
        burst=changed(burst, before.burst, "--burst"),
        tokens_per_minute=changed(tokens_per_minute, before.tokens_per_minute, "--tokens-per-minute", MOST_TOKENS),
        concurrent_requests=changed(concurrent_requests, before.concurrent_requests, "--concurrent-requests"),
    )


def changed(given: str | None, parse: Callable[[str], Value]) -> Value | UnsetType | None:
    """For a change: what was not given stays, `none` takes the value away, anything else is the new one."""
    if given is None:
        return UNSET
    return None if given == REMOVE else parse(given)


def searched(given: str) -> str:
    """What is looked up in the database; bytes that are no text of the locale find nothing instead of failing."""
    return given.encode("utf-8", "replace").decode()


def _refuse(key: str, hint: str, **values: int) -> NoReturn:
    raise typer.BadParameter(text(key, **values), param_hint=hint)
