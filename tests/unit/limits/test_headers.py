import pytest

from stellwerk.limits.headers import duration, request_headers, token_headers

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (-5, b"0ms"),
        (0, b"0ms"),
        (1, b"1ms"),
        (850_000_000, b"850ms"),
        (999_000_001, b"1s"),
        (SECOND, b"1s"),
        (SECOND + 1, b"2s"),
        (60 * SECOND, b"1m0s"),
        (360 * SECOND, b"6m0s"),
        (3600 * SECOND, b"1h0m0s"),
        (3725 * SECOND, b"1h2m5s"),
    ],
)
def test_a_time_is_written_as_openai_writes_it_and_never_too_short(nanoseconds, text):
    assert duration(nanoseconds) == text


def test_limit_what_is_left_and_when_all_is_back():
    assert request_headers(60, 7, 3 * SECOND) == (
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"7"),
        (b"x-ratelimit-reset-requests", b"3s"),
    )
    assert token_headers(150_000, 149_984, 6 * SECOND // 1000) == (
        (b"x-ratelimit-limit-tokens", b"150000"),
        (b"x-ratelimit-remaining-tokens", b"149984"),
        (b"x-ratelimit-reset-tokens", b"6ms"),
    )
