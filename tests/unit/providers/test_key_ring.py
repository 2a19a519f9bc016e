import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stellwerk.core.secrets import Secret
from stellwerk.providers._key_refusals import Refusal, RefusalKind
from stellwerk.providers.key_ring import MOST_REFUSALS, KeyStatus, UpstreamKeys
from tests.port_fakes import StillClock

LIMITS = [kind for kind in RefusalKind if kind not in (RefusalKind.UNAUTHORIZED, RefusalKind.FORBIDDEN)]
OF_ONE_MODEL = {RefusalKind.RATE, RefusalKind.CONCURRENCY}


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def make(clock):
    return lambda count=3: UpstreamKeys([Secret(f"key-{index}") for index in range(count)], clock)


def rate(wait=None):
    return Refusal(RefusalKind.RATE, wait)


def quota(wait=None):
    return Refusal(RefusalKind.HOURLY_QUOTA, wait)


UNKNOWN = Refusal(RefusalKind.UNAUTHORIZED)


def test_the_first_key_goes_first_and_again(make):
    keys = make()
    assert [keys.pick("m"), keys.pick("m")] == [0, 0]


def test_the_next_key_goes_when_one_is_refused_and_stays_when_it_answers(make, clock):
    keys = make()
    keys.refused(0, quota(60))
    assert keys.pick("m") == 1
    keys.succeeded(1)
    clock.seconds += 61
    assert keys.pick("m") == 1
    keys.refused(1, quota(60))
    assert keys.pick("m") == 2
    keys.refused(2, quota(60))
    assert keys.pick("m") == 0


def test_a_key_that_was_already_tried_is_not_picked_again(make):
    keys = make()
    assert keys.pick("m", without={0}) == 1
    assert keys.pick("m", without={0, 1, 2}) is None


def test_all_come_back_by_themselves_in_their_time(make, clock):
    keys = make()
    for index, wait in enumerate([30, 10, 20]):
        keys.refused(index, quota(wait))
    assert (keys.pick("m"), keys.earliest("m")) == (None, 10)
    clock.seconds += 10
    assert (keys.pick("m"), keys.earliest("m")) == (1, 0)
    clock.seconds += 20
    assert {keys.pick("m", without=without) for without in ({1, 2}, {0, 2}, {0, 1})} == {0, 1, 2}


@pytest.mark.parametrize("kind", LIMITS)
def test_a_limit_of_one_model_leaves_the_key_to_the_others(make, kind):
    keys = make()
    keys.refused(0, Refusal(kind, 60), "a")
    assert keys.pick("a") == 1
    assert keys.pick("b") == (0 if kind in OF_ONE_MODEL else 1)


@pytest.mark.parametrize("kind", LIMITS)
def test_each_limit_has_its_own_wait_when_the_upstream_names_none(make, kind):
    keys = make(2)
    keys.refused(0, Refusal(kind), "m")
    keys.refused(1, Refusal(kind), "m")
    assert (
        keys.earliest("m")
        == {
            RefusalKind.CONCURRENCY: 2,
            RefusalKind.RATE: 5,
            RefusalKind.HOURLY_QUOTA: 900,
            RefusalKind.SESSION_QUOTA: 1800,
            RefusalKind.WEEKLY_QUOTA: 21_600,
        }[kind]
    )


@pytest.mark.parametrize("kind", LIMITS)
def test_no_wait_is_shorter_than_a_second_or_longer_than_its_limit_allows(make, kind):
    for wait, bound in ((-5, 1), (0, 1), (0.2, 1), (math.inf, None), (1e12, None)):
        keys = make(2)
        for index in (0, 1):
            keys.refused(index, Refusal(kind, wait), "m")
        longest = 600 if kind in OF_ONE_MODEL else 691_200 if kind is RefusalKind.WEEKLY_QUOTA else 86_400
        assert keys.earliest("m") == (bound or longest)


def test_of_calls_that_are_refused_at_once_the_longest_wait_counts_and_one_is_news(make):
    keys = make(2)
    assert [keys.refused(0, quota(wait)) for wait in (10, 30, 20)] == [True, False, False]
    keys.refused(1, quota(100))
    assert keys.earliest() == 30


def test_an_answer_to_what_was_sent_before_the_refusal_brings_the_key_not_back(make):
    keys = make(2)
    keys.refused(0, quota(60))
    keys.succeeded(1)
    keys.succeeded(0)
    assert keys.pick("m") == 1


def test_a_key_whose_wait_is_over_is_stayed_with_again(make, clock):
    keys = make(2)
    keys.refused(0, quota(60))
    keys.succeeded(1)
    clock.seconds += 60
    keys.succeeded(0)
    assert keys.pick("m") == 0


def test_a_key_that_is_not_known_is_parked_and_told_once(make, clock):
    keys = make()
    assert [keys.refused(0, UNKNOWN), keys.refused(0, UNKNOWN)] == [True, False]
    clock.seconds += 1e9
    assert keys.pick("m") == 1
    keys.forget()
    assert keys.pick("m") == 0


def test_the_last_key_that_is_not_parked_goes_on(make):
    keys = make()
    assert [keys.refused(index, UNKNOWN) for index in (0, 1, 2, 2)] == [True, True, False, False]
    assert (keys.pick("m"), keys.earliest("m")) == (2, 0)


def test_a_single_key_is_never_kept_back(make):
    keys = make(1)
    for kind in RefusalKind:
        assert not keys.refused(0, Refusal(kind, 60))
        assert keys.pick("m") == 0


def test_what_is_forbidden_for_one_request_is_forgotten_at_once(make):
    keys = make()
    assert not keys.refused(0, Refusal(RefusalKind.FORBIDDEN))
    assert keys.pick("m") == 0


def test_the_status_names_places_and_reasons_and_no_key(make):
    keys = make(4)
    keys.refused(0, UNKNOWN)
    keys.refused(1, quota(60))
    keys.refused(1, rate(5), "m")
    keys.refused(2, rate(5), "m")
    assert keys.status() == [
        KeyStatus(index=0, state="parked", reason="unauthorized"),
        KeyStatus(index=1, state="cooling", retry_in=60, reason="hourly_quota"),
        KeyStatus(index=2, state="cooling", retry_in=5, reason="rate"),
        KeyStatus(index=3, state="ready"),
    ]


def test_names_that_clients_invent_fill_no_memory_and_bring_no_key_back(make, clock):
    keys = make(2)
    keys.refused(0, UNKNOWN)
    for number in range(2 * MOST_REFUSALS):
        keys.refused(1, rate(500), f"invented-{number}")
        clock.seconds += 0.001
    assert len(keys._refused) == MOST_REFUSALS
    assert keys.status()[0].state == "parked"
    assert keys.pick(f"invented-{2 * MOST_REFUSALS - 1}") is None


class Model(RuleBasedStateMachine):
    """The ring written down a second time as a list of what every key was told."""

    @initialize(count=st.integers(2, 4))
    def begin(self, count):
        self.clock = StillClock()
        self.count = count
        self.keys = UpstreamKeys([Secret("x")] * count, self.clock)
        self.told = {}
        self.parked = set()

    def free(self, index, model):
        if index in self.parked:
            return False
        scopes = [self.told.get((index, scope), 0.0) for scope in ("", model)]
        return max(scopes) <= self.clock.seconds

    @rule(model=st.sampled_from("ab"), without=st.sets(st.integers(0, 3), max_size=2))
    def pick(self, model, without):
        able = {index for index in range(self.count) if self.free(index, model)} - without
        picked = self.keys.pick(model, without=without)
        assert picked in able if able else picked is None

    @rule(
        index=st.integers(0, 3),
        kind=st.sampled_from(LIMITS),
        wait=st.sampled_from([1.0, 7.0, 60.0, 600.0]),
        model=st.sampled_from("ab"),
    )
    def refuse(self, index, kind, wait, model):
        index %= self.count
        self.keys.refused(index, Refusal(kind, wait), model)
        scope = (index, model if kind in OF_ONE_MODEL else "")
        self.told[scope] = max(self.told.get(scope, 0.0), self.clock.seconds + wait)

    @rule(index=st.integers(0, 3))
    def park(self, index):
        index %= self.count
        self.keys.refused(index, UNKNOWN)
        if self.parked | {index} != set(range(self.count)):
            self.parked.add(index)

    @rule(index=st.integers(0, 3), model=st.sampled_from("ab"))
    def succeed(self, index, model):
        index %= self.count
        self.keys.succeeded(index)
        if self.free(index, "a") and self.free(index, "b"):
            assert self.keys.pick(model) == index

    @precondition(lambda self: self.parked)
    @rule()
    def forget(self):
        self.keys.forget()
        self.parked.clear()
        self.told.clear()
        assert self.keys.pick("a") == 0

    @rule(seconds=st.sampled_from([0.5, 1.0, 59.0, 601.0]))
    def wait(self, seconds):
        self.clock.seconds += seconds

    @invariant()
    def somebody_is_left_and_the_earliest_is_told(self):
        if not hasattr(self, "clock"):
            return
        for model in "ab":
            earliest = self.keys.earliest(model)
            assert earliest < math.inf
            assert (earliest == 0) is (self.keys.pick(model) is not None)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40)
