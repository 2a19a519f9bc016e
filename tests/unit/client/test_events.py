import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.client.errors import NotUnderstood
from stellwerk.client.events import Event, EventReader

STREAM = (
    b": a comment\n\nevent: state\nid: 1\ndata: {}\n\r\ndata:first\r\ndata: second \r\n\r\n"
    b"event: alone\n\ndata\n\nretry: 3\ndata: \xc3\xbc\xff\n\n"
)
EVENTS = [Event("state", "{}"), Event("message", "first\nsecond "), Event("message", ""), Event("message", "ü\ufffd")]


@given(st.lists(st.integers(1, 9)))
def test_events_are_the_same_however_the_bytes_were_cut(sizes):
    reader, events, rest = EventReader(), [], STREAM
    for size in sizes:
        events += reader.feed(rest[:size])
        rest = rest[size:]
    assert events + reader.feed(rest) == EVENTS


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 200, b"data: xxxxxxxxxx\n" * 20])
def test_an_event_without_end_is_refused(piece):
    with pytest.raises(NotUnderstood):
        EventReader(100).feed(piece)


def test_many_events_are_no_long_event():
    assert len(EventReader(100).feed(b"data: xxxxxxxxxx\n\n" * 200)) == 200


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(data):
    EventReader().feed(data)
