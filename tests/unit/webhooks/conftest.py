import asyncio
import time

import pytest

from stellwerk.http.egress import Egress
from stellwerk.storage.database import FILE_NAME, Database
from stellwerk.storage.sealing import Seal
from stellwerk.storage.sqlite import make_engine
from stellwerk.storage.writer import Writer, WriterSettings
from stellwerk.webhooks import outbox, subscriptions
from stellwerk.webhooks.delivery import DeliverySettings, Webhooks
from stellwerk.webhooks.signing import new_secret, seal_secret


@pytest.fixture
def seal():
    return Seal(bytes(range(32)))


@pytest.fixture
def clock(clock):
    """Near the real time: the library that checks signatures looks at the machine's clock."""
    clock.at = time.time()
    return clock


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
def signing_secret():
    return new_secret()


@pytest.fixture
def subscribe(database, seal, signing_secret, clock):
    """Stores a subscription and returns it."""

    def make(url="https://receiver.example/hook", events=("request.finished",), **more):
        fields = {"url": url, "events": events, "secret": seal_secret(seal, signing_secret), "now": clock.now(), **more}
        return database.write(lambda connection: subscriptions.create(connection, **fields))

    return make


@pytest.fixture
def make_webhooks(database, writer, seal, clock, upstream):
    """The webhooks of one process; they may call the scripted receiver, which lies on this machine."""

    def make(send=None, writer=writer, fetch=database.fetch, **settings):
        return Webhooks(
            run=writer.run,
            submit=writer.submit,
            fetch=fetch,
            send=send or Egress(lambda: [f"http://127.0.0.1:{upstream.port}"]).send,
            seal=seal,
            clock=clock,
            settings=DeliverySettings(**settings),
        )

    return make


@pytest.fixture
def deliveries(database):
    def read(subscription_id=1, limit=1000):
        return database.read(lambda connection: outbox.list_deliveries(connection, subscription_id, limit))

    return read


@pytest.fixture
def subscription(database):
    def read(subscription_id=1):
        return database.read(lambda connection: subscriptions.get(connection, subscription_id))

    return read


@pytest.fixture
def until():
    """Waits until a condition holds, with a deadline."""

    async def wait(condition, within=30.0):
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
                await asyncio.sleep(0.002)

    return wait
