import pytest
from sqlalchemy import insert, select, text, update

from stellwerk.core.principal import Budget, Window
from stellwerk.ledger.accounts import accounts, entries, transactions
from stellwerk.ledger.budgets import Limit, budget_windows
from stellwerk.ledger.check import check
from stellwerk.ledger.holds import SETTLED, Ask, Closing, Demand, close_hold, holds, place_holds

LIMIT = Limit(user_id=7, key_id=None, budget=Budget(amount=100, window=Window.DAY))


def demand(hold_id, *, from_balance=True):
    return Demand(
        hold_id=hold_id,
        owner="me",
        call_id="req_1",
        user_id=7,
        key_id="abcdefghij",
        from_balance=from_balance,
        limits=(LIMIT,),
        expected=10,
        least=4,
        input_amount=6,
    )


@pytest.fixture
def kinds(database):
    return lambda: [problem.kind for problem in database.read(check).problems]


@pytest.fixture
def run(database):
    return lambda statement: database.write(lambda c: c.execute(statement))


@pytest.fixture(autouse=True)
def _some_business(pay_in, database):
    pay_in(100)
    pay_in(50, user_id=8)
    asks = [Ask(demand("open"), True), Ask(demand("closed"), True), Ask(demand("free", from_balance=False), True)]
    database.write(lambda c: place_holds(c, asks, now=1.0))
    closing = Closing(hold_id="closed", state=SETTLED, cost=7, estimated=False, at=2.0)
    database.write(lambda c: close_hold(c, closing))


def test_a_ledger_that_adds_up_has_no_problems(database):
    report = database.read(check)
    assert report.clean
    assert (report.accounts, report.transactions, report.entries, report.open_holds) == (7, 5, 11, 2)
    assert report.sums == {"available": 133, "held": 10, "outside": -150, "income": 7, "written_off": 0}


def test_a_balance_that_is_not_the_sum_of_its_entries_is_found(run, database):
    run(update(accounts).where(accounts.c.kind == "available", accounts.c.user_id == 8).values(balance=51))
    problems = database.read(check).problems
    assert {problem.kind for problem in problems} == {"wrong_balance", "wrong_total"}
    assert "available of user 8 says 51, its entries 50" in problems[0].message


def test_a_transaction_that_does_not_add_up_is_found(run, kinds):
    run(insert(entries).values(transaction_id=1, account_id=1, amount=5))
    assert {"unbalanced_transaction", "wrong_balance"} <= set(kinds())


def test_a_transaction_without_entries_is_found(run, kinds):
    run(insert(transactions).values(at=0.0, kind="top_up", user_id=7, note="", actor=""))
    assert kinds() == ["unbalanced_transaction"]


def test_an_entry_on_the_account_of_another_user_is_found(run, kinds, database):
    of_8 = database.read(lambda c: c.execute(select(accounts.c.id).where(accounts.c.user_id == 8)).scalars().all())
    for account, amount in zip(of_8, (5, -5), strict=True):
        run(insert(entries).values(transaction_id=1, account_id=account, amount=amount))
    assert "foreign_entry" in kinds()


def test_a_balance_below_zero_is_found(run, database, kinds):
    def overdraw(connection):
        connection.execute(text("PRAGMA ignore_check_constraints=ON"))
        connection.execute(
            update(accounts).where(accounts.c.user_id == 8, accounts.c.kind == "held").values(balance=-1)
        )

    database.write(overdraw)
    assert "below_zero" in kinds()


def test_held_money_without_a_hold_is_found(run, kinds):
    run(update(holds).where(holds.c.id == "open").values(amount=9))
    assert sorted(set(kinds())) == ["wrong_held", "wrong_hold", "wrong_window"]


def test_a_hold_of_a_user_without_accounts_is_found(run, kinds):
    run(update(holds).where(holds.c.id == "open").values(user_id=99))
    assert kinds().count("wrong_held") == 2


@pytest.mark.parametrize(
    "change", [{"state": "open"}, {"state": "released"}, {"cost": 8}, {"cost": None}, {"amount": 11}, {"state": "?"}]
)
def test_a_closed_hold_that_its_transactions_do_not_bear_out_is_found(run, kinds, change):
    run(update(holds).where(holds.c.id == "closed").values(**change))
    assert "wrong_hold" in kinds()


def test_an_open_hold_that_is_said_to_be_closed_is_found(run, kinds):
    run(update(holds).where(holds.c.id == "open").values(state="settled", cost=0))
    assert {"wrong_hold", "wrong_held"} <= set(kinds())


def test_a_transaction_of_a_hold_that_is_not_there_is_found(run, kinds):
    run(update(holds).where(holds.c.id == "closed").values(id="renamed"))
    assert set(kinds()) == {"unknown_hold", "wrong_hold"}


def test_a_transaction_of_a_hold_that_took_no_money_is_found(run, kinds):
    run(update(holds).where(holds.c.id == "closed").values(from_balance=False))
    assert set(kinds()) == {"unknown_hold"}


def test_a_window_that_holds_something_else_is_found(run, kinds):
    run(update(budget_windows).values(held=0))
    assert kinds() == ["wrong_window"]


def test_a_window_that_is_gone_is_found(run, kinds):
    run(budget_windows.delete())
    assert kinds() == ["wrong_window"]


def test_an_account_of_nobody_and_a_second_currency_are_found(run, kinds):
    run(insert(accounts).values(kind="available", user_id=0, currency="USD", balance=0))
    assert kinds() == ["unknown_account", "mixed_currencies"]


def test_a_broken_ledger_does_not_fill_the_screen(run, kinds):
    rows = [{"at": 0.0, "kind": "top_up", "user_id": 7, "note": "", "actor": ""} for _ in range(150)]
    run(insert(transactions).values(rows))
    assert len(kinds()) == 100
