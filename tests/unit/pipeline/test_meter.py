import pytest

from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Price, Target
from stellwerk.pipeline.meter import CallMeter
from tests.port_fakes import StillClock, make_call

TARGET = Target(provider="a", model="m", price=Price(input=1))


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def meter(clock):
    return CallMeter(make_call(), clock)


def test_a_call_that_reached_nobody_has_no_target_and_no_price(meter):
    outcome = meter.outcome(None)
    assert (outcome.provider, outcome.target, outcome.attempts, meter.price) == (None, None, 0, None)
    assert (outcome.status, outcome.error, outcome.usage, outcome.first_byte) == (200, None, None, None)


def test_only_the_first_byte_counts_as_the_first(meter, clock):
    clock.seconds += 1
    meter.begin()
    clock.seconds += 1
    meter.begin()
    assert (meter.outcome(None).first_byte, meter.outcome(None).duration) == (1.0, 2.0)


def test_the_last_count_of_a_target_counts(meter):
    meter.attempt(TARGET)
    meter.count(Usage(input_tokens=1))
    meter.count(Usage(input_tokens=1, output_tokens=9))
    assert meter.outcome(7).usage == Usage(input_tokens=1, output_tokens=9)
    assert meter.outcome(7).cost == 7
    assert meter.price is TARGET.price


def test_a_new_attempt_starts_a_new_count(meter):
    meter.attempt(TARGET)
    meter.count(Usage(input_tokens=1))
    meter.attempt(Target(provider="b", model="n"))
    outcome = meter.outcome(None)
    assert (outcome.usage, outcome.attempts, outcome.provider, outcome.target) == (None, 2, "b", "n")
    assert meter.price is None


def test_the_first_failure_stays(meter):
    meter.fail(499, "client_closed_request")
    meter.fail(500, "internal_error")
    assert (meter.outcome(None).status, meter.outcome(None).error) == (499, "client_closed_request")


def test_a_wall_clock_that_is_put_back_does_not_make_a_call_shorter(meter, clock):
    clock.seconds += 5
    clock.wall -= 3600
    assert meter.outcome(None).duration == 5.0
