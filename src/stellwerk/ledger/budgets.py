"""What was spent in the windows of budgets.

A hold counts in the windows in which it was made, also when it ends after them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from stellwerk.core.principal import Budget, Principal, Window
from stellwerk.ledger.calls import calls
from stellwerk.storage.tables import metadata

budget_windows = Table(
    "budget_windows",
    metadata,
    # `user:<id>:<window>` or `key:<id>:<window>`: a day and a month may begin at the same moment.
    Column("subject", String(80), primary_key=True),
    Column("beginning", Double, primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
)

_KEPT_SECONDS = 400 * 86_400
"""A little more than a year, longer than any window."""

_NAMES = {Window.DAY: "daily", Window.WEEK: "weekly", Window.MONTH: "monthly"}


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One budget that a call counts against."""

    user_id: int | None
    key_id: str | None
    """Whose budget it is: exactly one of both."""
    budget: Budget

    @property
    def subject(self) -> str:
        owner = f"key:{self.key_id}" if self.key_id is not None else f"user:{self.user_id}"
        return f"{owner}:{self.budget.window}"

    @property
    def name(self) -> str:
        """For people: `daily budget of this key`."""
        return f"{_NAMES[self.budget.window]} budget of this {'user' if self.key_id is None else 'key'}"


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """The current window of a budget; micro units and Unix seconds."""

    subject: str
    beginning: float
    end: float
    amount: int
    spent: int
    held: int
    known: bool
    """Whether the window has a row of its own already."""


_READ = (
    select(budget_windows)
    .where(
        budget_windows.c.subject.in_(bindparam("subjects", expanding=True)),
        budget_windows.c.beginning.in_(bindparam("beginnings", expanding=True)),
    )
    .with_for_update()
)
_COUNT = (
    update(budget_windows)
    .where(budget_windows.c.subject == bindparam("of"), budget_windows.c.beginning == bindparam("begun"))
    .values(spent=budget_windows.c.spent + bindparam("more"), held=budget_windows.c.held + bindparam("aside"))
)


def window_bounds(window: Window, now: float) -> tuple[float, float]:
    """When the window around `now` begins and ends: midnights in UTC, a week's is Monday's."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window is Window.DAY:
        first, last = day, day + timedelta(days=1)
    elif window is Window.WEEK:
        first = day - timedelta(days=day.weekday())
        last = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1)
    return first.timestamp(), last.timestamp()


def limits_of(principal: Principal) -> tuple[Limit, ...]:
    """The budgets that a call of `principal` counts against, the key's own first."""
    limits = []
    if principal.budget is not None:
        limits.append(Limit(user_id=None, key_id=principal.key_id, budget=principal.budget))
    if principal.user_budget is not None:
        limits.append(Limit(user_id=principal.user_id, key_id=None, budget=principal.user_budget))
    return tuple(limits)


def read_spending(connection: Connection, limits: Sequence[Limit], now: float) -> list[Spending]:
    """The current window of each, in the same order; writes nothing."""
    bounds = [window_bounds(limit.budget.window, now) for limit in limits]
    wanted = {"subjects": [limit.subject for limit in limits], "beginnings": [first for first, _ in bounds]}
    rows = {(row.subject, row.beginning): row for row in connection.execute(_READ, wanted)} if limits else {}
    found = []
    for limit, (first, last) in zip(limits, bounds, strict=True):
        row = rows.get((limit.subject, first))
        found.append(
            Spending(
                subject=limit.subject,
                beginning=first,
                end=last,
                amount=limit.budget.amount,
                spent=row.spent if row is not None else _spent_since(connection, limit, first),
                held=row.held if row is not None else 0,
                known=row is not None,
            )
        )
    return found


def open_windows(connection: Connection, limits: Sequence[Limit], now: float) -> list[Spending]:
    """As `read_spending`, and from now on what is spent in them is counted.

    A budget that is set in the middle of a window begins with what the recorded calls have cost since then.
    """
    found = read_spending(connection, limits, now)
    new = [
        {"subject": one.subject, "beginning": one.beginning, "spent": one.spent, "held": 0}
        for one in found
        if not one.known
    ]
    if new:
        connection.execute(insert(budget_windows), new)
    return found


def count(connection: Connection, windows: Sequence[tuple[str, float]], *, spent: int, held: int) -> None:
    """Adds to what is spent and held in each of `windows` (subject, beginning)."""
    rows = [{"of": subject, "begun": beginning, "more": spent, "aside": held} for subject, beginning in windows]
    connection.execute(_COUNT, rows)


def recount(connection: Connection, limit: Limit, now: float) -> None:
    """To be called when a budget is set: what was spent in its window while there was none counts too."""
    first, _ = window_bounds(limit.budget.window, now)
    spent = _spent_since(connection, limit, first)
    connection.execute(
        update(budget_windows)
        .where(
            budget_windows.c.subject == limit.subject,
            budget_windows.c.beginning == first,
            # What has just been settled may not be recorded yet.
            budget_windows.c.spent < spent,
        )
        .values(spent=spent)
    )


def prune(connection: Connection, now: float) -> int:
    """Forgets windows that began 400 days ago; returns how many."""
    old = delete(budget_windows).where(budget_windows.c.beginning < now - _KEPT_SECONDS, budget_windows.c.held == 0)
    return connection.execute(old).rowcount


def _spent_since(connection: Connection, limit: Limit, beginning: float) -> int:
    whose = calls.c.key_id == limit.key_id if limit.key_id is not None else calls.c.user_id == limit.user_id
    total = connection.execute(
        select(func.coalesce(func.sum(calls.c.cost), 0)).where(whose, calls.c.at >= beginning)
    ).scalar_one()
    return int(total)
