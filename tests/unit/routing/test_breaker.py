import logging

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stellwerk.core.plan import Target
from stellwerk.routing.breaker import MOST_TARGETS, Breakers, BreakerSettings
from tests.port_fakes import StillClock

A, B = Target(provider="house", model="a"), Target(provider="house", model="b")


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def breakers(clock):
    return Breakers(BreakerSettings(failures=3, open_seconds=10), clock)


def fail(breakers, target=A, times=1, **more):
    for _ in range(times):
        breakers.failed(target, breakers.admit(target), **more)


def test_failures_in_a_row_open_it_for_this_target_alone(breakers):
    fail(breakers, times=2)
    assert breakers.admit(A) is not None
    fail(breakers)
    assert breakers.admit(A) is None
    assert breakers.admit(B) is not None
    (status,) = breakers.status()
    assert (status.provider, status.model, status.state) == ("house", "a", "open")
    assert (status.failures, status.retry_after) == (3, 10)
    assert (breakers.wait(A), breakers.wait(B)) == (10, 0)


def test_a_success_between_them_starts_the_count_again(breakers):
    fail(breakers, times=2)
    breakers.succeeded(A, breakers.admit(A))
    fail(breakers, times=2)
    assert breakers.admit(A) is not None


def test_failures_that_lie_far_apart_are_not_in_a_row(breakers, clock):
    for _ in range(5):
        fail(breakers)
        clock.seconds += 301
    assert breakers.admit(A) is not None
    assert breakers.status() == []


def test_after_its_rest_one_probe_goes_and_closes_it(breakers, clock):
    fail(breakers, times=3)
    clock.seconds += 9.9
    assert breakers.admit(A) is None
    clock.seconds += 0.1
    assert (breakers.status()[0].state, breakers.wait(A)) == ("half_open", 0)
    probe = breakers.admit(A)
    assert probe.decides
    assert [breakers.admit(A) for _ in range(50)] == [None] * 50
    assert (breakers.status()[0].state, breakers.wait(A)) == ("half_open", 1)
    breakers.succeeded(A, probe)
    assert not breakers.admit(A).decides
    assert breakers.status() == []


def test_a_probe_that_fails_opens_it_again_at_once(breakers, clock):
    fail(breakers, times=3)
    clock.seconds += 10
    fail(breakers)
    assert breakers.admit(A) is None
    assert (breakers.status()[0].state, breakers.wait(A)) == ("open", 10)


def test_a_probe_that_shows_nothing_makes_way_for_the_next(breakers, clock):
    fail(breakers, times=3)
    clock.seconds += 10
    breakers.gave_up(A, breakers.admit(A))
    probe = breakers.admit(A)
    assert probe is not None
    assert breakers.admit(A) is None
    breakers.succeeded(A, probe)
    assert breakers.admit(A) is not None


def test_a_probe_that_takes_long_holds_nobody_back_for_ever(breakers, clock):
    fail(breakers, times=3)
    clock.seconds += 10
    slow = breakers.admit(A)
    clock.seconds += 59.9
    assert breakers.admit(A) is None
    clock.seconds += 0.1
    assert breakers.admit(A) is not None
    breakers.succeeded(A, slow)
    assert breakers.status() == []


def test_what_was_on_its_way_when_it_opened_changes_nothing(breakers, clock):
    early = [breakers.admit(A) for _ in range(3)]
    fail(breakers, times=3)
    breakers.succeeded(A, early[0])
    clock.seconds += 4
    breakers.failed(A, early[1])
    breakers.gave_up(A, early[2])
    assert breakers.wait(A) == 6
    clock.seconds += 6
    probe = breakers.admit(A)
    breakers.failed(A, early[1])
    breakers.succeeded(A, early[0])
    assert breakers.admit(A) is None
    breakers.succeeded(A, probe)
    assert breakers.status() == []


def test_an_answer_that_breaks_off_after_it_closed_the_breaker_is_a_first_failure(breakers, clock):
    fail(breakers, times=3)
    clock.seconds += 10
    probe = breakers.admit(A)
    breakers.succeeded(A, probe)
    breakers.failed(A, probe)
    assert (breakers.status()[0].state, breakers.status()[0].failures) == ("closed", 1)


def test_an_upstream_that_wants_a_longer_rest_gets_it(breakers):
    fail(breakers, times=3, retry_after=45)
    assert breakers.wait(A) == 45


def test_it_can_be_switched_off_and_forgotten(breakers, clock):
    fail(breakers, times=3)
    breakers.reset()
    assert (breakers.status(), breakers.admit(A).decides) == ([], False)
    breakers.settings = BreakerSettings(failures=0)
    fail(breakers, times=100)
    assert (breakers.status(), breakers.admit(A).decides) == ([], False)


def test_it_remembers_so_many_and_forgets_closed_ones_first(breakers):
    fail(breakers, times=3)
    for number in range(2 * MOST_TARGETS):
        fail(breakers, Target(provider="house", model=f"invented-{number}"))
    assert len(breakers.status()) == MOST_TARGETS
    assert breakers.admit(A) is None


def test_opening_and_closing_are_told_once(breakers, clock, caplog):
    with caplog.at_level(logging.INFO):
        early = breakers.admit(A)
        fail(breakers, times=3)
        breakers.failed(A, early)
        clock.seconds += 10
        fail(breakers)
        clock.seconds += 10
        breakers.succeeded(A, breakers.admit(A))
        breakers.succeeded(A, breakers.admit(A))
    assert caplog.messages == [
        "house/a failed 3 times in a row and is left alone for 10 s",
        "house/a answers again",
    ]


class Model(RuleBasedStateMachine):
    """A breaker written down a second time, without its economies: one target, every call by itself."""

    @initialize(failures=st.integers(1, 4), seconds=st.sampled_from([1.0, 30.0]))
    def begin(self, failures, seconds):
        self.limit, self.rest = failures, seconds
        self.clock = StillClock()
        self.breakers = Breakers(BreakerSettings(failures=failures, open_seconds=seconds), self.clock)
        self.running = []
        """Calls on their way, and in which open phase of the target they are a probe; None for ordinary ones."""
        self.count, self.failed_at = 0, 0.0
        self.phase = 0
        self.open_until = None
        self.probe_until = None

    @rule()
    def call(self):
        now, probe = self.clock.seconds, self.breakers.admit(A)
        if self.open_until is None:
            assert not probe.decides
            self.running.append((probe, None))
        elif now < self.open_until or (self.probe_until is not None and now < self.probe_until):
            assert probe is None
        else:
            assert probe.decides
            self.probe_until = now + 60
            self.running.append((probe, self.phase))

    def take(self, place):
        return self.running.pop(place % len(self.running))

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100))
    def succeed(self, place):
        probe, phase = self.take(place)
        self.breakers.succeeded(A, probe)
        if self.open_until is None or phase == self.phase:
            self.close()

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100))
    def fail(self, place):
        probe, phase = self.take(place)
        self.breakers.failed(A, probe)
        now = self.clock.seconds
        if self.open_until is not None and phase != self.phase:
            return
        if self.open_until is None and now - self.failed_at > 300:
            self.count = 0
        self.count, self.failed_at = self.count + 1, now
        if self.open_until is None and self.count >= self.limit:
            self.phase += 1
        if self.count >= self.limit:
            self.open_until, self.probe_until = now + self.rest, None

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100))
    def leave(self, place):
        probe, phase = self.take(place)
        self.breakers.gave_up(A, probe)
        if self.open_until is not None and phase == self.phase and self.probe_until is not None:
            self.open_until, self.probe_until = self.clock.seconds, None

    @rule(seconds=st.sampled_from([0.5, 1.0, 29.0, 31.0, 61.0, 400.0]))
    def wait(self, seconds):
        self.clock.seconds += seconds

    def close(self):
        self.count, self.open_until, self.probe_until = 0, None, None

    @invariant()
    def tells_what_it_does(self):
        if not hasattr(self, "clock"):
            return
        states = {status.state for status in self.breakers.status()}
        now = self.clock.seconds
        if self.open_until is None:
            assert states <= {"closed"}
        elif self.probe_until is None and now < self.open_until:
            assert states == {"open"}
            assert self.breakers.wait(A) == max(1, self.open_until - now)
        else:
            assert states == {"half_open"}


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40)
