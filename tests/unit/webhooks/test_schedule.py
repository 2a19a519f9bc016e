import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.webhooks.schedule import (
    LONGEST_DELAY,
    RETRY_DELAYS,
    Result,
    State,
    explain_status,
    judge,
    pause_after,
    read_retry_after,
)

NOW = 1_700_000_000.0


def failed(status=500, retry_after=None):
    return Result(at=NOW, status=status, milliseconds=3, error="no", retry_after=retry_after)


def verdict(result, attempts=1, *, retried=True, failing_since=None, chance=0.5):
    return judge(result, attempts=attempts, retried=retried, failing_since=failing_since, now=NOW, chance=chance)


def test_a_failed_message_is_tried_ten_times_more_over_two_days():
    waits = [verdict(failed(), attempts).due_at - NOW for attempts in range(1, 11)]
    assert waits == pytest.approx([5, 30, 120, 300, 900, 3600, 10800, 21600, 43200, 86400])
    assert verdict(failed(), 10).state is State.PENDING
    assert verdict(failed(), 11).state is State.FAILED


@given(st.integers(1, 10), st.floats(0, 1))
def test_retries_are_spread_by_a_fifth(attempts, chance):
    wait = verdict(failed(), attempts, chance=chance).due_at - NOW
    nominal = RETRY_DELAYS[attempts - 1]
    assert min(nominal * 0.8, LONGEST_DELAY) - 1 <= wait <= min(nominal * 1.2, LONGEST_DELAY) + 1


@given(st.integers(1, 10), st.floats(0, 1), st.floats(0, LONGEST_DELAY))
def test_nobody_is_asked_again_earlier_than_he_wants(attempts, chance, asked):
    assert verdict(failed(429, asked), attempts, chance=chance).due_at - NOW >= asked - 1e-3


def test_a_receiver_cannot_ask_for_more_than_a_day():
    assert verdict(failed(503, 10 * LONGEST_DELAY), chance=1.0).due_at == NOW + LONGEST_DELAY


def test_what_has_arrived_is_done():
    assert verdict(Result(at=NOW, status=204, milliseconds=3)).state is State.DELIVERED


def test_410_ends_the_message_and_the_subscription():
    found = verdict(failed(410))
    assert found.state is State.FAILED
    assert found.disabled_reason == "The receiver answered 410 Gone."


def test_five_days_of_failures_end_the_subscription():
    assert verdict(failed(), failing_since=NOW - 5 * 86400 + 1).disabled_reason is None
    assert (
        verdict(failed(), failing_since=NOW - 5 * 86400).disabled_reason == "All deliveries of five days have failed."
    )


def test_a_test_is_tried_once():
    assert verdict(failed(), retried=False).state is State.FAILED


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(status):
    assert explain_status(status) is None


@pytest.mark.parametrize("status", [100, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503])
def test_everything_else_is_a_failure(status):
    assert explain_status(status)


def test_a_receiver_that_fails_is_left_alone_for_longer_and_longer():
    pauses = [pause_after(failures, None) for failures in range(1, 10)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause_after(10_000, None) == 60
    assert pause_after(1, 120.0) == 120
    assert pause_after(1, 1e9) == 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("99999999999", LONGEST_DELAY),
        ("-1", None),
        ("1.5", None),
        ("NaN", None),
        ("١٢", None),
        ("soon", None),
        ("9" * 100, None),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:12:20 GMT", None),
        ("Tue, 14 Nov 9999 22:12:20 GMT", LONGEST_DELAY),
    ],
)
def test_retry_after_is_read_within_bounds(value, seconds):
    assert read_retry_after(value, NOW) == seconds


@given(st.text(max_size=80))
def test_no_retry_after_breaks_anything(value):
    seconds = read_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_DELAY
