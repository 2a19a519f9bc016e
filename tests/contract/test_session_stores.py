"""What every store of sessions does, whether it keeps them in files or in the database."""

import threading

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from stellwerk.core.errors import BadRequest
from stellwerk.sessions.history import LARGEST_FILE, MOST_MESSAGES, Message
from stellwerk.sessions.sql_store import SqlSessions
from stellwerk.sessions.store import FileSessions


@pytest.fixture(params=["files", "database"])
def make_store(request, tmp_path, clock):
    """Makes a store; each one made sees what the others wrote."""
    if request.param == "files":
        return lambda **bounds: FileSessions(tmp_path / ".sessions", **bounds)
    database = request.getfixturevalue("database")
    return lambda **bounds: SqlSessions(database.read, database.write, clock, **bounds)


@pytest.fixture
def store(make_store):
    return make_store()


def texts(store, owner="", model="m", session_id="x"):
    return [message.content for message in store.read(owner, model, session_id)]


def test_a_session_that_nobody_began_is_empty(store):
    assert store.read("", "m", "x") == []
    assert store.read("7", "m", "x") == []


def test_what_was_added_is_read_in_order(store):
    store.append("7", "m", "x", "q1", "a1")
    store.append("7", "m", "x", "q2", "a2")
    assert store.read("7", "m", "x") == [
        Message(role="user", content="q1"),
        Message(role="assistant", content="a1"),
        Message(role="user", content="q2"),
        Message(role="assistant", content="a2"),
    ]


def test_the_newest_twenty_messages_are_kept_in_pairs(store):
    for number in range(25):
        store.append("", "m", "x", f"q{number}", f"a{number}")
        kept = texts(store)
        assert kept[-2:] == [f"q{number}", f"a{number}"]
        assert kept[0].startswith("q")
        assert len(kept) == min(2 * (number + 1), MOST_MESSAGES)
    assert kept == [f"{letter}{number}" for number in range(15, 25) for letter in "qa"]


def test_owners_models_and_ids_do_not_see_each_other(store):
    keys = [("", "m", "x"), ("7", "m", "x"), ("8", "m", "x"), ("", "n", "x"), ("", "m", "y"), ("", "m/n", "x")]
    for number, key in enumerate(keys):
        store.append(*key, f"q{number}", "a")
    assert [texts(store, *key)[0] for key in keys] == [f"q{number}" for number in range(len(keys))]


def test_a_second_store_sees_what_the_first_has_written(make_store):
    make_store().append("", "m", "x", "q", "a")
    assert texts(make_store()) == ["q", "a"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.text(), st.text())
def test_any_text_is_read_as_it_was_written(store, user, assistant):
    store.append("", "m", "x", user, assistant)
    assert texts(store)[-2:] == [user, assistant]


def test_half_of_a_surrogate_pair_does_no_harm(store):
    store.append("", "m", "x", "a\ud800", "b")
    assert texts(store) == ["a?", "b"]


@pytest.mark.parametrize("session_id", ["", "..", "../x", "a/b", ".x", "a\0", "con", "x" * 65])
def test_a_bad_session_id_is_refused(store, session_id):
    with pytest.raises(BadRequest):
        store.read("", "m", session_id)
    with pytest.raises(BadRequest):
        store.append("", "m", session_id, "q", "a")


def test_an_exchange_that_is_too_large_is_left_out(store, caplog):
    store.append("", "m", "x", "q", "a")
    store.append("", "m", "x", "q" * LARGEST_FILE, "a")
    assert texts(store) == ["q", "a"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_large_exchanges_make_the_older_ones_go(store):
    large = "ü" * 600_000
    for number in range(5):
        store.append("", "m", "x", f"q{number}", large)
    kept = texts(store)
    assert kept[::2] == ["q2", "q3", "q4"]
    assert kept[1::2] == [large] * 3


def test_the_session_that_was_not_used_for_longest_makes_room(make_store):
    store = make_store(most_sessions=3)
    for session_id in ("one", "two", "three"):
        store.append("7", "m", session_id, "q", "a")
    store.append("7", "m", "one", "again", "a")
    store.append("8", "m", "two", "of another", "a")
    store.append("7", "m", "four", "q", "a")
    assert texts(store, "7", "m", "two") == []
    assert texts(store, "7", "m", "one") == ["q", "a", "again", "a"]
    assert texts(store, "7", "m", "three") == texts(store, "7", "m", "four") == ["q", "a"]
    assert texts(store, "8", "m", "two") == ["of another", "a"]


def test_writers_at_once_lose_nothing(make_store):
    stores = [make_store() for _ in range(4)]

    def write(number):
        for turn in range(2):
            stores[number].append("", "m", "x", f"{number}.{turn}", f"{number}.{turn}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    kept = texts(stores[0])
    assert kept[::2] == kept[1::2]
    assert sorted(kept[::2]) == [f"{number}.{turn}" for number in range(4) for turn in range(2)]
