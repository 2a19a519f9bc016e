import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.limits.window import MINUTE, Window

SHARED = 100_000_000

amounts = st.integers(1, 50)
gaps = st.one_of(st.just(0), st.integers(0, 200_000_000), st.integers(0, 2 * MINUTE))


class Log:
    """The same promise, told differently: every single taking, looked through from the start for every question."""

    def __init__(self, limit):
        self.limit = limit
        self.takings = []

    def used(self, now):
        return sum(amount for at, amount in self.takings if now - MINUTE < at <= now)

    def wait(self, now, amount):
        moments = [now, *(at + MINUTE for at, _ in self.takings if at + MINUTE > now)]
        return next(at - now for at in sorted(moments) if self.used_at(at, now) + min(amount, self.limit) <= self.limit)

    def used_at(self, later, now):
        return sum(amount for at, amount in self.takings if later - MINUTE < at <= now)

    def add(self, now, amount):
        self.takings.append([now, amount])
        return self.takings[-1]


def compare(limit, steps, draw):
    """Drives a window and the log side by side; every answer must be the same."""
    window, log, now, held = Window(limit), Log(limit), 0, []
    for _ in range(steps):
        now += draw(gap=True)
        amount = draw(amount=True)
        assert window.used(now) == log.used(now)
        assert window.state(now)[0] == max(0, limit - log.used(now))
        assert window.wait(now, amount) == log.wait(now, amount)
        if window.wait(now, amount) == 0:
            amount = min(amount, limit)
            held.append((window.add(now, amount), log.add(now, amount), amount))
        if held and draw(correct=True):
            pair, taking, amount = held.pop(draw(amount=True) % len(held))
            real = draw(amount=True) - 1
            window.correct(pair, real - amount)
            taking[1] = real
        last = [at for at, amount in log.takings if amount and at > now - MINUTE]
        assert window.state(now)[1] == (last[-1] + MINUTE - now if last else 0)
        if len(log.takings) > 100:
            log.takings = [taking for taking in log.takings if taking[0] > now - MINUTE]


def dice(seed, longest):
    numbers = random.Random(seed)

    def draw(gap=False, amount=False, correct=False):
        if gap:
            return numbers.choice((0, 1, numbers.randrange(longest), numbers.randrange(longest)))
        if amount:
            return numbers.randint(1, 20)
        return numbers.random() < 0.3

    return draw


@pytest.mark.parametrize("limit", [1, 2, 25, 100, 600])
def test_it_answers_like_a_complete_log(limit):
    compare(limit, 2_500, dice(limit, MINUTE // limit * 10))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 25, 600])
def test_it_answers_like_a_complete_log_for_long(limit):
    compare(limit, 35_000, dice(-limit, MINUTE // limit * 10))


@given(limit=st.integers(1, 600), data=st.data())
def test_it_answers_like_a_complete_log_whatever_comes(limit, data):
    def draw(gap=False, amount=False, correct=False):
        return data.draw(gaps if gap else amounts if amount else st.booleans())

    compare(limit, data.draw(st.integers(1, 30)), draw)


@given(limit=st.integers(1, 5_000), gaps=st.lists(gaps, max_size=200), amount=st.integers(1, 5))
def test_no_minute_holds_more_than_the_limit(limit, gaps, amount):
    window, now, admitted = Window(limit), 0, []
    for gap in gaps:
        now += gap
        for _ in range(40):
            if window.wait(now, amount) == 0:
                window.add(now, min(amount, limit))
                admitted.append(now)
    for first in admitted:
        assert sum(first <= at < first + MINUTE for at in admitted) * min(amount, limit) <= limit


@given(
    limit=st.integers(601, 3_000),
    gaps=st.lists(st.integers(0, 5_000_000) | st.integers(MINUTE - SHARED, MINUTE), max_size=300),
)
def test_above_600_it_is_at_most_100_ms_too_late(limit, gaps):
    window, log, now = Window(limit), Log(limit), 0
    for gap in gaps:
        now += gap
        assert log.used(now) <= window.used(now) <= log.used_at(now - SHARED, now)
        pause = window.wait(now, limit // 100)
        assert log.wait(now, limit // 100) <= pause <= log.wait(now, limit // 100) + SHARED
        if pause == 0:
            window.add(now, limit // 100)
            log.add(now, limit // 100)


@given(limit=st.integers(1, 2_000), gaps=st.lists(gaps, min_size=1, max_size=100), amount=amounts)
def test_who_waits_as_told_is_admitted_and_not_a_nanosecond_earlier(limit, gaps, amount):
    window, now = Window(limit), 0
    for gap in gaps:
        now += gap
        if (pause := window.wait(now, amount)) > 0:
            assert window.wait(now + pause - 1, amount) == 1
            now += pause
            assert window.wait(now, amount) == 0
        window.add(now, min(amount, limit))


def test_an_amount_above_the_limit_needs_an_empty_window():
    window = Window(100)
    window.add(0, 1)
    assert window.wait(0, 5_000) == MINUTE
    assert window.wait(MINUTE, 5_000) == 0


def test_after_a_correction_above_the_limit_it_waits_until_that_is_gone():
    window = Window(10)
    window.correct(window.add(0, 1), 500)
    assert (window.used(1), window.state(1)[0], window.wait(1)) == (501, 0, MINUTE - 1)
    assert window.wait(MINUTE) == 0


def test_a_correction_after_its_minute_changes_nothing():
    window = Window(10)
    pair = window.add(0, 5)
    window.add(MINUTE, 3)
    assert window.used(MINUTE) == 3
    window.correct(pair, -5)
    assert window.used(MINUTE) == 3


@pytest.mark.parametrize("limit", [1, 600, 601, 1_000_000])
def test_it_stays_small_however_much_comes(limit):
    window = Window(limit)
    for number in range(20_000):
        now = number * 10_000_000
        if window.wait(now) == 0:
            window.add(now)
        assert len(window._pairs) <= 602


def test_what_shares_a_pair_leaves_with_its_last_member():
    window = Window(700)
    window.add(0, 350)
    window.add(SHARED, 350)
    assert (window.wait(MINUTE), window.used(MINUTE)) == (SHARED, 700)
    assert (window.wait(MINUTE + SHARED), window.used(MINUTE + SHARED)) == (0, 0)


def test_it_stays_small_when_everything_is_given_back_in_disorder():
    window = Window(600)
    held = [window.add(0)]
    for number in range(20_000):
        held.append(window.add(number * 1000))
        window.correct(held.pop(-2), -1)
        assert len(window._pairs) <= 1302
    assert window.used(20_000_000) == 1


def test_a_limit_that_was_lowered_lets_go_what_was_taken_before_it():
    window = Window(1_000_000)
    for number in range(1200):
        window.add(number * 50_000_000)
    window.limit = 5
    assert window.state(MINUTE - 1)[0] == 0
    pause = window.wait(MINUTE - 1)
    assert window.used(MINUTE - 1 + pause) < 5
