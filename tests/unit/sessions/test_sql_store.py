import pytest
from sqlalchemy import select

from stellwerk.core.errors import Unavailable
from stellwerk.sessions.history import MOST_MESSAGES
from stellwerk.sessions.sql_store import SqlSessions, session_exchanges
from stellwerk.storage.failures import storage_unavailable


@pytest.fixture
def store(database, clock):
    return SqlSessions(database.read, database.write, clock)


def rows(database):
    return database.read(lambda connection: connection.execute(select(session_exchanges)).all())


def test_a_row_is_an_exchange_with_its_time(store, database, clock):
    store.append("7", "m", "x", "q", "a")
    (row,) = rows(database)
    assert row._asdict() == {
        "number": 1,
        "owner": "7",
        "model": "m",
        "session_id": "x",
        "question": "q",
        "answer": "a",
        "at": clock.now(),
    }


def test_what_is_no_longer_read_is_no_longer_kept(store, database):
    for number in range(25):
        store.append("7", "m", "x", f"q{number}", "a")
        store.append("8", "m", "x", "another's", "a")
    kept = rows(database)
    assert [row.question for row in kept if row.owner == "7"] == [f"q{number}" for number in range(15, 25)]
    assert len(kept) == MOST_MESSAGES


def test_names_that_share_a_file_do_not_share_rows(store):
    store.append("", "a-b", "c", "one", "a")
    assert store.read("", "a", "b-c") == []


def test_a_storage_that_is_down_is_the_callers_to_know(clock):
    def refuse(work):
        raise storage_unavailable()

    store = SqlSessions(refuse, refuse, clock)
    with pytest.raises(Unavailable):
        store.read("", "m", "x")
    with pytest.raises(Unavailable):
        store.append("", "m", "x", "q", "a")
