"""The operator's own prices, each from a date on, and which price counts for a model."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    RowMapping,
    String,
    Table,
    func,
    insert,
    select,
)

from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Price
from stellwerk.ledger.price_units import LARGEST, read_price
from stellwerk.storage.tables import metadata, row_number

price_rows = Table(
    "prices",
    metadata,
    Column("id", row_number, primary_key=True),
    # A model's name, `provider/name`, or either with `*` in it.
    Column("model", String(256), nullable=False),
    Column("valid_from", Double, nullable=False),
    # From then on the row is as if there had never been one for the model.
    Column("withdrawn", Boolean, nullable=False),
    Column("currency", String(3), nullable=False),
    # Pico units, as in core.plan.Price.
    Column("input", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("cache_read", BigInteger),
    Column("cache_write", BigInteger),
    Column("request", BigInteger, nullable=False),
    Column("audio_second", BigInteger, nullable=False),
    Column("character", BigInteger, nullable=False),
    Column("page", BigInteger, nullable=False),
    Column("note", String(500), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", String(254), nullable=False),
    Index(None, "model", "valid_from"),
)

MAX_ROWS = 100_000
_MAX_PATTERN = 256
_MAX_NOTE = 500
_LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999
_REMEMBERED = 10_000
_COUNTED = ("input", "output", "request", "audio_second", "character", "page")
_OPTIONAL = ("cache_read", "cache_write")
_PICO_PER_TOKEN = 10**9
"""Of a price of 1 for a thousand tokens."""


class NewPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A price to add; `new_price` makes one from what people write."""

    model: str
    """A name of a model, with `*` for any characters."""
    price: Price | None
    """In the ledger's currency or in USD; None withdraws the model's own prices from then on."""
    valid_from: float | None = None
    """Unix seconds; None is now."""
    note: str = ""

    @property
    def withdrawn(self) -> bool:
        return self.price is None


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    model: str
    valid_from: float
    price: Price | None
    """None: withdrawn."""
    note: str
    created_at: float
    created_by: str

    @property
    def withdrawn(self) -> bool:
        return self.price is None


class TariffSettings(msgspec.Struct, frozen=True, kw_only=True):
    currency: str = "EUR"
    """Of the ledger."""
    usd_rate: Decimal = Decimal(1)
    """What one USD costs in it."""
    input_per_1k: Decimal = Decimal(0)
    """For models without a price of their own, in the ledger's currency."""
    output_per_1k: Decimal = Decimal(0)


def new_price(
    model: str,
    stated: Mapping[str, str | Decimal],
    *,
    currency: str,
    valid_from: float | None = None,
    withdrawn: bool = False,
    note: str = "",
) -> NewPrice:
    """Reads a price by the names of `price_units.UNITS`. Raises BadRequest that names the field."""
    if withdrawn and stated:
        raise BadRequest("A price that is withdrawn cannot be stated as well.", param=next(iter(stated)))
    price = None if withdrawn else read_price(stated, currency)
    return NewPrice(model=model, price=price, valid_from=valid_from, note=note)


def add_price(connection: Connection, new: NewPrice, *, actor: str, now: float, currency: str) -> PriceRow:
    """Adds a row and changes no older one; `currency` is the ledger's. Raises BadRequest that names the field."""
    _check(new, currency)
    if connection.execute(select(func.count()).select_from(price_rows)).scalar_one() >= MAX_ROWS:
        raise BadRequest(f"There are {MAX_ROWS} prices already; no more can be added.", code="too_many_prices")
    price = new.price or Price(currency=currency)
    values = {
        "model": new.model,
        "valid_from": now if new.valid_from is None else new.valid_from,
        "withdrawn": new.withdrawn,
        "currency": price.currency,
        **{name: getattr(price, name) for name in (*_COUNTED, *_OPTIONAL)},
        "note": new.note,
        "created_at": now,
        "created_by": actor,
    }
    number = connection.execute(insert(price_rows).values(values)).inserted_primary_key
    assert number is not None
    return PriceRow(
        id=number[0],
        model=new.model,
        valid_from=values["valid_from"],
        price=new.price,
        note=new.note,
        created_at=now,
        created_by=actor,
    )


def list_prices(connection: Connection, at: float | None = None) -> list[PriceRow]:
    """Every row, by model and newest first; with `at` only those in force at that time, at most one for a model."""
    newest_first = (price_rows.c.model, price_rows.c.valid_from.desc(), price_rows.c.id.desc())
    rows = [_read(row) for row in connection.execute(select(price_rows).order_by(*newest_first)).mappings()]
    return rows if at is None else sorted(in_force(rows, at), key=lambda row: row.model)


def newest_price(connection: Connection) -> int:
    """The highest id, 0 when there is none: rows are only ever added, so another number means another tariff."""
    highest: int = connection.execute(select(func.coalesce(func.max(price_rows.c.id), 0))).scalar_one()
    return highest


def in_force(rows: Iterable[PriceRow], at: float) -> list[PriceRow]:
    """Of the rows of each pattern the newest that has begun, unless it withdraws the price."""
    newest: dict[str, PriceRow] = {}
    for row in rows:
        if row.valid_from <= at:
            other = newest.get(row.model)
            if other is None or (row.valid_from, row.id) > (other.valid_from, other.id):
                newest[row.model] = row
    return [row for row in newest.values() if not row.withdrawn]


class Tariff:
    """Which price counts for a model, in the ledger's currency; `take` gives it the rows of the table.

    Belongs to one thread. An answer is remembered until the next row begins to count.
    """

    def __init__(self, settings: TariffSettings) -> None:
        self._currency = settings.currency
        self._usd_rate = Fraction(settings.usd_rate)
        self.default = Price(
            input=round(Fraction(settings.input_per_1k) * _PICO_PER_TOKEN),
            output=round(Fraction(settings.output_per_1k) * _PICO_PER_TOKEN),
            currency=settings.currency,
        )
        """For a model of which no price is known. What is finer than a pico unit is rounded half to even."""
        self._rows: list[PriceRow] = []
        self._beginnings: list[float] = []
        # The rows that count from `_since` to `_until`.
        self._since, self._until = math.inf, -math.inf
        self._exact: dict[str, Price] = {}
        self._patterns: list[tuple[str, Price]] = []
        self._remembered: dict[tuple[tuple[str, ...], Price | None], Price | None] = {}

    def take(self, rows: Iterable[PriceRow]) -> None:
        """Replaces the rows by these."""
        self._rows = list(rows)
        self._beginnings = sorted({row.valid_from for row in self._rows})
        self._since, self._until = math.inf, -math.inf

    def price(self, names: Sequence[str], published: Price | None, now: float) -> Price | None:
        """The operator's own price, else the published one, in the ledger's currency; None when neither is known.

        `names` are the names of one model, the most telling first: of rows that name the model exactly the one for
        the earlier name counts, of patterns the longest. A published price is never an answer in a currency whose
        rate is not known.
        """
        if not self._since <= now < self._until:
            self._turn_to(now)
        question = (tuple(names), published)
        try:
            return self._remembered[question]
        except KeyError:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            own = self._own(question[0])
            answer = self._remembered[question] = self._convert(published if own is None else own)
            return answer

    def next_change(self, now: float) -> float | None:
        """When the next row begins to count, in Unix seconds."""
        place = bisect_right(self._beginnings, now)
        return self._beginnings[place] if place < len(self._beginnings) else None

    def _turn_to(self, now: float) -> None:
        place = bisect_right(self._beginnings, now)
        self._since = self._beginnings[place - 1] if place else -math.inf
        self._until = self._beginnings[place] if place < len(self._beginnings) else math.inf
        self._exact, self._patterns = {}, []
        self._remembered.clear()
        for row in in_force(self._rows, now):
            price = row.price
            # A row in a currency that the ledger had before cannot be used in this one.
            if price is None or price.currency not in {self._currency, "USD"}:
                continue
            if "*" in row.model:
                self._patterns.append((row.model, price))
            else:
                self._exact[row.model] = price
        self._patterns.sort(key=lambda pattern: (-len(pattern[0]), pattern[0]))

    def _own(self, names: tuple[str, ...]) -> Price | None:
        for name in names:
            if name in self._exact:
                return self._exact[name]
        for pattern, price in self._patterns:
            parts = pattern.split("*")
            for name in names:
                if _fits(parts, name):
                    return price
        return None

    def _convert(self, price: Price | None) -> Price | None:
        if price is None or price.currency == self._currency:
            return price
        if price.currency != "USD":
            return None
        # `round` of a fraction goes half to even and is exact.
        values = {name: round(getattr(price, name) * self._usd_rate) for name in _COUNTED}
        optional = {name: getattr(price, name) for name in _OPTIONAL}
        for name, pico in optional.items():
            optional[name] = None if pico is None else round(pico * self._usd_rate)
        return Price(**values, **optional, currency=self._currency)


def _fits(parts: Sequence[str], name: str) -> bool:
    """Whether `name` is the parts of a pattern in this order with anything between them; never goes back in `name`."""
    first, *between, last = parts
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    place, end = len(first), len(name) - len(last)
    for part in between:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _check(new: NewPrice, currency: str) -> None:
    if not 1 <= len(new.model) <= _MAX_PATTERN or not new.model.isprintable() or new.model != new.model.strip():
        raise BadRequest(f"'model' must be a name of up to {_MAX_PATTERN} printable characters.", param="model")
    if len(new.note) > _MAX_NOTE or not new.note.isprintable():
        raise BadRequest(f"'note' must have at most {_MAX_NOTE} printable characters.", param="note")
    if new.valid_from is not None and not 0 <= new.valid_from <= _LAST_MOMENT:
        raise BadRequest("'valid_from' is not a time.", param="valid_from")
    if new.price is None:
        return
    if new.price.currency not in {currency, "USD"}:
        raise BadRequest(f"'currency' must be {currency}, the ledger's, or USD.", param="currency")
    values = [getattr(new.price, name) for name in (*_COUNTED, *_OPTIONAL)]
    if not all(value is None or 0 <= value <= LARGEST for value in values):
        raise BadRequest("A price must not be below zero, nor above a million for one unit.", param="price")


def _read(row: RowMapping) -> PriceRow:
    price = None
    if not row["withdrawn"]:
        price = Price(currency=row["currency"], **{name: row[name] for name in (*_COUNTED, *_OPTIONAL)})
    return PriceRow(
        id=row["id"],
        model=row["model"],
        valid_from=row["valid_from"],
        price=price,
        note=row["note"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )
