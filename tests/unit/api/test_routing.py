import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api._routing import answered_by, read_priority, read_session
from stellwerk.core.call import Place
from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Target
from stellwerk.core.principal import Priority
from stellwerk.http.exchange import header_text
from tests.port_fakes import ALICE, make_call

PRIORITY = b"x-stellwerk-priority"


@pytest.mark.parametrize(
    ("asked", "most", "given"),
    [
        (None, Priority.HIGH, Priority.NORMAL),
        (None, Priority.NORMAL, Priority.NORMAL),
        (None, Priority.LOW, Priority.LOW),
        (b"high", Priority.HIGH, Priority.HIGH),
        (b" High ", Priority.HIGH, Priority.HIGH),
        (b"high", Priority.NORMAL, Priority.NORMAL),
        (b"high", Priority.LOW, Priority.LOW),
        (b"normal", Priority.LOW, Priority.LOW),
        (b"low", Priority.HIGH, Priority.LOW),
    ],
)
def test_a_priority_is_given_up_to_that_of_the_key(asked, most, given):
    headers = {} if asked is None else {PRIORITY: asked}
    assert read_priority(headers, msgspec.structs.replace(ALICE, priority=most)) is given


@pytest.mark.parametrize("word", [b"", b"urgent", b"1", b"high, low", b"\xff"])
def test_another_word_for_a_priority_is_refused_with_the_name_of_the_header(word):
    with pytest.raises(BadRequest) as refused:
        read_priority({PRIORITY: word}, ALICE)
    assert refused.value.param == "x-stellwerk-priority"
    assert "x-stellwerk-priority" in refused.value.message


@pytest.mark.parametrize(
    ("headers", "own", "cache_key", "session"),
    [
        ({}, None, None, None),
        ({}, "", "", None),
        ({b"x-session-id": b""}, None, None, None),
        ({b"x-session-id": b"x", b"session_id": b"y"}, "own", "cached", "own"),
        ({b"x-session-id": b"x", b"session_id": b"y"}, None, "cached", "x"),
        ({b"session_id": b"y"}, None, "cached", "y"),
        ({}, None, "cached", "cached"),
        ({b"x-session-id": b"x" * 300}, None, None, "x" * 256),
        ({}, None, "c" * 300, "c" * 256),
    ],
)
def test_the_most_deliberate_name_of_a_session_counts(headers, own, cache_key, session):
    assert read_session(headers, own, cache_key) == session


def test_an_answer_says_who_gave_it_and_where_its_call_had_to_wait():
    target = Target(provider="house", model="up/large")
    place = Place()
    call = msgspec.structs.replace(make_call(), place=place)
    assert answered_by(make_call(), target) == answered_by(call, target) == ((b"x-stellwerk-model", b"house/up/large"),)
    place.take(7)
    place.take(2)
    assert answered_by(call, target)[1:] == ((b"x-stellwerk-queue-position", b"7"),)


@given(st.text())
def test_no_name_of_a_model_can_end_its_header(name):
    value = header_text(f"house/{name}")
    assert all(32 <= byte < 127 for byte in value)
    assert value == f"house/{name}".encode() or not (name.isascii() and name.isprintable())
