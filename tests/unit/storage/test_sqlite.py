import sqlite3
from contextlib import closing

import pytest
from sqlalchemy.exc import OperationalError

from stellwerk.storage.sqlite import connect, make_engine


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("trusted_schema", 0),
        ("secure_delete", 1),
        ("busy_timeout", 5000),
    ],
)
def test_every_connection_is_careful(folder, setting, value):
    with closing(connect(folder / "stellwerk.db")) as connection:
        assert connection.execute(f"PRAGMA {setting}").fetchone() == (value,)


def test_connecting_never_makes_a_file(tmp_path):
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_hold_signs_that_mean_something_in_an_address(tmp_path):
    path = tmp_path / "a?b#c%20 d" / "stellwerk.db"
    path.parent.mkdir()
    path.touch()
    connect(path).close()
    assert path.with_name("stellwerk.db").exists()


def test_the_reading_engine_cannot_write(database, notes):
    with database.reading.begin() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(notes.insert().values(text="written"))


def test_a_writing_transaction_takes_the_lock_when_it_begins(database):
    other = make_engine(database.path, immediate=True, busy_seconds=0.01)
    with database.writing.begin(), pytest.raises(OperationalError, match="locked"):
        other.connect().begin()
    other.dispose()
