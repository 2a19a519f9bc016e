import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.ollama.keep_alive import keep_seconds
from stellwerk.core.errors import BadRequest


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        ("", None),
        (0, 0),
        (0.0, 0),
        ("0", 0),
        ("0s", 0),
        ("0m0s", 0),
        (300, 300),
        (0.5, 0.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("300ms", 0.3),
        ("+2s", 2),
        ("90", 90),
        (-1, -1),
        ("-1", -1),
        ("-1m", -1),
        (-300, -1),
    ],
)
def test_a_time_is_a_number_of_seconds_or_a_duration(given, seconds):
    assert keep_seconds(given) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("given", ["x", "5 m", "m5", "1h 30m", "-", "--1s", "1e3s", "5m?", "1d", "٣s"])
def test_what_is_none_is_refused(given):
    with pytest.raises(BadRequest, match="invalid duration") as caught:
        keep_seconds(given)
    assert caught.value.param == "keep_alive"


@given(st.text(max_size=200) | st.floats(allow_nan=False))
def test_whatever_is_sent_is_a_bounded_time_or_refused(given):
    try:
        seconds = keep_seconds(given)
    except BadRequest:
        return
    assert seconds is None or -1 <= seconds < 1e9
