"""Double entry: accounts, transactions, and the entries of each transaction, whose sum is zero.

A user has two accounts, the house three:

available     what a user may spend
held          what is set aside for calls that run
outside       where money comes from; below zero by what has come in
income        what has been delivered, at its full price
written_off   below zero by what was delivered and nobody paid

    top_up       outside → available
    correction   outside → available, or back
    hold         available → held
    settle       held → income; what is left → available, what is missing ← available, then ← written_off
    release      held → available
    estimate     as settle, for a call whose end nobody saw

Money is counted in integers, micro units (10^-6) of the ledger's one currency. Functions here run in the transaction of
their connection, and whoever reads a balance to change it has to be the only writer: SQLite's writing connections
take the lock when they begin, other databases lock the rows that `read_accounts` reads.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    column,
    func,
    insert,
    select,
    table,
    update,
)

from stellwerk.core.errors import BadRequest, Conflict
from stellwerk.storage.failures import StorageRefused
from stellwerk.storage.tables import metadata, row_number

accounts = Table(
    "ledger_accounts",
    metadata,
    Column("id", row_number, primary_key=True),
    # `available` and `held` of a user; `outside`, `income` and `written_off` of the house.
    Column("kind", String(20), nullable=False),
    # 0 is the house: NULL would not be unique.
    Column("user_id", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    # The sum of the account's entries, kept so that a hold need not add them up.
    Column("balance", BigInteger, nullable=False),
    UniqueConstraint("kind", "user_id"),
    CheckConstraint("balance >= 0 OR kind NOT IN ('available', 'held')", name="never_below_zero"),
)

transactions = Table(
    "ledger_transactions",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("at", Double, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("hold_id", String(32)),
    Column("note", String(500), nullable=False),
    Column("actor", String(254), nullable=False),
    Index(None, "user_id", "id"),
    # A hold is made once and closed once, whatever else goes wrong.
    UniqueConstraint("hold_id", "kind"),
)

entries = Table(
    "ledger_entries",
    metadata,
    Column("id", row_number, primary_key=True),
    Column("transaction_id", ForeignKey("ledger_transactions.id"), nullable=False),
    Column("account_id", ForeignKey("ledger_accounts.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Index(None, "transaction_id"),
    Index(None, "account_id"),
)

# Money that is held is the business of ledger/holds.py, which imports this module: here it is only looked up.
_calls_of_holds = table("ledger_holds", column("id"), column("call_id"))

AVAILABLE, HELD = "available", "held"
OUTSIDE, INCOME, WRITTEN_OFF = "outside", "income", "written_off"
USER_KINDS = (AVAILABLE, HELD)
HOUSE_KINDS = (OUTSIDE, INCOME, WRITTEN_OFF)
HOUSE = 0

LARGEST_AMOUNT = 10**14
"""A hundred million of the currency, the most that one transaction moves: sums stay far from 64 bits."""

# They move money between the accounts of one user.
_INNER_KINDS = ("hold", "release")

_NOTE_LENGTH = 500
_ACTOR_LENGTH = 254
_LINES = 1_000


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """Micro units of one user."""

    available: int = 0
    held: int = 0


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """One booking that changed what a user has; `amount` below 0 is what it took."""

    id: int
    at: float
    kind: str
    amount: int
    note: str
    actor: str
    call_id: str | None = None


class Account(msgspec.Struct, frozen=True):
    id: int
    balance: int


Accounts = Mapping[str, Account]
"""One user's accounts and the house's, by kind."""

_READ = (
    select(accounts.c.kind, accounts.c.id, accounts.c.balance, accounts.c.currency)
    .where(accounts.c.user_id.in_((bindparam("user"), HOUSE)))
    .order_by(accounts.c.id)
    .with_for_update()
)
_MOVE = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"))
    .values(balance=accounts.c.balance + bindparam("moved"))
)
_BOOK = insert(transactions)
_ENTER = insert(entries)


def top_up(
    connection: Connection, user_id: int, amount: int, *, note: str, actor: str, now: float, currency: str
) -> Balance:
    """Adds money that came in, more than 0, and returns the new balance. Raises BadRequest.

    Whoever calls has made sure that the user exists.
    """
    if not 0 < amount <= LARGEST_AMOUNT:
        raise BadRequest("The amount must be more than 0.", param="amount", code="invalid_amount")
    return _take_in(connection, "top_up", user_id, amount, note=note, actor=actor, now=now, currency=currency)


def correct(
    connection: Connection, user_id: int, amount: int, *, note: str, actor: str, now: float, currency: str
) -> Balance:
    """Adds or, below 0, takes away what was booked wrongly. Raises BadRequest, code `balance_below_zero`.

    What is held for running calls cannot be taken away.
    """
    if amount == 0 or abs(amount) > LARGEST_AMOUNT:
        raise BadRequest("The amount must not be 0.", param="amount", code="invalid_amount")
    return _take_in(connection, "correction", user_id, amount, note=note, actor=actor, now=now, currency=currency)


def set_balance(
    connection: Connection, user_id: int, balance: int, *, note: str, actor: str, now: float, currency: str
) -> int:
    """Corrects what is available to `balance`; returns the difference, 0 when there was nothing to book."""
    if not 0 <= balance <= LARGEST_AMOUNT:
        raise BadRequest("The balance must not be below 0.", param="balance", code="balance_below_zero")
    account = read_accounts(connection, user_id).get(AVAILABLE)
    difference = balance - (account.balance if account else 0)
    if difference:
        correct(connection, user_id, difference, note=note, actor=actor, now=now, currency=currency)
    return difference


def balances(connection: Connection) -> dict[int, Balance]:
    """Of every user who ever had money."""
    rows = connection.execute(
        select(accounts.c.user_id, accounts.c.kind, accounts.c.balance).where(accounts.c.user_id != HOUSE)
    )
    found: dict[int, dict[str, int]] = {}
    for user_id, kind, amount in rows:
        found.setdefault(user_id, {})[kind] = amount
    return {user_id: Balance(**of_user) for user_id, of_user in found.items()}


def balance(connection: Connection, user_id: int) -> Balance:
    rows = connection.execute(
        select(accounts.c.kind, accounts.c.balance).where(
            accounts.c.user_id == user_id, accounts.c.kind.in_(USER_KINDS)
        )
    )
    return Balance(**{row.kind: row.balance for row in rows})


def statement(connection: Connection, user_id: int, *, limit: int, before: int | None = None) -> list[StatementLine]:
    """The newest bookings, newest first, at most 1000; `before` is the id of the last line of the page before.

    Together all lines add up to what is available and held: a hold and its release move nothing in or out.
    """
    query = (
        select(
            transactions.c.id,
            transactions.c.at,
            transactions.c.kind,
            func.sum(entries.c.amount).label("amount"),
            transactions.c.note,
            transactions.c.actor,
            _calls_of_holds.c.call_id,
        )
        .join(entries, entries.c.transaction_id == transactions.c.id)
        .join(accounts, (accounts.c.id == entries.c.account_id) & accounts.c.kind.in_(USER_KINDS))
        .join(_calls_of_holds, _calls_of_holds.c.id == transactions.c.hold_id, isouter=True)
        .where(transactions.c.user_id == user_id, transactions.c.kind.not_in(_INNER_KINDS))
        .group_by(transactions.c.id, _calls_of_holds.c.call_id)
        .order_by(transactions.c.id.desc())
        .limit(max(1, min(limit, _LINES)))
    )
    if before is not None:
        query = query.where(transactions.c.id < before)
    return [StatementLine(**row) for row in connection.execute(query).mappings()]


def ensure_currency(connection: Connection, currency: str) -> None:
    """Raises StorageRefused when the ledger is kept in another currency: amounts are never converted."""
    kept = connection.execute(
        select(accounts.c.currency).where(accounts.c.currency != currency).limit(1)
    ).scalar_one_or_none()
    if kept is not None:
        raise StorageRefused(
            f"The ledger is kept in {kept}, and the configuration says {currency}. "
            f"Set money.currency to {kept}; balances cannot be converted."
        )


def read_accounts(connection: Connection, user_id: int) -> dict[str, Account]:
    """A user's and the house's accounts as far as there are any, locked until the transaction ends."""
    return {kind: Account(number, amount) for kind, number, amount, _ in connection.execute(_READ, {"user": user_id})}


def book(
    connection: Connection,
    accounts_by_kind: Accounts,
    kind: str,
    user_id: int,
    amounts: Mapping[str, int],
    *,
    now: float,
    hold_id: str | None = None,
    note: str = "",
    actor: str = "",
) -> None:
    """Stores one transaction; `amounts` go to the accounts of their kind, and their sum is zero.

    Those that take come first, so that a balance that does not suffice is refused by the database too.
    """
    if sum(amounts.values()) != 0:
        raise ValueError(f"the entries of a {kind} do not add up: {dict(amounts)}")
    moves = sorted((amount, accounts_by_kind[to].id) for to, amount in amounts.items() if amount)
    row = {"at": now, "kind": kind, "user_id": user_id, "hold_id": hold_id, "note": note, "actor": actor}
    result = connection.execute(_BOOK, row).inserted_primary_key
    assert result is not None
    connection.execute(
        _ENTER, [{"transaction_id": result[0], "account_id": account, "amount": amount} for amount, account in moves]
    )
    connection.execute(_MOVE, [{"account": account, "moved": amount} for amount, account in moves])


def _take_in(
    connection: Connection, kind: str, user_id: int, amount: int, *, note: str, actor: str, now: float, currency: str
) -> Balance:
    if user_id <= HOUSE:
        raise ValueError("the house has no balance of its own")
    if len(note) > _NOTE_LENGTH:
        raise BadRequest(f"The note is longer than {_NOTE_LENGTH} characters.", param="note", code="invalid_note")
    found = _ensure_accounts(connection, user_id, currency)
    available, held = found[AVAILABLE].balance, found[HELD].balance
    if available + amount < 0:
        raise BadRequest(
            "The balance cannot go below 0; what is held for running calls counts as spent.",
            param="amount",
            code="balance_below_zero",
        )
    if available + amount > LARGEST_AMOUNT:
        raise BadRequest("The balance would be too large.", param="amount", code="invalid_amount")
    amounts = {OUTSIDE: -amount, AVAILABLE: amount}
    book(connection, found, kind, user_id, amounts, now=now, note=note, actor=actor[:_ACTOR_LENGTH])
    return Balance(available=available + amount, held=held)


def _ensure_accounts(connection: Connection, user_id: int, currency: str) -> dict[str, Account]:
    rows = connection.execute(_READ, {"user": user_id}).all()
    if any(row.currency != currency for row in rows):
        raise Conflict(f"The ledger is kept in {rows[0].currency}, not in {currency}.", code="currency_mismatch")
    known = {row.kind for row in rows}
    owners = dict.fromkeys(USER_KINDS, user_id) | dict.fromkeys(HOUSE_KINDS, HOUSE)
    missing = [
        {"kind": kind, "user_id": owner, "currency": currency, "balance": 0}
        for kind, owner in owners.items()
        if kind not in known
    ]
    if missing:
        connection.execute(insert(accounts), missing)
    return read_accounts(connection, user_id)
