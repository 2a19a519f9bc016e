"""Money set aside for a call that runs, and what becomes of it.

A hold is open, and is closed exactly once: settled at what the call has cost, released when there is nothing to pay,
or estimated when nobody saw the end of the call.
"""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    String,
    Table,
    bindparam,
    insert,
    select,
    update,
)

from stellwerk.ledger.accounts import AVAILABLE, HELD, INCOME, LARGEST_AMOUNT, WRITTEN_OFF, Account, book, read_accounts
from stellwerk.ledger.budgets import Limit, Spending, count, open_windows
from stellwerk.storage.tables import metadata

holds = Table(
    "ledger_holds",
    metadata,
    Column("id", String(32), primary_key=True),
    # The process that answers the call; what another one left open is closed when it is gone.
    Column("owner", String(32), nullable=False),
    Column("call_id", String(128), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("at", Double, nullable=False),
    # Whether the amount was taken from the user's balance; otherwise it only counts against budgets.
    Column("from_balance", Boolean, nullable=False),
    Column("amount", BigInteger, nullable=False),
    # The part for the prompt: what is charged when nobody knows how the call ended.
    Column("input_amount", BigInteger, nullable=False),
    # The budget windows that it counts against: a list of [subject, beginning].
    Column("budgets", JSON(none_as_null=True), nullable=False),
    Column("state", String(10), nullable=False),
    Column("closed_at", Double),
    Column("cost", BigInteger),
    Column("estimated", Boolean),
    Index(None, "state"),
)

OPEN, SETTLED, RELEASED, ESTIMATED = "open", "settled", "released", "estimated"
CLOSING_KINDS = {SETTLED: "settle", RELEASED: "release", ESTIMATED: "estimate"}
"""The transaction that closes a hold, by the state that it is in afterwards."""

_ACTOR = "gateway"
RECOVERED_AT_ONCE = 500


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one call needs; micro units, `expected` ≥ `least` ≥ 1."""

    hold_id: str
    owner: str
    call_id: str
    user_id: int
    key_id: str
    from_balance: bool
    limits: tuple[Limit, ...]
    expected: int
    least: int
    """With less than that the call is not begun."""
    input_amount: int


class Room(msgspec.Struct, frozen=True):
    """What a balance or a budget still allows; `free` is below 0 in a budget that is overdrawn."""

    free: int
    held: int
    """Set aside for other calls; some of it may come back."""
    limit: Limit | None = None
    """The budget; None is the balance."""
    end: float = 0.0


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """Why there was no hold: `room` is too small. `may_wait` says that a call that ends could change that."""

    room: Room
    may_wait: bool


class Ask(msgspec.Struct, frozen=True):
    demand: Demand
    patient: bool
    """The call would rather wait than begin with less than it is expected to need."""


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    hold_id: str
    state: str
    cost: int
    estimated: bool
    at: float


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that was found open after its process had ended, and what was charged."""

    hold_id: str
    call_id: str
    user_id: int
    cost: int


_CLOSE = (
    update(holds)
    .where(holds.c.id == bindparam("hold"), holds.c.state == OPEN)
    .values(
        state=bindparam("closed"),
        closed_at=bindparam("closing"),
        cost=bindparam("charged"),
        estimated=bindparam("guessed"),
    )
    .returning(holds.c.user_id, holds.c.from_balance, holds.c.amount, holds.c.budgets)
)
_PLACE = insert(holds)


def decide(demand: Demand, rooms: Sequence[Room], *, patient: bool) -> int | Shortage:
    """The amount to hold, never more than the smallest room, or why there is none."""
    short = [room for room in rooms if room.free < demand.expected]
    if not short:
        return demand.expected
    for room in short:
        # Not even if everything that is held came back.
        if room.free + room.held < demand.least:
            return Shortage(room=room, may_wait=False)
    if patient:
        for room in short:
            if room.held:
                return Shortage(room=room, may_wait=True)
    smallest = min(short, key=_free)
    return smallest.free if smallest.free >= demand.least else Shortage(room=smallest, may_wait=False)


def place_holds(connection: Connection, asks: Sequence[Ask], *, now: float) -> list[int | Shortage]:
    """Tries the demands of one user in order; for each the amount that is held now, or why there is none."""
    user_id = asks[0].demand.user_id
    accounts = read_accounts(connection, user_id) if any(ask.demand.from_balance for ask in asks) else {}
    limits = list({limit.subject: limit for ask in asks for limit in ask.demand.limits}.values())
    windows = {one.subject: one for one in open_windows(connection, limits, now)} if limits else {}
    money = Room(_balance_of(accounts, AVAILABLE), _balance_of(accounts, HELD))
    answers: list[int | Shortage] = []
    for ask in asks:
        demand = ask.demand
        rooms = [money] if demand.from_balance else []
        rooms += [_room(limit, windows[limit.subject]) for limit in demand.limits]
        answer = decide(demand, rooms, patient=ask.patient)
        answers.append(answer)
        if isinstance(answer, int):
            begun = [(windows[limit.subject].subject, windows[limit.subject].beginning) for limit in demand.limits]
            _place(connection, demand, answer, accounts, begun, now)
            if demand.from_balance:
                money = Room(money.free - answer, money.held + answer)
            for subject, _ in begun:
                one = windows[subject]
                windows[subject] = msgspec.structs.replace(one, held=one.held + answer)
    return answers


def close_hold(connection: Connection, closing: Closing) -> bool:
    """Closes a hold once: False, and nothing happens, when it is closed already.

    A cost above the hold is taken from what is available as far as that goes. `income` receives the whole cost, so it
    says what was delivered, and what nobody paid of it comes out of `written_off`: the entries add up to zero and
    nobody's balance goes below it.
    """
    cost = max(0, min(closing.cost, LARGEST_AMOUNT))
    row = connection.execute(
        _CLOSE,
        {
            "hold": closing.hold_id,
            "closed": closing.state,
            "closing": closing.at,
            "charged": cost,
            "guessed": closing.estimated,
        },
    ).one_or_none()
    if row is None:
        return False
    if row.from_balance:
        accounts = read_accounts(connection, row.user_id)
        paid = min(cost, row.amount + accounts[AVAILABLE].balance)
        book(
            connection,
            accounts,
            CLOSING_KINDS[closing.state],
            row.user_id,
            {HELD: -row.amount, AVAILABLE: row.amount - paid, INCOME: cost, WRITTEN_OFF: paid - cost},
            now=closing.at,
            hold_id=closing.hold_id,
            actor=_ACTOR,
        )
    if row.budgets:
        count(connection, row.budgets, spent=cost, held=-row.amount)
    return True


def recover(connection: Connection, owner: str, now: float, *, most: int = RECOVERED_AT_ONCE) -> list[Recovered]:
    """Closes the oldest holds that processes other than `owner` left open; none are left when it returns fewer.

    For the start of the one process that serves, when every other owner is gone. The upstream may have had the prompt
    and begun to answer, and nobody has counted it: the prompt's part is charged and flagged as estimated. Charging
    nothing would make every crash a free call, and charging the whole hold would bill an answer that nobody received.
    """
    left = connection.execute(
        select(holds.c.id, holds.c.call_id, holds.c.user_id, holds.c.input_amount)
        .where(holds.c.state == OPEN, holds.c.owner != owner)
        .order_by(holds.c.at)
        .limit(most)
    ).all()
    closed = []
    for row in left:
        cost = row.input_amount
        if close_hold(connection, Closing(hold_id=row.id, state=ESTIMATED, cost=cost, estimated=True, at=now)):
            closed.append(Recovered(hold_id=row.id, call_id=row.call_id, user_id=row.user_id, cost=cost))
    return closed


def _place(
    connection: Connection,
    demand: Demand,
    amount: int,
    accounts: Mapping[str, Account],
    begun: list[tuple[str, float]],
    now: float,
) -> None:
    connection.execute(
        _PLACE,
        {
            "id": demand.hold_id,
            "owner": demand.owner,
            "call_id": demand.call_id,
            "user_id": demand.user_id,
            "key_id": demand.key_id,
            "at": now,
            "from_balance": demand.from_balance,
            "amount": amount,
            "input_amount": min(demand.input_amount, amount),
            "budgets": begun,
            "state": OPEN,
        },
    )
    if demand.from_balance:
        book(
            connection,
            accounts,
            "hold",
            demand.user_id,
            {AVAILABLE: -amount, HELD: amount},
            now=now,
            hold_id=demand.hold_id,
            actor=_ACTOR,
        )
    if begun:
        count(connection, begun, spent=0, held=amount)


def _room(limit: Limit, spending: Spending) -> Room:
    free = limit.budget.amount - spending.spent - spending.held
    return Room(free, spending.held, limit, spending.end)


def _balance_of(accounts: Mapping[str, Account], kind: str) -> int:
    account = accounts.get(kind)
    return account.balance if account is not None else 0


def _free(room: Room) -> int:
    return room.free
