import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.jobs.preferences import LONGEST_WAIT, Preference, read_preference


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Preference()),
        (b"", Preference()),
        (b"respond-async", Preference(True)),
        (b"Respond-Async, wait=10", Preference(True, 10.0)),
        (b'wait="10"; foo=bar, respond-async', Preference(True, 10.0)),
        (b"wait = 5", Preference(False, 5.0)),
        (b"wait=1, wait=2", Preference(False, 1.0)),
        (b"wait=99999", Preference(False, LONGEST_WAIT)),
        (b"wait=-1", Preference()),
        (b"wait=soon, return=minimal", Preference()),
        (b'said="a, respond-async, \\", wait=3", wait=4', Preference(False, 4.0)),
        (b"respond-async" + b", x" * 1000, Preference()),
    ],
)
def test_what_is_known_is_read_and_the_rest_left_alone(header, expected):
    assert read_preference(header) == expected


def test_an_answer_says_what_was_done():
    preference = Preference(True, 10.5)
    assert preference.applied(later=True) == b"respond-async, wait=10"
    assert preference.applied(later=False) == b"wait=10"
    assert Preference().applied(later=True) == b""


@given(st.binary(max_size=60))
def test_no_header_makes_it_fail(header):
    wait = read_preference(header).wait
    assert wait is None or 0 <= wait <= LONGEST_WAIT
