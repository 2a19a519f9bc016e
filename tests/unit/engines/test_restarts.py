from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.restarts import Restarts, RestartSettings


def test_the_first_crash_is_repaired_at_once_and_further_ones_ever_later():
    restarts = Restarts(RestartSettings(max_crashes=10))
    delays = [restarts.after_crash(now) for now in range(9)]
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_the_fifth_crash_within_ten_minutes_is_the_last():
    restarts = Restarts(RestartSettings())
    assert [restarts.after_crash(now) is None for now in (0, 100, 200, 300, 599)] == [False] * 4 + [True]


def test_old_crashes_are_forgotten():
    restarts = Restarts(RestartSettings())
    assert [restarts.after_crash(now) for now in (0.0, 600.0, 1200.0)] == [0.0] * 3


@given(st.lists(st.floats(0, 200), max_size=60))
def test_there_are_never_more_restarts_within_the_window_than_allowed(gaps: list[float]):
    restarts, now, granted = Restarts(RestartSettings()), 0.0, []
    for gap in gaps:
        now += gap
        if restarts.after_crash(now) is not None:
            granted.append(now)
        assert sum(1 for at in granted if at > now - 600) <= 4
