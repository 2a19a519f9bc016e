import asyncio
import multiprocessing
import os
import signal
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest
from standardwebhooks import Webhook

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Conflict, NotFound, Unavailable
from stellwerk.http.egress import Egress, EgressAnswer
from stellwerk.storage.database import open_database
from stellwerk.storage.sealing import Seal
from stellwerk.storage.writer import Writer
from stellwerk.webhooks import outbox, subscriptions
from stellwerk.webhooks.delivery import Webhooks
from stellwerk.webhooks.outbox import claim
from stellwerk.webhooks.schedule import State
from stellwerk.webhooks.signing import new_secret, seal_secret

MINUTE = 60.0


def answering(status=200, headers=()):
    async def script(talk):
        await talk.answer(b"", status=status, headers=headers)

    return script


async def refuse(talk):
    talk.cut()


@pytest.fixture(autouse=True)
def receiver(upstream):
    upstream.script = answering()
    return upstream


@pytest.fixture
def hook(subscribe, receiver):
    """A subscription of the scripted receiver."""

    def make(path="/hook", events=("key.parked",), **more):
        return subscribe(f"http://127.0.0.1:{receiver.port}{path}", events, **more)

    return make


@pytest.fixture
async def webhooks(make_webhooks, hook):
    """The webhooks of a process with one subscription to `key.parked`."""
    hook()
    made = make_webhooks()
    await made.refresh()
    return made


@pytest.fixture
def change(database):
    def run(work, *arguments, **named):
        return database.write(lambda connection: work(connection, *arguments, **named))

    return run


@asynccontextmanager
async def running(webhooks):
    task = asyncio.create_task(webhooks.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await webhooks.stop()


def numbers(receiver):
    return [request.json["data"]["number"] for request in receiver.requests]


def ids(receiver):
    return [request.headers["webhook-id"] for request in receiver.requests]


# --- arriving


async def test_an_event_arrives_signed(webhooks, receiver, signing_secret, deliveries):
    webhooks.publish("key.parked", {"provider": "groq", "number": 7})
    assert await webhooks.deliver_due() == 1
    [request] = receiver.requests
    body = Webhook(signing_secret.reveal()).verify(request.body, request.headers)
    assert (body["type"], body["data"]) == ("key.parked", {"provider": "groq", "number": 7})
    [delivery] = deliveries()
    assert (delivery.id, delivery.state) == (request.headers["webhook-id"], State.DELIVERED)
    assert (webhooks.delivered, webhooks.failed, webhooks.dropped) == (1, 0, 0)


async def test_a_receiver_that_was_down_for_ten_minutes_gets_each_event_once(
    webhooks, receiver, clock, signing_secret, deliveries
):
    clock.at -= 15 * MINUTE
    receiver.script = refuse
    for second in range(600):
        if second % 20 == 0:
            webhooks.publish("key.parked", {"number": second // 20})
        await webhooks.deliver_due()
        clock.at += 1
    tried = len(receiver.requests)
    # A receiver that is down is left alone, whatever waits for it: 1, 2, 4, … 60 seconds.
    assert 10 <= tried <= 20
    receiver.requests.clear()
    receiver.script = answering()
    for _ in range(20):
        clock.at += MINUTE
        await webhooks.deliver_due()
    assert sorted(numbers(receiver)) == list(range(30))
    assert len(set(ids(receiver))) == 30
    assert {delivery.state for delivery in deliveries()} == {State.DELIVERED}
    first = receiver.requests[0]
    # The clock is a little off the machine's by now, within what the library takes.
    assert Webhook(signing_secret.reveal()).verify(first.body, first.headers)


async def test_the_id_stays_the_same_over_all_tries_and_the_time_does_not(webhooks, receiver, clock):
    receiver.script = answering(500)
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.deliver_due()
    clock.at += 10
    await webhooks.deliver_due()
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert first.body == second.body


async def test_events_arrive_in_their_order(webhooks, receiver):
    for number in range(50):
        webhooks.publish("key.parked", {"number": number})
    assert await webhooks.deliver_due() == 50
    assert numbers(receiver) == list(range(50))


async def test_each_receiver_gets_what_it_wants(hook, make_webhooks, receiver):
    hook("/both", ("key.parked", "job.finished"))
    hook("/job", ("job.finished",))
    hook("/none", ("engine.crashed",))
    webhooks = make_webhooks()
    await webhooks.refresh()
    webhooks.publish("job.finished", {"number": 1})
    webhooks.publish("key.parked", {"number": 2})
    await webhooks.deliver_due()
    assert sorted((request.path, request.json["type"]) for request in receiver.requests) == [
        ("/both", "job.finished"),
        ("/both", "key.parked"),
        ("/job", "job.finished"),
    ]


async def test_a_message_of_a_transaction_is_kept_with_it(webhooks, receiver, database):
    def end_well(connection):
        webhooks.store(connection, "key.parked", {"number": 1})
        webhooks.store(connection, "job.finished", {"number": 2})

    def end_badly(connection):
        webhooks.store(connection, "key.parked", {"number": 3})
        raise Conflict("No.")

    database.write(end_well)
    with pytest.raises(Conflict):
        database.write(end_badly)
    assert await webhooks.deliver_due() == 1
    assert numbers(receiver) == [1]


async def test_a_message_of_a_transaction_that_cannot_be_written_is_counted(webhooks, database):
    database.write(lambda connection: webhooks.store(connection, "key.parked", {"number": object()}))
    assert webhooks.dropped == webhooks.dropped_of(1) == 1


async def test_a_generate_request_reaches_each_receiver_as_it_wants_it(hook, make_webhooks, receiver):
    hook("/plain", ("generate.requested",))
    hook("/all", ("generate.requested",), with_images=True, with_key=True)
    webhooks = make_webhooks()
    await webhooks.refresh()
    data = {"apikey": "0123456789", "prompt": "p", "model": "m", "stream": True, "images": ["aQ=="], "raw": False}
    webhooks.publish("generate.requested", data)
    await webhooks.deliver_due()
    bodies = {request.path: request.json for request in receiver.requests}
    for body in bodies.values():
        assert body.pop("timestamp").endswith("Z")
    assert bodies == {"/plain": {**data, "apikey": "0123…", "images": []}, "/all": data}


async def test_a_secret_that_was_replaced_still_verifies_for_a_day(
    webhooks, receiver, change, seal, signing_secret, clock
):
    new = new_secret()
    change(subscriptions.change, 1, now=clock.now(), secret=seal_secret(seal, new))
    await webhooks.refresh()
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.deliver_due()
    [request] = receiver.requests
    for secret in (new, signing_secret):
        assert Webhook(secret.reveal()).verify(request.body, request.headers)
    clock.at += subscriptions.ROTATION_SECONDS
    await webhooks.refresh()
    webhooks.publish("key.parked", {"number": 2})
    await webhooks.deliver_due()
    assert len(receiver.requests[1].headers["webhook-signature"].split()) == 1


# --- nobody wants it


async def test_what_nobody_wants_costs_nothing(webhooks, deliveries):
    assert webhooks.wants("key.parked")
    assert not webhooks.wants("job.finished")
    webhooks.publish("job.finished", {"anything": object()})
    assert await webhooks.deliver_due() == 0
    assert deliveries() == []


async def test_what_is_no_json_is_dropped_and_counted(webhooks, caplog):
    webhooks.publish("key.parked", {"anything": object()})
    assert webhooks.dropped == webhooks.dropped_of(1) == 1
    assert "cannot be told to webhooks" in caplog.text


async def test_changes_of_subscriptions_are_taken_over(webhooks, change, clock):
    change(subscriptions.change, 1, now=clock.now(), events=["job.finished"])
    await webhooks.refresh()
    assert webhooks.wants("job.finished")
    assert not webhooks.wants("key.parked")
    change(subscriptions.change, 1, now=clock.now(), active=False)
    await webhooks.refresh()
    assert not webhooks.wants("job.finished")


async def test_a_subscription_whose_secret_cannot_be_read_is_left_alone(subscribe, make_webhooks, receiver, caplog):
    subscribe(f"http://127.0.0.1:{receiver.port}/", ("key.parked",), secret=seal_secret(Seal(bytes(32)), new_secret()))
    webhooks = make_webhooks()
    await webhooks.refresh()
    webhooks.publish("key.parked", {"number": 1})
    assert await webhooks.deliver_due() == 0
    assert receiver.requests == []
    assert "the secret of the webhook 1 cannot be read" in caplog.text


# --- failing


async def test_410_switches_the_subscription_off_with_the_reason(webhooks, receiver, subscription, deliveries):
    receiver.script = answering(410)
    for number in range(3):
        webhooks.publish("key.parked", {"number": number})
    assert await webhooks.deliver_due() == 1
    assert (subscription().active, subscription().disabled_reason) == (False, "The receiver answered 410 Gone.")
    assert not webhooks.wants("key.parked")
    assert [delivery.state for delivery in reversed(deliveries())] == [State.FAILED, State.PENDING, State.PENDING]


async def test_what_waited_goes_out_when_the_subscription_is_switched_on_again(webhooks, receiver, clock, change):
    receiver.script = answering(410)
    for number in range(3):
        webhooks.publish("key.parked", {"number": number})
    await webhooks.deliver_due()
    receiver.script = answering()
    change(subscriptions.change, 1, now=clock.now(), active=True)
    await webhooks.refresh()
    clock.at += 10
    await webhooks.deliver_due()
    assert numbers(receiver) == [0, 1, 2]


async def test_five_days_of_failures_switch_the_subscription_off(webhooks, receiver, clock, subscription):
    receiver.script = answering(500)
    start = clock.at
    while subscription().active and clock.at < start + 7 * 86400:
        webhooks.publish("key.parked", {"number": 1})
        await webhooks.deliver_due()
        clock.at += 6 * 3600
    assert subscription().disabled_reason == "All deliveries of five days have failed."
    assert 5 * 86400 <= clock.at - start <= 5.5 * 86400


async def test_a_redirect_is_a_failure(webhooks, receiver, deliveries):
    receiver.script = answering(302, [("location", f"http://127.0.0.1:{receiver.port}/other")])
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.deliver_due()
    assert [request.path for request in receiver.requests] == ["/hook"]
    [delivery] = deliveries()
    assert (delivery.state, delivery.log[0].status) == (State.PENDING, 302)


async def test_a_receiver_that_asks_for_a_pause_gets_it(webhooks, receiver, clock, deliveries):
    receiver.script = answering(429, [("retry-after", "300")])
    for number in range(3):
        webhooks.publish("key.parked", {"number": number})
    assert await webhooks.deliver_due() == 1
    receiver.script = answering()
    clock.at += 299
    assert await webhooks.deliver_due() == 0
    clock.at += 100
    assert await webhooks.deliver_due() == 3


async def test_a_message_that_fails_for_good_has_been_tried_eleven_times(webhooks, receiver, clock, deliveries):
    receiver.script = answering(500)
    webhooks.publish("key.parked", {"number": 1})
    for _ in range(40):
        await webhooks.deliver_due()
        clock.at += 3 * 3600
    assert len(receiver.requests) == 11
    assert deliveries()[0].state is State.FAILED


async def test_a_receiver_with_one_bad_message_gets_the_others(webhooks, receiver, clock):
    async def picky(talk):
        await talk.answer(b"", status=500 if talk.request.json["data"]["number"] == 0 else 200)

    receiver.script = picky
    for number in range(5):
        webhooks.publish("key.parked", {"number": number})
    assert await webhooks.deliver_due() == 1
    clock.at += 2
    assert await webhooks.deliver_due() == 4


async def test_a_message_that_nobody_can_open_any_more_is_logged_as_such(webhooks, database, receiver, deliveries):
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.stop()
    database.write(lambda connection: connection.exec_driver_sql("UPDATE webhook_messages SET body = x'01'"))
    await webhooks.deliver_due()
    assert receiver.requests == []
    assert deliveries()[0].log[0].error.startswith("The message was sealed with a secret")


async def test_a_dead_receiver_does_not_hold_up_the_others(hook, make_webhooks, receiver, until):
    async def script(talk):
        if talk.request.path == "/hangs":
            await talk.left.wait()
        else:
            await talk.answer(b"")

    receiver.script = script
    for path in ("/hangs", "/well"):
        hook(path)
    webhooks = make_webhooks(timeout_seconds=30)
    await webhooks.refresh()
    async with running(webhooks):
        for number in range(5):
            webhooks.publish("key.parked", {"number": number})
        await until(lambda: sum(request.path == "/well" for request in receiver.requests) == 5)
    assert sum(request.path == "/hangs" for request in receiver.requests) == 1


async def test_only_so_many_receivers_are_served_at_once(hook, make_webhooks):
    for _ in range(6):
        hook()
    busy, most, release = 0, 0, asyncio.Event()

    async def send(*arguments, **named):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        if busy == 2:
            release.set()
        await release.wait()
        await asyncio.sleep(0)
        busy -= 1
        return EgressAnswer(status=200, headers={}, body=b"")

    webhooks = make_webhooks(send, concurrent=2)
    await webhooks.refresh()
    webhooks.publish("key.parked", {"number": 1})
    assert await webhooks.deliver_due() == 6
    assert most == 2


# --- the outbox is full


async def test_too_much_for_one_receiver_is_dropped_counted_and_logged(
    webhooks, receiver, database, caplog, deliveries, clock
):
    receiver.script = refuse
    webhooks.publish("key.parked", {"number": 0})
    await webhooks.stop()
    # As if the rest were there already: the size of what waits counts as well as its number.
    limit = outbox.MOST_PENDING_BYTES
    database.write(lambda connection: connection.exec_driver_sql(f"UPDATE webhook_messages SET size = {limit}"))
    webhooks.publish("key.parked", {"number": 1})
    webhooks.publish("key.parked", {"number": 2})
    await webhooks.stop()
    assert webhooks.dropped_of(1) == 2
    assert caplog.text.count("too many messages wait for the webhook 1") == 1
    receiver.script = answering()
    clock.at += 1
    await webhooks.deliver_due()
    webhooks.publish("key.parked", {"number": 3})
    await webhooks.deliver_due()
    assert numbers(receiver) == [0, 3]


# --- running, stopping, dying


async def test_a_running_gateway_delivers_without_being_asked(webhooks, receiver, until):
    async with running(webhooks):
        for number in range(3):
            webhooks.publish("key.parked", {"number": number})
        await until(lambda: webhooks.delivered == 3)
    assert numbers(receiver) == [0, 1, 2]


async def test_what_was_not_delivered_before_the_stop_is_delivered_after_the_start(
    webhooks, make_webhooks, receiver, until
):
    async def hang(talk):
        await talk.left.wait()

    receiver.script = hang
    async with running(webhooks):
        for number in range(3):
            webhooks.publish("key.parked", {"number": number})
        await until(lambda: receiver.requests)
    receiver.requests.clear()
    receiver.script = answering()
    restarted = make_webhooks()
    await restarted.refresh()
    # At once: who stops in good order leaves no lease behind.
    assert await restarted.deliver_due() == 3
    assert sorted(numbers(receiver)) == [0, 1, 2]


async def test_what_was_published_last_is_stored_when_the_gateway_stops(webhooks, deliveries):
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.stop()
    assert len(deliveries()) == 1


def die_in_the_middle(folder, now):
    """Runs in a process of its own, which is killed while it sends."""

    async def main():
        class Standing(SystemClock):
            def now(self):
                return now

        database = open_database(folder)
        writer = Writer(database.writing)

        async def send(*arguments, **named):
            os.kill(os.getpid(), signal.SIGKILL)

        webhooks = Webhooks(
            run=writer.run,
            submit=writer.submit,
            fetch=database.fetch,
            send=send,
            seal=Seal(bytes(range(32))),
            clock=Standing(),
        )
        await webhooks.refresh()
        webhooks.publish("key.parked", {"number": 1})
        await webhooks.deliver_due()

    asyncio.run(main())


async def test_a_process_killed_in_the_middle_of_a_delivery_loses_nothing(hook, make_webhooks, folder, receiver, clock):
    hook()
    process = multiprocessing.get_context("spawn").Process(target=die_in_the_middle, args=(folder, clock.now()))
    process.start()
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode == -signal.SIGKILL
    webhooks = make_webhooks()
    await webhooks.refresh()
    assert await webhooks.deliver_due() == 0
    clock.at += 60
    assert await webhooks.deliver_due() == 1
    assert numbers(receiver) == [1]


async def test_two_gateways_on_one_database_deliver_each_message_once(hook, make_webhooks, database, receiver):
    hook()
    second_writer = Writer(database.writing)
    pair = make_webhooks(), make_webhooks(writer=second_writer)
    for webhooks in pair:
        await webhooks.refresh()
    for number in range(40):
        pair[number % 2].publish("key.parked", {"number": number})
    await asyncio.gather(*(webhooks.stop() for webhooks in pair))
    tried = await asyncio.gather(*(webhooks.deliver_due() for webhooks in pair))
    second_writer.close(within=2)
    assert sum(tried) == 40
    assert sorted(numbers(receiver)) == list(range(40))


def deliver_for_a_while(folder, port, go, done):
    """Runs in a process of its own: delivers until nothing is due any more, and says how much it was."""

    async def main():
        database = open_database(folder)
        writer = Writer(database.writing)
        webhooks = Webhooks(
            run=writer.run,
            submit=writer.submit,
            fetch=database.fetch,
            send=Egress(lambda: [f"http://127.0.0.1:{port}"]).send,
            seal=Seal(bytes(range(32))),
            clock=SystemClock(),
        )
        await webhooks.refresh()
        go.wait(60)
        done.put(await webhooks.deliver_due())
        writer.close()
        database.close()

    asyncio.run(main())


async def test_two_processes_deliver_each_message_once(webhooks, folder, receiver):
    for number in range(60):
        webhooks.publish("key.parked", {"number": number})
    await webhooks.stop()
    context = multiprocessing.get_context("spawn")
    go, done = context.Barrier(2), context.Queue()
    processes = [context.Process(target=deliver_for_a_while, args=(folder, receiver.port, go, done)) for _ in range(2)]
    for process in processes:
        process.start()
    tried = [await asyncio.to_thread(done.get, timeout=120) for _ in processes]
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert sum(tried) == 60
    assert sorted(numbers(receiver)) == list(range(60))


async def test_a_storage_that_is_away_stops_deliveries_and_not_the_gateway(
    webhooks, writer, database, receiver, until, deliveries
):
    async with running(webhooks) as task:
        with closing(sqlite3.connect(database.path, isolation_level=None, timeout=30)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            webhooks.publish("key.parked", {"number": 1})
            await until(lambda: not writer.healthy)
            assert receiver.requests == []
            lock.execute("ROLLBACK")
        await until(lambda: writer.healthy)
        webhooks.publish("key.parked", {"number": 2})
        await until(lambda: webhooks.delivered == 2)
        assert not task.done()
    assert numbers(receiver) == [1, 2]


async def test_refresh_tells_that_the_storage_is_away(make_webhooks):
    async def fetch(query):
        raise Unavailable("The gateway cannot reach its storage.", code="storage_unavailable")

    webhooks = make_webhooks(fetch=fetch)
    with pytest.raises(Unavailable):
        await webhooks.refresh()


# --- for admins


async def test_a_test_message_is_sent_at_once_and_tells_what_came_of_it(webhooks, receiver, signing_secret):
    delivery = await webhooks.send_test(1)
    assert (delivery.event, delivery.state, delivery.attempts) == ("test", State.DELIVERED, 1)
    assert delivery.log[0].status == 200
    [request] = receiver.requests
    body = Webhook(signing_secret.reveal()).verify(request.body, request.headers)
    assert body["type"] == "test"
    assert body["data"] == {"webhook": 1, "description": ""}


async def test_a_test_that_fails_is_not_repeated(webhooks, receiver, clock):
    receiver.script = answering(500)
    delivery = await webhooks.send_test(1)
    assert (delivery.state, delivery.log[0].error) == (State.FAILED, "The receiver answered 500.")
    clock.at += 3600
    assert await webhooks.deliver_due() == 0


async def test_a_test_can_wait_in_the_outbox_too(webhooks, change, receiver):
    message_id = change(webhooks.enqueue_test, 1)
    assert await webhooks.deliver_due() == 1
    assert ids(receiver) == [message_id]


async def test_only_a_subscription_that_is_on_can_be_tested(webhooks, change):
    with pytest.raises(NotFound):
        await webhooks.send_test(7)
    change(subscriptions.disable, 1, "off")
    with pytest.raises(Conflict):
        await webhooks.send_test(1)


async def test_a_failed_message_is_sent_again_by_hand(webhooks, receiver, change, clock, deliveries):
    receiver.script = answering(410)
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.deliver_due()
    [failed] = deliveries()
    change(subscriptions.change, 1, now=clock.now(), active=True)
    change(webhooks.retry, failed.id)
    receiver.script = answering()
    await webhooks.refresh()
    clock.at += 10
    assert await webhooks.deliver_due() == 1
    assert ids(receiver) == [failed.id, failed.id]


# --- secrets


async def test_no_secret_and_no_content_lies_in_the_clear_in_the_database(
    hook, make_webhooks, database, receiver, signing_secret, folder
):
    hook("/hook", ("generate.requested",), with_key=True)
    webhooks = make_webhooks()
    await webhooks.refresh()
    receiver.script = answering(500)
    data = {"apikey": "canary-of-the-key-0123", "prompt": "canary of the prompt", "model": "m"}
    webhooks.publish("generate.requested", data)
    await webhooks.deliver_due()
    secret = signing_secret.reveal().removeprefix("whsec_")
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("SELECT length(body) > 100 FROM webhook_messages").fetchone() == (1,)
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for canary in (data["apikey"], data["prompt"], secret, "whsec_"):
        assert canary.encode() not in stored


async def test_the_log_names_neither_content_nor_address(webhooks, receiver, caplog):
    caplog.set_level("DEBUG", "stellwerk")
    receiver.script = answering(410)
    webhooks.publish("key.parked", {"canary": "of the content"})
    await webhooks.deliver_due()
    assert "is switched off" in caplog.text
    for canary in ("of the content", "127.0.0.1", "whsec_"):
        assert canary not in caplog.text


async def test_a_claim_of_somebody_else_is_not_touched(webhooks, change, receiver, clock):
    webhooks.publish("key.parked", {"number": 1})
    await webhooks.stop()
    now = clock.now()
    assert change(claim, 1, owner="b" * 16, now=now, until=now + 60)
    assert await webhooks.deliver_due() == 0
    assert receiver.requests == []
