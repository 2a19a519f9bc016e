import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from stellwerk.core.errors import BadRequest, Conflict
from stellwerk.ledger.accounts import (
    LARGEST_AMOUNT,
    Balance,
    accounts,
    balances,
    book,
    correct,
    ensure_currency,
    entries,
    read_accounts,
    set_balance,
    statement,
    top_up,
    transactions,
)
from stellwerk.ledger.check import check
from stellwerk.storage.failures import StorageRefused

DETAILS = {"note": "a note", "actor": "admin", "now": 5.0, "currency": "EUR"}


@pytest.fixture
def correcting(database):
    return lambda amount, user_id=7: database.write(lambda c: correct(c, user_id, amount, **DETAILS))


@pytest.fixture
def setting(database):
    return lambda amount, user_id=7: database.write(lambda c: set_balance(c, user_id, amount, **DETAILS))


@pytest.fixture
def lines(database):
    return lambda **which: database.read(lambda c: statement(c, 7, **{"limit": 50, **which}))


def test_money_that_came_in_is_available(pay_in, balance_of, database):
    assert pay_in(10) == Balance(available=10, held=0)
    assert pay_in(5).available == 15
    assert pay_in(3, user_id=8).available == 3
    assert balance_of(7) == (15, 0)
    assert database.read(check).sums == {"available": 18, "held": 0, "outside": -18, "income": 0, "written_off": 0}
    assert database.read(balances) == {7: Balance(available=15), 8: Balance(available=3)}


def test_who_never_had_money_has_none(balance_of, database):
    assert balance_of(7) == (0, 0)
    assert database.read(balances) == {}


@pytest.mark.parametrize("amount", [0, -1, LARGEST_AMOUNT + 1, 10**18, 10**40])
def test_a_top_up_is_more_than_nothing_and_less_than_all_money(pay_in, balance_of, amount):
    with pytest.raises(BadRequest) as refused:
        pay_in(amount)
    assert (refused.value.code, refused.value.param) == ("invalid_amount", "amount")
    assert balance_of() == (0, 0)


def test_a_balance_stays_below_the_largest_amount(pay_in, balance_of):
    pay_in(LARGEST_AMOUNT)
    with pytest.raises(BadRequest):
        pay_in(1)
    assert balance_of() == (LARGEST_AMOUNT, 0)


def test_a_correction_goes_both_ways_but_never_below_zero(pay_in, correcting, balance_of):
    pay_in(10)
    assert correcting(-4).available == 6
    assert correcting(1).available == 7
    with pytest.raises(BadRequest) as refused:
        correcting(-8)
    assert refused.value.code == "balance_below_zero"
    assert correcting(-7).available == 0
    assert balance_of() == (0, 0)


@pytest.mark.parametrize("amount", [0, LARGEST_AMOUNT + 1, -LARGEST_AMOUNT - 1])
def test_a_correction_by_nothing_or_by_too_much_is_refused(correcting, amount):
    with pytest.raises(BadRequest):
        correcting(amount)


def test_setting_a_balance_books_the_difference(pay_in, setting, lines, balance_of):
    assert setting(10) == 10
    assert setting(4) == -6
    assert setting(4) == 0
    assert balance_of() == (4, 0)
    assert [(line.kind, line.amount) for line in lines()] == [("correction", -6), ("correction", 10)]
    with pytest.raises(BadRequest):
        setting(-1)


def test_a_statement_adds_up_and_pages(pay_in, correcting, lines, balance_of):
    for amount in (10, 20, 30):
        pay_in(amount)
    correcting(-5)
    pay_in(99, user_id=8)
    everything = lines()
    assert [line.amount for line in everything] == [-5, 30, 20, 10]
    assert sum(line.amount for line in everything) == sum(balance_of())
    assert (everything[0].note, everything[0].actor, everything[0].at) == ("a note", "admin", 5.0)
    first = lines(limit=2)
    assert first == everything[:2]
    assert lines(before=first[-1].id) == everything[2:]


def test_a_note_has_its_length(database):
    with pytest.raises(BadRequest) as refused:
        database.write(lambda c: top_up(c, 7, 1, **{**DETAILS, "note": "n" * 501}))
    assert refused.value.param == "note"


def test_the_house_has_no_balance(pay_in):
    with pytest.raises(ValueError):
        pay_in(1, user_id=0)


@pytest.mark.parametrize("table", [transactions, entries])
def test_what_was_booked_can_neither_be_changed_nor_deleted(pay_in, database, table):
    pay_in(10)
    for statement_of in (update(table).values(id=99), delete(table)):
        with pytest.raises(IntegrityError, match="append-only"):
            database.write(lambda c, s=statement_of: c.execute(s))


def test_the_database_itself_refuses_a_balance_below_zero(pay_in, database):
    pay_in(10)

    def overdraw(connection):
        found = read_accounts(connection, 7)
        book(connection, found, "hold", 7, {"available": -11, "held": 11}, now=0.0)

    with pytest.raises(IntegrityError, match="never_below_zero"):
        database.write(overdraw)


def test_entries_that_do_not_add_up_are_not_booked(pay_in, database):
    pay_in(10)
    with pytest.raises(ValueError, match="do not add up"):
        database.write(lambda c: book(c, read_accounts(c, 7), "hold", 7, {"available": -1, "held": 2}, now=0.0))


def test_a_ledger_has_one_currency(pay_in, database):
    database.read(lambda c: ensure_currency(c, "USD"))
    pay_in(10)
    database.read(lambda c: ensure_currency(c, "EUR"))
    with pytest.raises(StorageRefused, match="kept in EUR"):
        database.read(lambda c: ensure_currency(c, "USD"))
    with pytest.raises(Conflict, match="kept in EUR"):
        pay_in(10, currency="USD")
    with pytest.raises(Conflict):
        pay_in(10, user_id=8, currency="USD")
    assert database.read(lambda c: c.execute(select(accounts.c.currency).distinct()).scalars().all()) == ["EUR"]
