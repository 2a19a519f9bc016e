import shutil

import pytest

from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.writer import Writer, WriterSettings


class SetClock:
    """Both clocks stand still until somebody sets them."""

    def __init__(self):
        self.at = 1_000_000.0

    def now(self):
        return self.at

    def monotonic(self):
        return self.at


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A fresh database, made by the migrations once for all tests."""
    folder = tmp_path_factory.mktemp("made-once")
    open_database(folder).close()
    return folder / FILE_NAME


@pytest.fixture
def folder(tmp_path, made_once):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    shutil.copy(made_once, folder / FILE_NAME)
    return folder


@pytest.fixture
def database(folder):
    database = open_database(folder)
    yield database
    database.close()


@pytest.fixture
def writer(database):
    writer = Writer(database.writing, WriterSettings(gather_seconds=0.005))
    yield writer
    writer.close(within=2)
