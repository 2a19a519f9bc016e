import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.providers._key_refusals import Refusal, RefusalKind, parse_duration, read_key_refusal

NOW = 1_700_000_000.0


def read(status=429, text="", **headers):
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return read_key_refusal(status, text.encode(), fields.get, NOW)


@pytest.mark.parametrize("status", [400, 404, 408, 413, 422, 500, 503, 529])
def test_what_lies_not_with_the_key_is_no_refusal_of_it(status):
    assert read(status, "quota concurrent weekly") is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, RefusalKind.UNAUTHORIZED),
        (402, RefusalKind.HOURLY_QUOTA),
        (403, RefusalKind.FORBIDDEN),
        (429, RefusalKind.RATE),
    ],
)
def test_the_status_says_what_the_words_do_not(status, kind):
    assert read(status, "<html>") == Refusal(kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("you've reached your hourly usage limit, please wait or upgrade to continue", RefusalKind.HOURLY_QUOTA),
        ("you've reached your weekly usage limit, please wait or upgrade", RefusalKind.WEEKLY_QUOTA),
        ("you (x) have reached your session usage limit, upgrade for higher limits", RefusalKind.SESSION_QUOTA),
        ("Monthly spending limit reached", RefusalKind.WEEKLY_QUOTA),
        ("Daily request limit reached", RefusalKind.SESSION_QUOTA),
        ("timed out waiting for a concurrent request slot", RefusalKind.CONCURRENCY),
        ("Too many concurrent requests", RefusalKind.CONCURRENCY),
        ('{"error":{"code":"insufficient_quota","message":"No."}}', RefusalKind.HOURLY_QUOTA),
        ("Rate limit reached for requests per min (RPM)", RefusalKind.RATE),
        ("slow down", RefusalKind.RATE),
    ],
)
def test_quotas_are_told_apart_by_their_words(text, kind):
    assert read(text=text) == Refusal(kind)


@pytest.mark.parametrize(
    ("headers", "text", "wait"),
    [
        ({"retry_after": "7"}, "try again in 90s", 7),
        ({"retry_after": "90000"}, "", 90_000),
        ({"retry_after": formatdate(NOW + 30, usegmt=True)}, "", 30),
        ({"retry_after_ms": "850", "retry_after": "1"}, "", 0.85),
        ({"retry_after_ms": "soon", "retry_after": "1"}, "", 1),
        ({"retry_after": "soon"}, "Please try again in 1.234s.", 1.234),
        ({"retry_after": "nan"}, "", None),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "6m0s"}, "", 360),
        ({"x_ratelimit_remaining_requests": "5", "x_ratelimit_reset_requests": "6m0s"}, "", None),
        (
            {
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_remaining_tokens": "0",
                "x_ratelimit_reset_tokens": "850ms",
            },
            "",
            1,
        ),
        ({}, "Please retry in 45.5s.", 45.5),
        ({}, "Retry after 30 seconds.", 30),
        ({}, "Your limit resets in 3 hours and 5 minutes", 11_100),
        ({}, "try again at 5 pm", None),
        ({}, "retry 5 times", None),
        ({}, "try again in 5", None),
    ],
)
def test_the_wait_is_found_in_headers_first_and_in_words_then(headers, text, wait):
    refusal = read(text=text, **headers)
    assert refusal is not None
    assert refusal.wait == wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("850ms", 0.85),
        ("1h30m", 5400),
        ("1d", 86_400),
        ("2 hours and 3 minutes", 7380),
        ("3 days, 2 hours", 266_400),
        ("5 mins", 300),
        ("1 millisecond", 0.001),
        ("30 secs left", 30),
        ("20", None),
        ("2 months", None),
        ("5sx", None),
        ("in 5s", None),
        ("", None),
    ],
)
def test_durations_are_read_as_vendors_write_them(text, seconds):
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_every_duration_of_the_short_form_is_read(hours, minutes, seconds, milliseconds):
    text = f"{hours}h{minutes}m{seconds}.{milliseconds:03}s"
    assert parse_duration(text) == pytest.approx(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


@given(st.sampled_from([401, 402, 403, 429, 500]), st.binary(max_size=200), st.text(max_size=40))
def test_whatever_an_upstream_sends_is_read(status, body, value):
    refusal = read_key_refusal(status, body, lambda _name: value.encode("utf-8", "replace"), NOW)
    assert (refusal is None) is (status == 500)
    assert refusal is None or refusal.wait is None or not math.isnan(refusal.wait)
