from collections import Counter
from itertools import cycle

import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.outcome import Outcome
from stellwerk.core.plan import Plan, Price, Target
from stellwerk.routing.choice import Choice, Chooser, Group, Traffic
from tests.port_fakes import StillClock, make_call

A, B, C = (Target(provider="p", model=name) for name in "abc")
PLAN = Plan(name="fast", targets=(A, B, C))


def outcome(target, first_byte, error=None):
    return Outcome(
        id="r",
        at=0.0,
        key_id="k",
        user_id=1,
        operation=Operation.CHAT,
        model="fast",
        provider=target.provider,
        target=target.model,
        stream=False,
        status=200,
        error=error,
        attempts=1,
        usage=None,
        estimated=False,
        cost=None,
        duration=first_byte,
        first_byte=first_byte,
    )


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def traffic(clock):
    return Traffic(clock)


@pytest.fixture
def first(traffic):
    """The model of the target that goes first."""

    def first(call=None, plan=PLAN, chance=lambda: 0.0, **group):
        chooser = Chooser(traffic, {"fast": Group(**group)}, chance)
        arranged = chooser.arrange(call or make_call(), plan)
        assert sorted(target.model for target in arranged.targets) == sorted(target.model for target in plan.targets)
        return arranged.targets[0].model

    return first


def session(name="s"):
    return msgspec.structs.replace(make_call(), session=name)


def test_a_name_without_a_group_keeps_its_order(traffic):
    assert Chooser(traffic, {}).arrange(make_call(), PLAN) is PLAN


def test_chance_follows_the_weights(traffic):
    chances = cycle(number / 100 for number in range(100))
    chooser = Chooser(traffic, {"fast": Group(choice=Choice.WEIGHTED, weights=(3, 1, 0))}, lambda: next(chances))
    drawn = Counter(chooser.arrange(make_call(), PLAN).targets[0].model for _ in range(100))
    assert drawn == {"a": 75, "b": 25}


def test_the_others_follow_in_their_order(traffic):
    chooser = Chooser(traffic, {"fast": Group(choice=Choice.WEIGHTED, weights=(0, 0, 1))}, lambda: 0.5)
    assert [target.model for target in chooser.arrange(make_call(), PLAN).targets] == ["c", "a", "b"]


def test_the_least_busy_goes_first(first, traffic):
    for target in (A, A, B):
        traffic.begin(target)
    assert first(choice=Choice.LEAST_BUSY) == "c"
    traffic.begin(C)
    traffic.end(B)
    assert first(choice=Choice.LEAST_BUSY) == "b"


def test_the_cheapest_goes_first_and_what_has_no_price_costs_nothing(first):
    dear = msgspec.structs.replace(A, price=Price(input=5, output=5))
    cheap = msgspec.structs.replace(B, price=Price(input=1, output=2))
    assert first(plan=Plan(name="fast", targets=(dear, cheap)), choice=Choice.LOWEST_COST) == "b"
    assert first(plan=Plan(name="fast", targets=(dear, cheap, C)), choice=Choice.LOWEST_COST) == "c"


def test_the_quickest_goes_first_once_all_are_known(first, traffic, clock):
    traffic.record(outcome(A, 0.2))
    assert first(choice=Choice.LOWEST_LATENCY) == "b"
    traffic.record(outcome(B, 0.5))
    traffic.record(outcome(C, 0.1))
    assert first(choice=Choice.LOWEST_LATENCY) == "c"
    for _ in range(20):
        traffic.record(outcome(C, 1.0))
    assert first(choice=Choice.LOWEST_LATENCY) == "a"
    clock.seconds += 400
    traffic.record(outcome(A, 0.2))
    traffic.record(outcome(B, 0.5))
    assert first(choice=Choice.LOWEST_LATENCY) == "c"


def test_failures_say_nothing_about_how_quick_a_target_is(first, traffic):
    for target in (A, B, C):
        traffic.record(outcome(target, 0.5))
    traffic.record(outcome(C, 0.001, error="upstream_error"))
    assert first(choice=Choice.LOWEST_LATENCY) == "a"


def test_a_session_stays_where_it_was_answered_last(first, traffic, clock):
    chooser = Chooser(traffic, {"fast": Group(choice=Choice.LEAST_BUSY)})
    chooser.answered(session(), PLAN, B)
    assert first(session(), choice=Choice.LEAST_BUSY) == "b"
    assert first(session("another"), choice=Choice.LEAST_BUSY) == "a"
    assert first(session(), choice=Choice.LEAST_BUSY, sticky=False) == "a"
    clock.seconds += 3601
    assert first(session(), choice=Choice.LEAST_BUSY) == "a"


def test_the_sessions_of_two_users_are_two(first, traffic):
    Chooser(traffic, {"fast": Group(choice=Choice.LEAST_BUSY)}).answered(session(), PLAN, B)
    stranger = msgspec.structs.replace(session(), principal=msgspec.structs.replace(session().principal, user_id=99))
    assert first(stranger, choice=Choice.LEAST_BUSY) == "a"


def test_running_calls_are_forgotten_when_they_have_ended(traffic):
    traffic.begin(A)
    traffic.end(A)
    traffic.end(A)
    assert (traffic.running(A), traffic._running) == (0, {})
