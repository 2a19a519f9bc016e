import re
from itertools import combinations, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stellwerk.core.errors import UpstreamBroken
from stellwerk.http.sse import LONGEST_EVENT, EventSplitter, event_data

LINES = st.one_of(
    st.builds(lambda text: b"data: " + text, st.binary(max_size=12)),
    st.builds(lambda text: b"data:" + text, st.binary(max_size=12)),
    st.sampled_from(
        [b"data: [DONE]", b'data: {"a":1}', b": comment", b":", b"event: message_stop", b"id: 7", b"retry: 5", b"other"]
    ),
).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\n\n\n", b"\n\n\n\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda lines: b"".join(line + end for line, end in lines))
CUTS = st.lists(st.integers(min_value=0, max_value=400), max_size=20)


def cut(data, places):
    ends = [*sorted({min(place, len(data)) for place in places}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def texts(data, places=()):
    splitter = EventSplitter()
    events = [event for piece in cut(data, places) for event in splitter.feed(piece)]
    return events, splitter.rest.strip(b"\r\n")


def reference(data):
    """The parsing rules of the standard, line by line, for streams whose lines end in LF or CRLF."""
    found, lines = [], []
    for line in re.split(b"\r?\n", data)[:-1]:
        if line:
            lines.append(line)
            continue
        values = [line.partition(b":")[2].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        if values:
            found.append(b"\n".join(values))
        lines = []
    return found


@given(data=st.one_of(STREAMS, st.text("\r\nd:a ", max_size=60).map(str.encode), st.binary(max_size=80)), places=CUTS)
@example(data=b":\r\r\n:", places=[4])
@example(data=b":\r\r\n:", places=[2])
@example(data=b":\r\r\n:", places=[3])
def test_it_does_not_matter_how_the_network_cuts_a_stream(data, places):
    assert texts(data, places) == texts(data)


def test_every_cut_of_every_short_stream_of_line_ends_gives_the_same():
    for data in (bytes(stream) for length in range(1, 7) for stream in product(b"\r\na", repeat=length)):
        for places in (places for count in range(len(data)) for places in combinations(range(1, len(data)), count)):
            assert texts(data, places) == texts(data)


@given(data=STREAMS)
def test_byte_by_byte_is_the_same_as_at_once(data):
    assert texts(data, range(len(data))) == texts(data)


@given(data=STREAMS, places=CUTS)
def test_the_data_of_events_is_what_the_standard_says(data, places):
    events, _ = texts(data, places)
    assert [text for event in events if (text := event_data(event)) is not None] == reference(data)


@given(data=STREAMS, places=CUTS)
def test_whole_events_lose_no_byte_but_the_cr_of_line_ends(data, places):
    splitter = EventSplitter()
    whole = [splitter.whole(piece) for piece in cut(data, places)]
    assert all(not part or part.endswith(b"\n\n") for part in whole)
    assert b"".join(whole) + splitter.rest == data.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: one", b"one"),
        (b"data:one", b"one"),
        (b"data:  two spaces", b" two spaces"),
        (b"data: ", b""),
        (b"data:", b""),
        (b"data: a\ndata: b", b"a\nb"),
        (b"data:a\ndata:\ndata: c", b"a\n\nc"),
        (b"event: delta\ndata: x\nid: 1", b"x"),
        (b": ping", None),
        (b": ping\ndata: x", b"x"),
        (b"event: done", None),
        (b"database: x", None),
        (b"DATA: x", None),
        (b"", None),
    ],
)
def test_the_data_of_one_event(event, data):
    assert event_data(event) == data


def test_an_event_may_be_as_long_as_its_bound_and_no_longer():
    splitter = EventSplitter(100)
    assert splitter.feed(b"data: " + b"x" * 94) == []
    assert splitter.feed(b"\n\n") == [b"data: " + b"x" * 94]
    splitter.feed(b"data: " + b"x" * 94)
    with pytest.raises(UpstreamBroken):
        splitter.feed(b"x")


def test_events_that_do_not_end_do_not_grow_without_bound():
    splitter = EventSplitter()
    lines = [b"data: ".ljust(65535, b"x") + b"\n"] * (2 * LONGEST_EVENT // 65536)
    with pytest.raises(UpstreamBroken):
        [splitter.feed(line) for line in lines]
