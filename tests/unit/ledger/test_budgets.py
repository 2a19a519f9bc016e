from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from stellwerk.core.principal import Budget, Principal, Role, Window
from stellwerk.ledger.budgets import (
    Limit,
    budget_windows,
    count,
    limits_of,
    open_windows,
    prune,
    read_spending,
    recount,
    window_bounds,
)
from stellwerk.ledger.calls import calls

DAY = 86_400.0


def seconds(*date):
    return datetime(*date, tzinfo=UTC).timestamp()


# A Wednesday.
NOON = seconds(2026, 11, 18, 12)


def of_user(amount=100, window=Window.DAY, user_id=7):
    return Limit(user_id=user_id, key_id=None, budget=Budget(amount=amount, window=window))


def of_key(amount=100, window=Window.DAY, key_id="abcdefghij"):
    return Limit(user_id=None, key_id=key_id, budget=Budget(amount=amount, window=window))


@pytest.fixture
def recorded(database):
    """Records a call that has cost something."""

    def recorded(at, cost, user_id=7, key_id="abcdefghij"):
        row = dict.fromkeys(("operation", "model", "id"), "x") | {"stream": False, "status": 200, "attempts": 1}
        row |= {"at": at, "cost": cost, "user_id": user_id, "key_id": key_id, "estimated": False, "duration": 0.1}
        database.write(lambda c: c.execute(insert(calls).values(row)))

    return recorded


@pytest.fixture
def opened(database):
    return lambda limit, now=NOON: database.write(lambda c: open_windows(c, [limit], now))[0]


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [
        (Window.DAY, (2026, 11, 18), (2026, 11, 19)),
        (Window.WEEK, (2026, 11, 16), (2026, 11, 23)),
        (Window.MONTH, (2026, 11, 1), (2026, 12, 1)),
    ],
)
def test_windows_begin_at_midnight_on_monday_and_on_the_first(window, first, last):
    assert window_bounds(window, NOON) == (seconds(*first), seconds(*last))


def test_a_month_ends_with_the_year_and_knows_leap_years():
    assert window_bounds(Window.MONTH, seconds(2026, 12, 31, 23, 59, 59))[1] == seconds(2027, 1, 1)
    assert window_bounds(Window.MONTH, seconds(2028, 2, 29))[1] == seconds(2028, 3, 1)


@given(st.floats(min_value=0, max_value=4e9), st.sampled_from(Window))
def test_windows_follow_each_other_without_a_gap(now, window):
    first, last = window_bounds(window, now)
    assert first <= now < last
    assert window_bounds(window, first) == (first, last)
    assert window_bounds(window, last)[0] == last


def test_a_call_counts_against_the_budget_of_its_key_and_of_its_user():
    budget = Budget(amount=5, window=Window.DAY)
    principal = Principal(key_id="abcdefghij", name="k", role=Role.USER, user_id=7, budget=budget, user_budget=budget)
    assert [limit.subject for limit in limits_of(principal)] == ["key:abcdefghij:day", "user:7:day"]
    assert limits_of(Principal(key_id="abcdefghij", name="k", role=Role.USER)) == ()


def test_a_new_window_begins_with_what_its_calls_have_cost(opened, recorded):
    recorded(NOON - 3600, 10)
    recorded(NOON - 3600, None)
    recorded(NOON - DAY, 1_000)
    recorded(NOON - 60, 5, key_id="login-1234")
    recorded(NOON - 60, 700, user_id=8, key_id="of another")
    assert opened(of_user()).spent == 15
    assert opened(of_key()).spent == 10


def test_looking_at_a_budget_opens_no_window(database, recorded):
    recorded(NOON - 3600, 10)
    assert database.read(lambda c: read_spending(c, [of_user()], NOON))[0].spent == 10
    assert database.read(lambda c: c.execute(select(budget_windows)).all()) == []


def test_the_windows_of_a_subject_do_not_mix(opened, database):
    monday_the_first = seconds(2027, 2, 1, 8)
    for window in Window:
        opened(of_user(window=window), monday_the_first)
    database.write(lambda c: count(c, [("user:7:week", seconds(2027, 2, 1))], spent=5, held=1))
    found = [opened(of_user(window=window), monday_the_first) for window in Window]
    assert [(one.spent, one.held) for one in found] == [(0, 0), (5, 1), (0, 0)]


def test_a_window_once_open_counts_for_itself(opened, recorded, database):
    begun = opened(of_user())
    recorded(NOON, 10)
    database.write(lambda c: count(c, [(begun.subject, begun.beginning)], spent=10, held=3))
    again = opened(of_user(amount=50))
    assert (again.amount, again.spent, again.held) == (50, 10, 3)
    assert opened(of_user(), NOON + DAY).spent == 0


def test_a_budget_that_is_set_again_counts_what_was_spent_without_it(opened, recorded, database):
    opened(of_user())
    recorded(NOON, 30)
    database.write(lambda c: recount(c, of_user(), NOON))
    assert opened(of_user()).spent == 30


def test_a_recount_forgets_nothing_that_is_not_recorded_yet(opened, recorded, database):
    begun = opened(of_user())
    recorded(NOON, 30)
    database.write(lambda c: count(c, [(begun.subject, begun.beginning)], spent=45, held=0))
    database.write(lambda c: recount(c, of_user(), NOON))
    assert opened(of_user()).spent == 45


def test_old_windows_are_forgotten_unless_something_is_held_in_them(opened, database):
    for user_id in (7, 8):
        opened(of_user(user_id=user_id))
    database.write(lambda c: count(c, [("user:8:day", seconds(2026, 11, 18))], spent=0, held=3))
    assert database.write(lambda c: prune(c, NOON + 399 * DAY)) == 0
    assert database.write(lambda c: prune(c, NOON + 402 * DAY)) == 1
    assert database.read(lambda c: c.execute(select(budget_windows.c.subject)).scalars().all()) == ["user:8:day"]
