"""Says once that most of a budget, or all of it, has been spent."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Column, Connection, Double, Integer, String, Table, delete, insert, select

from stellwerk.core.principal import Window
from stellwerk.ledger.budgets import Limit, read_spending
from stellwerk.storage.tables import metadata

PERCENTS: Final = (80, 100)

budget_notices = Table(
    "budget_notices",
    metadata,
    # As in `budget_windows`: each window begins anew, and so do its notices.
    Column("subject", String(80), primary_key=True),
    Column("beginning", Double, primary_key=True),
    Column("percent", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
)

_KEPT_SECONDS = 400 * 86_400


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """A budget of which so many percent are spent now; micro units and Unix seconds."""

    user_id: int | None
    key_id: str | None
    """Whose budget it is: exactly one of both."""
    window: Window
    percent: int
    spent: int
    amount: int
    beginning: float
    end: float


def note_crossings(connection: Connection, limits: Sequence[Limit], now: float) -> list[Crossing]:
    """What of `limits` has been crossed and was never said before, by whichever process; the highest percentage only.

    What is held for running calls does not count: they may give it back.
    """
    found = []
    for limit, spending in zip(limits, read_spending(connection, limits, now), strict=True):
        reached = [percent for percent in PERCENTS if spending.spent * 100 >= spending.amount * percent]
        if not reached or not spending.known:
            continue
        said = set(
            connection.scalars(
                select(budget_notices.c.percent).where(
                    budget_notices.c.subject == spending.subject, budget_notices.c.beginning == spending.beginning
                )
            )
        )
        new = [percent for percent in reached if percent not in said]
        if not new:
            continue
        row = {"subject": spending.subject, "beginning": spending.beginning, "at": now}
        connection.execute(insert(budget_notices), [{**row, "percent": percent} for percent in new])
        if max(new) > max(said, default=0):
            found.append(
                Crossing(
                    user_id=limit.user_id,
                    key_id=limit.key_id,
                    window=limit.budget.window,
                    percent=max(new),
                    spent=spending.spent,
                    amount=spending.amount,
                    beginning=spending.beginning,
                    end=spending.end,
                )
            )
    return found


def prune(connection: Connection, now: float) -> int:
    """Forgets the notices of windows that began 400 days ago; returns how many."""
    return connection.execute(delete(budget_notices).where(budget_notices.c.beginning < now - _KEPT_SECONDS)).rowcount
