import pytest

from stellwerk.core.outcome import Estimate, Usage
from stellwerk.core.plan import Price, Target
from stellwerk.pipeline.meter import CallMeter
from tests.port_fakes import StillClock, make_call

LIKELY = Estimate(input_tokens=40, least_input_tokens=10, output_tokens=None)
TARGET = Target(provider="a", model="m", price=Price(input=1))


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def meter(clock):
    return CallMeter(make_call(), clock, LIKELY)


def test_a_call_that_reached_nobody_has_no_target_and_no_price(meter):
    outcome = meter.outcome(None, None, estimated=False)
    assert (outcome.provider, outcome.target, outcome.attempts, meter.price) == (None, None, 0, None)
    assert (outcome.status, outcome.error, outcome.usage, outcome.first_byte) == (200, None, None, None)


def test_only_the_first_byte_counts_as_the_first(meter, clock):
    clock.seconds += 1
    meter.begin()
    clock.seconds += 1
    meter.begin()
    outcome = meter.outcome(None, None, estimated=False)
    assert (outcome.first_byte, outcome.duration) == (1.0, 2.0)


def test_the_last_count_of_a_target_counts(meter):
    meter.attempt(TARGET)
    meter.count(Usage(input_tokens=1))
    meter.count(Usage(input_tokens=1, output_tokens=9))
    assert meter.usage == Usage(input_tokens=1, output_tokens=9)
    assert meter.price is TARGET.price


def test_a_new_attempt_starts_a_new_count(meter):
    meter.attempt(TARGET)
    meter.count(Usage(input_tokens=1))
    meter.attempt(Target(provider="b", model="n"))
    outcome = meter.outcome(meter.usage, None, estimated=False)
    assert (outcome.usage, outcome.attempts, outcome.provider, outcome.target) == (None, 2, "b", "n")
    assert meter.price is None


def test_the_first_failure_stays(meter):
    meter.fail(499, "client_closed_request")
    meter.fail(500, "internal_error")
    outcome = meter.outcome(None, None, estimated=False)
    assert (outcome.status, outcome.error) == (499, "client_closed_request")


def test_a_wall_clock_that_is_put_back_does_not_make_a_call_shorter(meter, clock):
    clock.seconds += 5
    clock.wall -= 3600
    assert meter.outcome(None, None, estimated=False).duration == 5.0


def test_nothing_delivered_is_nothing_used_up(meter):
    assert meter.own_count() is None


@pytest.mark.parametrize(
    ("events", "size", "tokens"), [(1, 150, 1), (3, 900, 3), (1, 2350, 500), (10, 3500, 10), (10, 11_500, 2000)]
)
def test_our_own_count_is_a_token_an_event_or_four_bytes_a_token(meter, events, size, tokens):
    meter.deliver(events, size)
    assert meter.own_count() == Usage(input_tokens=30, output_tokens=tokens)


def test_an_embedding_has_no_output_however_long_it_is(clock):
    meter = CallMeter(make_call(), clock, Estimate(input_tokens=4, least_input_tokens=1, output_tokens=0))
    meter.deliver(1, 100_000)
    assert meter.own_count() == Usage(input_tokens=3, output_tokens=0)


def test_the_default_price_counts_only_where_a_target_has_none(clock):
    default = Price(output=7)
    meter = CallMeter(make_call(), clock, LIKELY, default)
    assert meter.price is None
    meter.attempt(TARGET)
    assert meter.price is TARGET.price
    meter.attempt(Target(provider="b", model="n"))
    assert meter.price is default
