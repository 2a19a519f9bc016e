import pytest

from stellwerk.storage.writer import Writer, WriterSettings


@pytest.fixture
def writer(database):
    writer = Writer(database.writing, WriterSettings(gather_seconds=0.005))
    yield writer
    writer.close(within=2)
