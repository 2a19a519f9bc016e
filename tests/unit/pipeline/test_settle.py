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
