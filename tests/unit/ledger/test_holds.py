import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from stellwerk.core.principal import Budget, Window
from stellwerk.ledger.accounts import statement
from stellwerk.ledger.budgets import Limit, budget_windows
from stellwerk.ledger.check import check
from stellwerk.ledger.holds import (
    ESTIMATED,
    RELEASED,
    SETTLED,
    Ask,
    Closing,
    Demand,
    Room,
    Shortage,
    close_hold,
    decide,
    holds,
    place_holds,
    recover,
)

DEMAND = Demand(
    hold_id="a hold",
    owner="me",
    call_id="req_1",
    user_id=7,
    key_id="abcdefghij",
    from_balance=True,
    limits=(),
    expected=10,
    least=4,
    input_amount=6,
)
LIMIT = Limit(user_id=7, key_id=None, budget=Budget(amount=100, window=Window.DAY))


@pytest.fixture
def place(database):
    """Tries demands at once; each is `DEMAND` with some changes."""

    def place(*changes, patient=True, now=1_000.0):
        asks = [Ask(msgspec.structs.replace(DEMAND, **changed), patient) for changed in changes or ({},)]
        return database.write(lambda c: place_holds(c, asks, now=now))

    return place


@pytest.fixture
def close(database):
    def close(cost=0, state=SETTLED, hold_id="a hold", *, estimated=False, at=1_001.0):
        closing = Closing(hold_id=hold_id, state=state, cost=cost, estimated=estimated, at=at)
        return database.write(lambda c: close_hold(c, closing))

    return close


@pytest.fixture
def window(database):
    """What is spent and held in the one window that there is."""
    return lambda: tuple(
        database.read(lambda c: c.execute(select(budget_windows.c.spent, budget_windows.c.held))).one()
    )


@pytest.fixture
def house(database):
    return lambda: database.read(check).sums


@pytest.mark.parametrize(
    ("rooms", "amount"),
    [
        ([], 10),
        ([Room(10, 0)], 10),
        ([Room(10, 90)], 10),
        ([Room(9, 0)], 9),
        ([Room(4, 0)], 4),
        ([Room(9, 0), Room(5, 0)], 5),
        ([Room(9, 0), Room(50, 50)], 9),
    ],
)
def test_a_call_gets_what_it_is_expected_to_need_or_what_there_is(rooms, amount):
    assert decide(DEMAND, rooms, patient=True) == amount


@pytest.mark.parametrize(
    ("rooms", "may_wait"),
    [
        ([Room(3, 0)], False),
        ([Room(-5, 0)], False),
        ([Room(3, 1)], True),
        ([Room(9, 1)], True),
        ([Room(2, 1)], False),
        ([Room(9, 1), Room(3, 0)], False),
        ([Room(-5, 8)], False),
        ([Room(-5, 9)], True),
    ],
)
def test_a_call_waits_only_for_what_may_come_back(rooms, may_wait):
    assert decide(DEMAND, rooms, patient=True).may_wait is may_wait


@pytest.mark.parametrize(("free", "answer"), [(9, 9), (4, 4), (3, None)])
def test_who_has_waited_enough_takes_what_there_is(free, answer):
    decided = decide(DEMAND, [Room(free, 50)], patient=False)
    assert decided == answer or (answer is None and not decided.may_wait)


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.builds(Room, st.integers(-50, 100), st.integers(0, 100)), max_size=3),
    st.booleans(),
)
def test_no_hold_is_larger_than_a_room_or_smaller_than_the_least(first, second, rooms, patient):
    demand = msgspec.structs.replace(DEMAND, expected=max(first, second), least=min(first, second))
    answer = decide(demand, rooms, patient=patient)
    if isinstance(answer, Shortage):
        assert answer.room.free < demand.expected
        assert patient or not answer.may_wait
    else:
        assert demand.least <= answer <= min([demand.expected, *(room.free for room in rooms)])


def test_a_hold_takes_from_what_is_available(pay_in, place, balance_of):
    pay_in(25)
    assert place() == [10]
    assert balance_of() == (15, 10)


def test_holds_that_are_tried_together_see_each_other(pay_in, place, balance_of):
    pay_in(25)
    answers = place({"hold_id": "1"}, {"hold_id": "2"}, {"hold_id": "3"}, {"hold_id": "4", "expected": 5})
    assert answers[:2] == [10, 10]
    assert answers[2].may_wait
    assert answers[3] == 5
    assert balance_of() == (0, 25)


def test_who_never_had_money_gets_no_hold(place, database):
    assert not place()[0].may_wait
    assert database.read(lambda c: c.execute(select(holds)).all()) == []


@pytest.mark.parametrize("cost", [0, 1, 9, 10])
def test_what_is_left_of_a_hold_comes_back(pay_in, place, close, balance_of, house, cost):
    pay_in(25)
    place()
    assert close(cost)
    assert balance_of() == (25 - cost, 0)
    assert (house()["income"], house()["written_off"]) == (cost, 0)


@pytest.mark.parametrize(("cost", "left", "written_off"), [(11, 14, 0), (25, 0, 0), (26, 0, -1), (1_000, 0, -975)])
def test_a_cost_above_the_hold_is_taken_as_far_as_the_balance_goes(
    pay_in, place, close, balance_of, house, cost, left, written_off
):
    pay_in(25)
    place()
    assert close(cost)
    assert balance_of() == (left, 0)
    assert (house()["income"], house()["written_off"]) == (cost, written_off)


def test_an_overrun_takes_nothing_that_is_held_for_others(pay_in, place, close, balance_of, house):
    pay_in(25)
    place({"hold_id": "1"}, {"hold_id": "2"})
    close(100, hold_id="1")
    assert balance_of() == (0, 10)
    close(10, hold_id="2")
    assert balance_of() == (0, 0)
    assert (house()["income"], house()["written_off"]) == (110, -85)


def test_a_hold_is_closed_once(pay_in, place, close, balance_of):
    pay_in(25)
    place()
    assert close(4)
    assert not close(9)
    assert not close(state=RELEASED)
    assert not close(6, state=ESTIMATED)
    assert balance_of() == (21, 0)


def test_a_hold_that_nobody_made_cannot_be_closed(close, balance_of):
    assert not close(4)
    assert balance_of() == (0, 0)


def test_a_negative_or_absurd_cost_does_no_harm(pay_in, place, close, balance_of, house):
    pay_in(25)
    place({"hold_id": "1"}, {"hold_id": "2"})
    assert close(-5, hold_id="1")
    assert balance_of() == (15, 10)
    assert close(10**40, hold_id="2")
    assert balance_of() == (0, 0)
    assert house()["income"] + house()["written_off"] == 25


def test_a_budget_counts_what_is_held_and_what_was_spent(place, close, window, balance_of):
    place({"from_balance": False, "limits": (LIMIT,)})
    assert window() == (0, 10)
    close(7)
    assert window() == (7, 0)
    assert balance_of() == (0, 0)


def test_what_is_held_in_a_budget_is_not_free_for_others(place, window, balance_of):
    demand = {"from_balance": False, "limits": (LIMIT,), "expected": 60}
    assert place(demand) == [60]
    together = place({**demand, "hold_id": "2"}, {**demand, "hold_id": "3", "expected": 40}, {**demand, "hold_id": "4"})
    assert [answer if isinstance(answer, int) else answer.may_wait for answer in together] == [True, 40, True]
    assert window() == (0, 100)


def test_the_last_call_may_overdraw_a_budget_which_is_then_full(place, close, window, balance_of):
    place({"from_balance": False, "limits": (LIMIT,), "expected": 100})
    close(130)
    assert window() == (130, 0)
    assert not place({"hold_id": "2", "from_balance": False, "limits": (LIMIT,)})[0].may_wait
    assert balance_of() == (0, 0)


def test_a_hold_counts_in_the_window_in_which_it_began(place, close, window, database, balance_of):
    place({"from_balance": False, "limits": (LIMIT,)}, now=86_399.0)
    close(7, at=86_401.0)
    assert window() == (7, 0)
    place({"hold_id": "2", "from_balance": False, "limits": (LIMIT,)}, now=86_400.0)
    rows = database.read(lambda c: c.execute(select(budget_windows).order_by(budget_windows.c.beginning)).all())
    assert [(row.beginning, row.spent, row.held) for row in rows] == [(0.0, 7, 0), (86_400.0, 0, 10)]
    assert balance_of() == (0, 0)


def test_what_a_dead_process_left_open_costs_its_prompt(pay_in, place, database, balance_of, house):
    pay_in(25)
    place({"limits": (LIMIT,)}, {"hold_id": "mine", "owner": "the next"})
    closed = database.write(lambda c: recover(c, "the next", 2_000.0))
    assert [(one.hold_id, one.call_id, one.user_id, one.cost) for one in closed] == [("a hold", "req_1", 7, 6)]
    assert balance_of() == (9, 10)
    assert house()["income"] == 6
    row = database.read(lambda c: c.execute(select(holds).where(holds.c.id == "a hold")).one())
    assert (row.state, row.cost, row.estimated, row.closed_at) == (ESTIMATED, 6, True, 2_000.0)
    assert database.write(lambda c: recover(c, "the next", 2_001.0)) == []


def test_recovering_never_charges_more_than_was_held(pay_in, place, database, balance_of):
    pay_in(5)
    assert place() == [5]
    assert database.write(lambda c: recover(c, "the next", 2_000.0))[0].cost == 5
    assert balance_of() == (0, 0)


def test_recovering_goes_in_steps(pay_in, place, database, balance_of):
    pay_in(100)
    place(*({"hold_id": str(n)} for n in range(5)))
    steps = [len(database.write(lambda c: recover(c, "the next", 2_000.0, most=2))) for _ in range(4)]
    assert steps == [2, 2, 1, 0]
    assert balance_of() == (70, 0)


def test_a_statement_shows_what_a_call_has_cost(pay_in, place, close, database):
    pay_in(25)
    place({"hold_id": "1"}, {"hold_id": "2", "call_id": "req_2"})
    close(4, hold_id="1")
    close(state=RELEASED, hold_id="2")
    lines = database.read(lambda c: statement(c, 7, limit=10))
    assert [(line.kind, line.amount, line.call_id) for line in lines] == [("settle", -4, "req_1"), ("top_up", 25, None)]
