import logging
import sqlite3
from threading import Event

import pytest

from stellwerk.webhooks import intake as module
from stellwerk.webhooks.intake import Intake, open_body
from stellwerk.webhooks.outbox import NewMessage


def message(name="msg_1", subscription_id=1, body=b'{"type":"key.parked"}'):
    return NewMessage(id=name, subscription_id=subscription_id, event="key.parked", body=body, created_at=0.0)


@pytest.fixture
def told():
    return []


@pytest.fixture
def intake(writer, seal, told, subscribe):
    subscribe()
    return Intake(writer.submit, seal, stored=lambda: told.append(True))


@pytest.fixture
def busy(writer):
    """Keeps the storage from taking anything until the returned function is called."""
    go = Event()
    running = Event()

    def hold(_):
        running.set()
        go.wait(30)

    writer.submit(hold)
    assert running.wait(30)
    yield go.set
    go.set()


async def test_a_message_is_stored_sealed(intake, told, database, seal):
    intake.add(message())
    await intake.flush()
    assert told == [True]
    with database.reading.begin() as connection:
        name, body = connection.exec_driver_sql("SELECT id, body FROM webhook_messages").one()
    assert open_body(seal, name, body) == b'{"type":"key.parked"}'


async def test_messages_keep_their_order(intake, deliveries):
    for n in range(1200):
        intake.add(message(f"msg_{n}"))
    await intake.flush()
    assert [delivery.id for delivery in reversed(deliveries())] == [f"msg_{n}" for n in range(200, 1200)]


async def test_too_many_messages_for_memory_are_dropped_counted_and_logged(intake, busy, caplog):
    for n in range(module.MOST_WAITING + 20):
        intake.add(message(f"msg_{n}"))
    # The first one was handed to the writer at once.
    assert intake.dropped == {1: 19}
    assert intake.waiting == module.MOST_WAITING
    assert [record.message for record in caplog.records] == [
        "too many messages wait for the webhook 1: new ones are dropped"
    ]
    busy()


async def test_too_many_bytes_for_memory_are_dropped(intake, busy):
    for n in range(130):
        intake.add(message(f"msg_{n}", body=b"x" * 256 * 1024))
    assert intake.dropped[1] == 130 - module.MOST_WAITING_BYTES // (256 * 1024)
    busy()


async def test_what_the_storage_refuses_waits_and_is_stored_later(intake, database, writer, deliveries, until):
    lock = sqlite3.connect(database.path, isolation_level=None, timeout=0.1)
    lock.execute("BEGIN IMMEDIATE")
    intake.add(message())
    await until(lambda: not writer.healthy)
    await intake.flush()
    assert intake.waiting == 1
    lock.execute("ROLLBACK")
    lock.close()
    await until(lambda: writer.healthy)
    intake.store()
    await intake.flush()
    assert [delivery.id for delivery in deliveries()] == ["msg_1"]
    assert not intake.dropped


async def test_a_message_that_can_never_be_stored_is_dropped(intake, caplog):
    caplog.set_level(logging.CRITICAL, "stellwerk.webhooks.intake")
    intake.add(message())
    intake.add(message())
    await intake.flush()
    assert intake.dropped == {1: 1}
    assert intake.waiting == 0


async def test_nobody_waits_for_ever_for_a_storage_that_is_closed(intake, writer, deliveries):
    writer.close(within=2)
    intake.add(message())
    await intake.flush()
    assert intake.waiting == 1
    assert deliveries() == []
