import asyncio

import pytest

from stellwerk.core.principal import Priority
from stellwerk.jobs.job import NewJob
from stellwerk.jobs.jobs import Jobs
from stellwerk.jobs.settings import JobSettings
from stellwerk.storage.database import FILE_NAME, Database
from stellwerk.storage.sealing import Seal
from stellwerk.storage.sqlite import make_engine
from stellwerk.storage.writer import Writer, WriterSettings


@pytest.fixture
def seal():
    return Seal(bytes(range(32)))


@pytest.fixture
def database(folder):
    """Like `open_database`, but who waits for a lock gives up sooner."""
    path = folder / FILE_NAME
    writing, reading = (make_engine(path, immediate=immediate, busy_seconds=1) for immediate in (True, False))
    database = Database(path, writing=writing, reading=reading)
    yield database
    database.close()


@pytest.fixture
def writer(database):
    settings = WriterSettings(gather_seconds=0.001, retry_seconds=0.01, longest_retry_seconds=0.05)
    writer = Writer(database.writing, settings)
    yield writer
    writer.close(within=2)


@pytest.fixture
def ended():
    """Every job that `on_finished` was told of."""
    return []


@pytest.fixture
def make_jobs(database, writer, seal, clock, ended):
    """The jobs of one process; another call makes those of another one."""

    def make(run=writer.run, has_room=lambda: True, **settings):
        return Jobs(
            run=run,
            submit=writer.submit,
            fetch=database.fetch,
            seal=seal,
            clock=clock,
            settings=JobSettings(**{"look_seconds": 0.01, **settings}),
            on_finished=ended.append,
            has_room=has_room,
        )

    return make


@pytest.fixture
def jobs(make_jobs):
    return make_jobs()


@pytest.fixture
def new():
    """A request that wants to be queued."""

    def make(body=b"{}", *, key_id="key", queue="model", priority=Priority.NORMAL, **more):
        return NewJob(kind="call", queue=queue, path="/v1/x", body=body, key_id=key_id, priority=priority, **more)

    return make


@pytest.fixture
def until():
    """Waits until a condition holds, with a deadline."""

    async def wait(condition, within=30.0):
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
                await asyncio.sleep(0.002)

    return wait
