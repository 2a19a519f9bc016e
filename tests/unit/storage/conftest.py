import sqlite3
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table

from stellwerk.storage.database import FILE_NAME, Database
from stellwerk.storage.sqlite import make_engine
from stellwerk.storage.writer import Writer, WriterSettings


@pytest.fixture
def notes():
    """A table that nobody else uses."""
    return Table("notes", MetaData(), Column("number", Integer, primary_key=True), Column("text", String, unique=True))


@pytest.fixture
def database(folder, notes):
    """Like `open_database`, but who waits for a lock gives up sooner, and with the table `notes`."""
    path = folder / FILE_NAME
    database = Database(
        path,
        writing=make_engine(path, immediate=True, busy_seconds=0.1),
        reading=make_engine(path, immediate=False, busy_seconds=0.1),
    )
    database.write(notes.create)
    yield database
    database.close()


@pytest.fixture
def writer(database):
    settings = WriterSettings(gather_seconds=0.005, stream_rows=50, retry_seconds=0.01, longest_retry_seconds=0.05)
    writer = Writer(database.writing, settings)
    yield writer
    writer.close(within=2)


@pytest.fixture
def texts(database):
    """What a connection of its own reads in the table `notes`, in the order of the rows."""

    def read():
        with closing(sqlite3.connect(database.path)) as connection:
            return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY number")]

    return read


@pytest.fixture
def until():
    """Waits until a condition holds, with a deadline."""

    def wait(condition, within=30.0):
        deadline = time.monotonic() + within
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            pause.wait(0.002)

    return wait


@pytest.fixture
def locked(database):
    """A function that takes the write lock as another process would, and returns one that gives it back."""
    held = []

    def lock():
        connection = sqlite3.connect(database.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        held.append(connection)
        return connection.close

    yield lock
    for connection in held:
        connection.close()
