"""Proves that the ledger adds up. Reads only, and in one consistent view.

What is proved: the entries of each transaction add up to zero; the balance of each account is the sum of its entries;
all balances add up to zero; nobody's balance is below zero; what each user has on hold is what his open holds say;
each hold that was taken from a balance has one transaction that made it and, once it is closed, one that closed it at
the cost that the hold says; and what budget windows hold is what the open holds hold in them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, func, or_, select

from stellwerk.ledger.accounts import HELD, HOUSE, HOUSE_KINDS, INCOME, USER_KINDS, accounts, entries, transactions
from stellwerk.ledger.budgets import budget_windows
from stellwerk.ledger.holds import CLOSING_KINDS, ESTIMATED, OPEN, RELEASED, SETTLED, holds

Condition = ColumnElement[bool]

_PROBLEMS_OF_A_KIND = 100
"""More of the same are not listed: one is enough to call somebody."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    """What does not hold: `unbalanced_transaction`, `wrong_balance`, …"""
    id: str
    """Of the transaction, account, user, hold or window that it is about."""
    message: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of what was looked at; `sums` are the balances by kind of account, in micro units."""

    problems: list[Problem]
    accounts: int
    transactions: int
    entries: int
    open_holds: int
    sums: dict[str, int]

    @property
    def clean(self) -> bool:
        return not self.problems


def check(connection: Connection) -> Report:
    """Looks at everything; the time it takes grows with the number of entries."""
    sums = {
        kind: int(total)
        for kind, total in connection.execute(
            select(accounts.c.kind, func.sum(accounts.c.balance)).group_by(accounts.c.kind)
        )
    }
    problems = [
        *_check_accounts(connection, sums),
        *_check_transactions(connection),
        *_check_held(connection),
        *_check_holds(connection),
        *_check_windows(connection),
    ]
    return Report(
        problems=problems,
        accounts=_number(connection, select(func.count()).select_from(accounts)),
        transactions=_number(connection, select(func.count()).select_from(transactions)),
        entries=_number(connection, select(func.count()).select_from(entries)),
        open_holds=_number(connection, select(func.count()).select_from(holds).where(holds.c.state == OPEN)),
        sums=sums,
    )


def _check_accounts(connection: Connection, sums: Mapping[str, int]) -> Iterable[Problem]:
    booked = func.coalesce(func.sum(entries.c.amount), 0)
    query = (
        select(accounts.c.id, accounts.c.kind, accounts.c.user_id, accounts.c.balance, booked.label("booked"))
        .join(entries, entries.c.account_id == accounts.c.id, isouter=True)
        .group_by(accounts.c.id, accounts.c.kind, accounts.c.user_id, accounts.c.balance)
        .having(accounts.c.balance != booked)
    )
    for row in _some(connection, query):
        name = f"{row.kind} of user {row.user_id}"
        yield _problem("wrong_balance", row.id, f"The account {name} says {row.balance}, its entries {row.booked}.")
    below = select(accounts).where(accounts.c.kind.in_(USER_KINDS), accounts.c.balance < 0)
    for row in _some(connection, below):
        yield _problem("below_zero", row.id, f"The account {row.kind} of user {row.user_id} is at {row.balance}.")
    of_nobody = select(accounts).where(
        or_(
            and_(accounts.c.kind.in_(USER_KINDS), accounts.c.user_id == HOUSE),
            and_(accounts.c.kind.in_(HOUSE_KINDS), accounts.c.user_id != HOUSE),
            accounts.c.kind.not_in((*USER_KINDS, *HOUSE_KINDS)),
        )
    )
    for row in _some(connection, of_nobody):
        yield _problem("unknown_account", row.id, f"There should be no account {row.kind} of user {row.user_id}.")
    if total := sum(sums.values()):
        yield _problem("wrong_total", "all", f"All balances together are {total} instead of 0.")
    currencies = connection.execute(select(accounts.c.currency).distinct().limit(_PROBLEMS_OF_A_KIND)).scalars().all()
    if len(currencies) > 1:
        yield _problem("mixed_currencies", "all", f"There are accounts in {', '.join(sorted(currencies))}.")


def _check_transactions(connection: Connection) -> Iterable[Problem]:
    total = func.coalesce(func.sum(entries.c.amount), 0)
    query = (
        select(transactions.c.id, transactions.c.kind, total.label("total"), func.count(entries.c.id).label("number"))
        .join(entries, entries.c.transaction_id == transactions.c.id, isouter=True)
        .group_by(transactions.c.id, transactions.c.kind)
        .having(or_(total != 0, func.count(entries.c.id) < 2))
    )
    for row in _some(connection, query):
        yield _problem(
            "unbalanced_transaction",
            row.id,
            f"The transaction {row.id} ({row.kind}) has {row.number} entries that add up to {row.total}.",
        )
    of_others = (
        select(transactions.c.id, accounts.c.kind, accounts.c.user_id)
        .join(entries, entries.c.transaction_id == transactions.c.id)
        .join(accounts, accounts.c.id == entries.c.account_id)
        .where(accounts.c.user_id.not_in((HOUSE, transactions.c.user_id)))
    )
    for row in _some(connection, of_others):
        yield _problem(
            "foreign_entry", row.id, f"The transaction {row.id} moves the {row.kind} of user {row.user_id} too."
        )
    strangers = (
        select(transactions.c.id, transactions.c.hold_id)
        .join(holds, holds.c.id == transactions.c.hold_id, isouter=True)
        .where(transactions.c.hold_id.is_not(None), or_(holds.c.id.is_(None), holds.c.from_balance.is_(False)))
    )
    for row in _some(connection, strangers):
        yield _problem(
            "unknown_hold", row.id, f"The transaction {row.id} is of the hold {row.hold_id}, which took none."
        )


def _check_held(connection: Connection) -> Iterable[Problem]:
    open_holds = (
        select(holds.c.user_id, func.sum(holds.c.amount).label("amount"))
        .where(holds.c.state == OPEN, holds.c.from_balance.is_(True))
        .group_by(holds.c.user_id)
    )
    wanted = {row.user_id: int(row.amount) for row in connection.execute(open_holds)}
    for user_id, balance in connection.execute(
        select(accounts.c.user_id, accounts.c.balance).where(accounts.c.kind == HELD)
    ):
        if balance != (amount := wanted.pop(user_id, 0)):
            yield _problem("wrong_held", user_id, f"User {user_id} has {balance} on hold, his open holds are {amount}.")
    for user_id, amount in wanted.items():
        yield _problem("wrong_held", user_id, f"User {user_id} has no account for his open holds of {amount}.")


def _check_holds(connection: Connection) -> Iterable[Problem]:
    """Each hold against its transactions: how many made it and closed it, and what they moved."""
    made, closed = transactions.c.kind == "hold", transactions.c.kind.in_(CLOSING_KINDS.values())
    fitting = case(CLOSING_KINDS, value=holds.c.state, else_="")

    def moved(when: Condition, account: str) -> ColumnElement[Any]:
        return func.coalesce(func.sum(case((and_(when, accounts.c.kind == account), entries.c.amount), else_=0)), 0)

    def number(when: Condition) -> ColumnElement[Any]:
        return func.count(case((when, transactions.c.id)).distinct())

    found = (
        select(
            holds.c.id,
            holds.c.state,
            holds.c.amount,
            holds.c.cost,
            number(made).label("made"),
            number(closed).label("closed"),
            number(transactions.c.kind == fitting).label("fitting"),
            moved(made, HELD).label("taken"),
            moved(closed, HELD).label("returned"),
            moved(closed, INCOME).label("charged"),
        )
        .join(transactions, transactions.c.hold_id == holds.c.id, isouter=True)
        .join(entries, entries.c.transaction_id == transactions.c.id, isouter=True)
        .join(accounts, accounts.c.id == entries.c.account_id, isouter=True)
        .where(holds.c.from_balance.is_(True))
        .group_by(holds.c.id, holds.c.state, holds.c.amount, holds.c.cost)
        .subquery()
    )
    right = and_(
        found.c.made == 1,
        found.c.taken == found.c.amount,
        or_(
            and_(found.c.state == OPEN, found.c.closed == 0),
            and_(
                found.c.state.in_((SETTLED, RELEASED, ESTIMATED)),
                found.c.closed == 1,
                found.c.fitting == 1,
                found.c.returned == -found.c.amount,
                found.c.charged == func.coalesce(found.c.cost, -1),
            ),
        ),
    )
    for row in _some(connection, select(found).where(~right)):
        yield _problem(
            "wrong_hold",
            row.id,
            f"The {row.state} hold {row.id} of {row.amount} at a cost of {row.cost} was made {row.made} times, "
            f"closed {row.closed} times, and charged {row.charged}.",
        )


def _check_windows(connection: Connection) -> Iterable[Problem]:
    wanted: Counter[tuple[str, float]] = Counter()
    for amount, windows in connection.execute(select(holds.c.amount, holds.c.budgets).where(holds.c.state == OPEN)):
        for subject, beginning in windows:
            wanted[subject, float(beginning)] += amount
    for row in connection.execute(select(budget_windows)):
        amount = wanted.pop((row.subject, row.beginning), 0)
        if row.held != amount or row.spent < 0:
            yield _problem(
                "wrong_window",
                f"{row.subject}@{row.beginning:.0f}",
                f"The budget window {row.subject} has spent {row.spent} and holds {row.held}, its open holds {amount}.",
            )
    for (subject, beginning), amount in wanted.items():
        yield _problem(
            "wrong_window",
            f"{subject}@{beginning:.0f}",
            f"The budget window {subject} is gone, its holds are {amount}.",
        )


def _some(connection: Connection, query: Select[Any]) -> Iterable[Row[Any]]:
    return connection.execute(query.limit(_PROBLEMS_OF_A_KIND))


def _number(connection: Connection, query: Select[Any]) -> int:
    return int(connection.execute(query).scalar_one())


def _problem(kind: str, number: object, message: str) -> Problem:
    return Problem(kind=kind, id=str(number), message=message)
