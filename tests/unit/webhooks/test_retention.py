import pytest

from stellwerk.core.errors import Conflict
from stellwerk.webhooks import retention
from stellwerk.webhooks.outbox import NewMessage, append, claim, find_delivery, list_deliveries, retry, settle
from stellwerk.webhooks.retention import prune
from stellwerk.webhooks.schedule import Result, State

DAY = 86_400.0


@pytest.fixture
def call(database, subscribe):
    subscribe()

    def run(work, *arguments, **named):
        return database.write(lambda connection: work(connection, *arguments, **named))

    return run


def deliver(connection, count, *, error=None, first=0):
    """So many messages at time 0, each tried once."""
    messages = [
        NewMessage(id=f"msg_{n}", subscription_id=1, event="test", body=b"sealed", created_at=0.0)
        for n in range(first, first + count)
    ]
    append(connection, messages)
    for _ in messages:
        claimed = claim(connection, 1, owner="a" * 16, now=0.0, until=60.0)
        settle(connection, claimed, Result(at=0.0, status=200, milliseconds=1, error=error), now=0.0, chance=0.5)


def counts(connection):
    messages = connection.exec_driver_sql("SELECT count(*) FROM webhook_messages").scalar_one()
    return messages, connection.exec_driver_sql("SELECT count(*) FROM webhook_attempts").scalar_one()


def test_only_the_newest_deliveries_are_remembered(call):
    call(deliver, retention.MOST_SETTLED + 20)
    call(prune, 1.0)
    assert call(counts) == (retention.MOST_SETTLED, retention.MOST_SETTLED)
    assert call(list_deliveries, 1, 1)[0].id == f"msg_{retention.MOST_SETTLED + 19}"


def test_deliveries_are_forgotten_after_thirty_days(call):
    call(deliver, 3)
    call(prune, 30 * DAY)
    assert call(counts) == (3, 3)
    call(prune, 30 * DAY + 1)
    assert call(counts) == (0, 0)


def test_a_failed_message_can_be_sent_again_for_three_days(call):
    call(deliver, 2, error="no")
    call(prune, 3 * DAY)
    assert call(retry, "msg_0", 3 * DAY).state is State.PENDING
    call(prune, 3 * DAY + 1)
    with pytest.raises(Conflict):
        call(retry, "msg_1", 3 * DAY + 1)


def test_what_waits_is_kept_for_five_days(call):
    call(append, [NewMessage(id="msg", subscription_id=1, event="key.parked", body=b"sealed", created_at=0.0)])
    call(prune, 5 * DAY)
    assert call(find_delivery, "msg").state is State.PENDING
    call(prune, 5 * DAY + 1)
    assert call(find_delivery, "msg").state is State.FAILED


def test_messages_that_wait_are_never_too_many_to_be_kept(call):
    call(deliver, retention.MOST_SETTLED)
    call(append, [NewMessage(id="msg", subscription_id=1, event="key.parked", body=b"sealed", created_at=0.0)])
    call(prune, 1.0)
    assert call(counts)[0] == retention.MOST_SETTLED + 1
