"""/admin/api/…/balance, ledger and prices: money that came in, what became of it, and what models cost."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api import _examples as examples
from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import (
    Instant,
    Note,
    Page,
    SignedAmount,
    StatementShape,
    UserId,
    show_instant,
    show_line,
    to_micro,
    to_units,
)
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.core.errors import BadRequest, NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.ledger.accounts import Balance, statement
from stellwerk.ledger.check import Problem, check
from stellwerk.ledger.price_units import UNITS, state_price
from stellwerk.ledger.tariff import PriceRow, in_force, list_prices, new_price
from stellwerk.records.audit import Actor

_TAG = "Money"

Rate = Annotated[float, Meta(ge=0, le=1_000_000)]


class BookingBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Money that came in when above zero, a correction when below."""

    amount: SignedAmount
    note: Note = ""


class BookedShape(msgspec.Struct, kw_only=True):
    """The balance after the booking, in currency units."""

    status: str
    user_id: int
    balance: float
    held: float
    currency: str


class CheckShape(msgspec.Struct, kw_only=True):
    """Whether the ledger adds up, and what it consists of."""

    ok: bool
    problems: list[Problem]
    accounts: int
    transactions: int
    entries: int
    open_holds: int
    sums: Annotated[dict[str, float], Meta(description="Currency units by kind of account; their sum is zero.")]
    currency: str


class PriceFields(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices in currency units. Each thing may be stated in one of its units."""

    input_per_1k: Rate | None = None
    input_per_1m: Rate | None = None
    output_per_1k: Rate | None = None
    output_per_1m: Rate | None = None
    cache_read_per_1k: Rate | None = None
    cache_read_per_1m: Rate | None = None
    cache_write_per_1k: Rate | None = None
    cache_write_per_1m: Rate | None = None
    per_request: Rate | None = None
    per_audio_second: Rate | None = None
    per_character: Rate | None = None
    per_1m_characters: Rate | None = None
    per_page: Rate | None = None


class NewPriceBody(PriceFields, kw_only=True, forbid_unknown_fields=True):
    """A price of a model from a time on; older rows stay as they are."""

    model: Annotated[str, Meta(min_length=1, max_length=256, description="A name, with `*` for any characters.")]
    valid_from: Annotated[datetime, Meta(tz=True, description="Without it, from now on.")] | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="The ledger's, or USD.")] | None = None
    withdrawn: Annotated[bool, Meta(description="From then on the model has no price of its own.")] = False
    note: Note = ""


class PriceShape(msgspec.Struct, kw_only=True):
    """A price row."""

    id: int
    model: str
    valid_from: Instant
    withdrawn: bool
    in_force: bool
    currency: str | None
    prices: Annotated[dict[str, float], Meta(description="By unit, as in a new price.")]
    note: str
    created_at: Instant
    created_by: str


class MoneyAPI:
    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def register(self, registry: Registry) -> None:
        registry.add(*self._of_balances(), *self._of_prices())

    def _of_balances(self) -> tuple[Endpoint, ...]:
        of_user = {"user_id": UserId}
        return (
            Endpoint(
                method="POST",
                path="/admin/api/users/{user_id}/balance",
                access=ADMINS,
                tag=_TAG,
                summary="Top up or correct a balance",
                handler=self._book,
                path_parameters=of_user,
                body=BookingBody,
                body_example={"amount": 25.0, "note": "Bank transfer 4711"},
                answer=BookedShape,
                example={"status": "booked", "user_id": 7, "balance": 50.0, "held": 0.0, "currency": "EUR"},
                errors=(NotFound, Unavailable),
            ),
            Endpoint(
                method="GET",
                path="/admin/api/users/{user_id}/ledger",
                access=OBSERVERS,
                tag=_TAG,
                summary="Show a user's statement, newest first",
                handler=self._statement,
                path_parameters=of_user,
                query=Page,
                answer=list[StatementShape],
                example=[examples.STATEMENT_LINE],
                errors=(NotFound, Unavailable),
            ),
            Endpoint(
                method="GET",
                path="/admin/api/ledger/check",
                access=OBSERVERS,
                tag=_TAG,
                summary="Check that all accounts add up",
                handler=self._check,
                answer=CheckShape,
                example={
                    "ok": True,
                    "problems": [],
                    "accounts": 5,
                    "transactions": 12,
                    "entries": 24,
                    "open_holds": 0,
                    "sums": {"available": 25.0, "held": 0.0, "income": 1.5, "outside": -26.5},
                    "currency": "EUR",
                },
                errors=(Unavailable,),
            ),
        )

    def _of_prices(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path="/admin/api/prices",
                access=OBSERVERS,
                tag=_TAG,
                summary="List the operator's own prices, by model and newest first",
                handler=self._list_prices,
                answer=list[PriceShape],
                example=[_PRICE],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="POST",
                path="/admin/api/prices",
                access=ADMINS,
                tag=_TAG,
                summary="Add a price, or withdraw one",
                handler=self._add_price,
                body=NewPriceBody,
                body_example={"model": "openai/gpt-5*", "input_per_1m": 1.25, "output_per_1m": 10.0, "currency": "USD"},
                answer=PriceShape,
                example=_PRICE,
                errors=(Unavailable,),
            ),
        )

    async def _book(self, asked: Asked) -> BookedShape:
        body: BookingBody = asked.body
        user_id, currency = asked.parameters["user_id"], self._administration.currency
        amount = to_micro(body.amount, "amount")
        if not amount:
            raise BadRequest("'amount' must not be zero.", param="amount")
        book = actions.top_up if amount > 0 else actions.correct

        def work(connection: Connection, actor: Actor, now: float) -> Balance:
            return book(connection, actor, user_id, amount, note=body.note.strip(), now=now, currency=currency)

        after = await self._administration.change(asked, work)
        return BookedShape(
            status="booked",
            user_id=user_id,
            balance=to_units(after.available),
            held=to_units(after.held),
            currency=currency,
        )

    async def _statement(self, asked: Asked) -> list[StatementShape]:
        page: Page = asked.query
        user_id, currency = asked.parameters["user_id"], self._administration.currency

        def read(connection: Connection) -> list[StatementShape]:
            actions.find_user(connection, user_id)
            lines = statement(connection, user_id, limit=page.limit, before=page.before)
            return [show_line(line, currency) for line in lines]

        return await self._administration.fetch(read)

    async def _check(self, _asked: Asked) -> CheckShape:
        report = await self._administration.fetch(check)
        return CheckShape(
            ok=report.clean,
            problems=report.problems,
            accounts=report.accounts,
            transactions=report.transactions,
            entries=report.entries,
            open_holds=report.open_holds,
            sums={kind: to_units(amount) for kind, amount in report.sums.items()},
            currency=self._administration.currency,
        )

    async def _list_prices(self, _asked: Asked) -> list[PriceShape]:
        now = self._administration.clock.now()
        rows = await self._administration.fetch(list_prices)
        current = {row.id for row in in_force(rows, now)}
        return [_show_price(row, in_force=row.id in current) for row in rows]

    async def _add_price(self, asked: Asked) -> PriceShape:
        body: NewPriceBody = asked.body
        ledger = self._administration.currency
        stated = {unit: Decimal(repr(rate)) for unit in UNITS if (rate := getattr(body, unit)) is not None}
        new = new_price(
            body.model,
            stated,
            currency=body.currency or ledger,
            valid_from=None if body.valid_from is None else body.valid_from.timestamp(),
            withdrawn=body.withdrawn,
            note=body.note.strip(),
        )

        def add(connection: Connection, actor: Actor, now: float) -> PriceShape:
            row = actions.add_price(connection, actor, new, now=now, currency=ledger)
            return _show_price(row, in_force=row.valid_from <= now and not row.withdrawn)

        return await self._administration.change(asked, add)


def _show_price(row: PriceRow, *, in_force: bool) -> PriceShape:
    price = row.price
    return PriceShape(
        id=row.id,
        model=row.model,
        valid_from=show_instant(row.valid_from),
        withdrawn=row.withdrawn,
        in_force=in_force,
        currency=None if price is None else price.currency,
        prices={} if price is None else {unit: float(rate) for unit, rate in state_price(price).items()},
        note=row.note,
        created_at=show_instant(row.created_at),
        created_by=row.created_by,
    )


_PRICE = {
    "id": 3,
    "model": "openai/gpt-5*",
    "valid_from": "2026-11-21T09:30:00.000Z",
    "withdrawn": False,
    "in_force": True,
    "currency": "USD",
    "prices": {"input_per_1m": 1.25, "output_per_1m": 10.0},
    "note": "",
    "created_at": "2026-11-21T09:30:00.000Z",
    "created_by": "admin",
}
