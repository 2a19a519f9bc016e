from datetime import UTC, datetime
from itertools import count as count_up

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.core.principal import Budget, Window
from stellwerk.ledger.budget_notices import PERCENTS, note_crossings, prune
from stellwerk.ledger.budgets import Limit, count, open_windows

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
USERS = count_up(1000)
LIMIT = Limit(user_id=7, key_id=None, budget=Budget(amount=1000, window=Window.DAY))


@pytest.fixture
def spend(database):
    """Spends from LIMIT and returns the percentages that are said then."""

    def spend(amount, now=NOON, limit=LIMIT):
        def work(connection):
            opened = open_windows(connection, [limit], now)[0]
            count(connection, [(opened.subject, opened.beginning)], spent=amount, held=0)
            return note_crossings(connection, [limit], now)

        return [crossing.percent for crossing in database.write(work)]

    return spend


def test_a_budget_is_announced_at_80_and_at_100_percent_once_each(spend):
    assert [spend(amount) for amount in (799, 1, 100, 99, 1, 500)] == [[], [80], [], [], [100], []]


def test_one_call_that_crosses_both_is_announced_as_the_higher(spend):
    assert spend(1200) == [100]
    assert spend(1) == []


def test_the_next_window_begins_anew(spend):
    assert spend(800) == [80]
    assert spend(800, NOON + DAY) == [80]


def test_what_is_only_held_is_not_announced(database):
    def work(connection):
        opened = open_windows(connection, [LIMIT], NOON)[0]
        count(connection, [(opened.subject, opened.beginning)], spent=0, held=1000)
        return note_crossings(connection, [LIMIT], NOON)

    assert database.write(work) == []


def test_a_crossing_says_whose_budget_it_is_and_how_much_is_spent(database, spend):
    limit = Limit(user_id=None, key_id="abcdefghij", budget=Budget(amount=10, window=Window.MONTH))

    def work(connection):
        opened = open_windows(connection, [limit], NOON)[0]
        count(connection, [(opened.subject, opened.beginning)], spent=9, held=0)
        return note_crossings(connection, [limit], NOON)

    (crossing,) = database.write(work)
    assert (crossing.user_id, crossing.key_id, crossing.window) == (None, "abcdefghij", Window.MONTH)
    assert (crossing.percent, crossing.spent, crossing.amount) == (80, 9, 10)
    assert crossing.beginning <= NOON < crossing.end


def test_notices_of_long_ago_are_forgotten(database, spend):
    assert spend(800) == [80]
    assert database.write(lambda connection: prune(connection, NOON + 300 * DAY)) == 0
    assert database.write(lambda connection: prune(connection, NOON + 402 * DAY)) == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(min_value=0, max_value=400), max_size=12))
def test_whatever_is_spent_each_percentage_is_said_once_at_most_and_as_soon_as_it_is_reached(spend, amounts):
    # Each example has a user of its own, so that one database serves them all.
    limit = Limit(user_id=next(USERS), key_id=None, budget=Budget(amount=1000, window=Window.DAY))
    total = 0
    for amount in amounts:
        expected = [percent for percent in PERCENTS if total < 10 * percent <= total + amount][-1:]
        total += amount
        assert spend(amount, limit=limit) == expected
