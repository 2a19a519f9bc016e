import pytest

from stellwerk.core.outcome import Estimate
from stellwerk.core.plan import Price
from stellwerk.core.principal import Budget, Tier, Window
from stellwerk.ledger.budgets import Limit
from stellwerk.ledger.demands import make_demand, refusal
from stellwerk.ledger.holds import Room

MICRO = 1_000_000
"""Pico units a token: a token costs one micro unit."""
ESTIMATE = Estimate(input_tokens=100, least_input_tokens=40, output_tokens=None)
BUDGET = Budget(amount=10, window=Window.DAY)


@pytest.fixture
def demand_of(call):
    def demand_of(*prices, estimate=ESTIMATE, **of_principal):
        return make_demand(call(**of_principal), prices, estimate, "owner", 1_000)

    return demand_of


def test_a_call_that_does_not_say_how_much_it_wants_is_assumed_to_want_something(demand_of):
    demand = demand_of(Price(input=MICRO, output=2 * MICRO))
    assert (demand.expected, demand.least, demand.input_amount) == (2_100, 42, 100)


def test_a_call_that_says_how_much_it_wants_needs_that_at_least(demand_of):
    wanted = Estimate(input_tokens=100, least_input_tokens=40, output_tokens=10)
    demand = demand_of(Price(input=MICRO, output=2 * MICRO), estimate=wanted)
    assert (demand.expected, demand.least, demand.input_amount) == (120, 60, 100)


def test_pages_need_their_price_before_they_are_read(demand_of):
    three = Estimate(input_tokens=0, least_input_tokens=0, output_tokens=0, pages=3)
    demand = demand_of(Price(page=5 * MICRO), Price(input=MICRO), estimate=three)
    assert (demand.expected, demand.least, demand.input_amount) == (15, 15, 0)
    assert demand_of(Price(input=MICRO, output=MICRO), estimate=three) is None


def test_each_of_several_answers_is_assumed_to_want_something(demand_of):
    three = Estimate(input_tokens=100, least_input_tokens=40, output_tokens=None, answers=3)
    demand = demand_of(Price(input=MICRO, output=2 * MICRO), estimate=three)
    assert (demand.expected, demand.least) == (6_100, 46)


def test_each_amount_is_that_of_its_dearest_price(demand_of):
    demand = demand_of(Price(input=10 * MICRO, output=MICRO), Price(input=MICRO, output=5 * MICRO))
    assert (demand.expected, demand.least, demand.input_amount) == (5_100, 401, 1_000)


def test_the_price_of_a_request_counts_everywhere(demand_of):
    demand = demand_of(Price(request=7 * MICRO))
    assert (demand.expected, demand.least, demand.input_amount) == (7, 7, 7)


def test_amounts_are_rounded_up(demand_of):
    demand = demand_of(Price(input=1))
    assert (demand.expected, demand.least, demand.input_amount) == (1, 1, 1)


def test_a_call_that_will_cost_something_needs_something(demand_of):
    nothing_sure = Estimate(input_tokens=100, least_input_tokens=0, output_tokens=None)
    assert demand_of(Price(input=MICRO), estimate=nothing_sure).least == 1


@pytest.mark.parametrize("prices", [(), (Price(),), (Price(), Price(character=5))])
def test_a_free_model_needs_no_hold(demand_of, prices):
    assert demand_of(*prices) is None


def test_who_is_not_charged_needs_no_hold(demand_of):
    assert demand_of(Price(input=MICRO), tier=Tier.SUB) is None


def test_a_subscription_with_a_budget_holds_in_the_budget_only(demand_of):
    demand = demand_of(Price(input=MICRO), tier=Tier.SUB, user_budget=BUDGET)
    assert not demand.from_balance
    assert [limit.subject for limit in demand.limits] == ["user:7:day"]


def test_a_refusal_says_what_helps_and_when(demand_of):
    demand = demand_of(Price(input=MICRO))
    empty = refusal(demand, Room(3, 0), 0.0, "EUR")
    assert (empty.status, empty.code, empty.retry_after) == (402, "insufficient_credits", None)
    assert empty.message.startswith("Insufficient balance")
    assert empty.metadata == {"available": 0.000003, "required": 0.00004, "currency": "EUR"}
    busy = refusal(demand, Room(3, 10), 0.0, "EUR")
    assert busy.retry_after == 1.0
    limit = Limit(user_id=None, key_id="abcdefghij", budget=BUDGET)
    over = refusal(demand, Room(-3, 0, limit, 86_400.0), 400.0, "EUR")
    assert (over.status, over.code, over.retry_after) == (402, "budget_exceeded", 86_000.0)
    assert over.message == (
        "The daily budget of this key does not suffice for this request. It begins anew at 1970-01-02T00:00:00Z."
    )
    assert over.metadata["available"] == 0
