import pytest

from stellwerk.core.outcome import Estimate, Usage
from stellwerk.core.plan import Price, Target
from stellwerk.pipeline.meter import CallMeter
from stellwerk.pipeline.settle import Settle
from tests.port_fakes import StillClock, make_call

PRICE = Price(input=5)
USAGE = Usage(input_tokens=2)


def meter(*, price, usage):
    likely = Estimate(input_tokens=4, least_input_tokens=1, output_tokens=1)
    counted = CallMeter(make_call(), StillClock(), likely)
    counted.attempt(Target(provider="a", model="m", price=price))
    if usage is not None:
        counted.count(usage)
    return counted


@pytest.mark.parametrize(
    ("price", "usage", "cost"), [(PRICE, USAGE, 10), (None, USAGE, None), (PRICE, None, None), (None, None, None)]
)
def test_a_cost_needs_a_price_and_a_count(price, usage, cost):
    settle = Settle([], lambda price, usage: price.input * usage.input_tokens)
    assert settle(meter(price=price, usage=usage)).cost == cost


def test_a_price_of_nothing_costs_nothing_which_is_not_the_same_as_unknown():
    assert Settle([], lambda price, usage: price.input)(meter(price=Price(), usage=USAGE)).cost == 0


def test_every_recorder_gets_the_same_record_once_and_in_order():
    got = []
    settle = Settle([lambda one: got.append(("ledger", one)), lambda one: got.append(("metrics", one))], lambda *_: 1)
    outcome = settle(meter(price=PRICE, usage=USAGE))
    assert got == [("ledger", outcome), ("metrics", outcome)]


def test_a_cut_stream_is_not_free_because_only_its_prompt_had_been_counted():
    settle = Settle([], lambda price, usage: usage.output_tokens)
    cut = meter(price=PRICE, usage=USAGE)
    cut.deliver(7, 700)
    cut.fail(499, "client_closed_request")
    outcome = settle(cut)
    assert (outcome.cost, outcome.estimated) == (7, True)


def test_what_the_upstream_counted_stays_when_nothing_was_delivered():
    cut = meter(price=PRICE, usage=USAGE)
    cut.fail(502, "upstream_broken")
    outcome = Settle([], lambda price, usage: usage.input_tokens)(cut)
    assert (outcome.cost, outcome.estimated) == (2, False)


def test_an_empty_answer_that_was_counted_stays_empty():
    whole = meter(price=PRICE, usage=USAGE)
    whole.deliver(1, 300)
    assert Settle([], lambda price, usage: usage.output_tokens)(whole).cost == 0
