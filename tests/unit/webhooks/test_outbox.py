import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event

from stellwerk.core.errors import Conflict, NotFound
from stellwerk.webhooks import outbox, subscriptions
from stellwerk.webhooks.outbox import NewMessage, append, append_claimed, claim, find_delivery, retry, settle
from stellwerk.webhooks.schedule import Result, State
from stellwerk.webhooks.subscriptions import webhook_subscriptions

LEASE = 60.0
DAY = 86400.0


def message(name="msg_1", subscription_id=1, at=0.0, body=b"sealed", event="key.parked"):
    return NewMessage(id=name, subscription_id=subscription_id, event=event, body=body, created_at=at)


def arrived(at=0.0):
    return Result(at=at, status=200, milliseconds=12)


def failed(at=0.0, status=500):
    return Result(at=at, status=status, milliseconds=12, error="The receiver answered 500.")


@pytest.fixture
def call(database, subscribe):
    subscribe()

    def run(work, *arguments, **named):
        return database.write(lambda connection: work(connection, *arguments, **named))

    return run


@pytest.fixture
def take(call):
    def run(now=0.0, owner="a" * 16, subscription_id=1):
        return call(claim, subscription_id, owner=owner, now=now, until=now + LEASE)

    return run


def test_messages_are_claimed_in_their_order(call, take):
    call(append, [message("msg_1"), message("msg_2"), message("msg_3", at=-1.0)])
    assert [take().id for _ in range(3)] == ["msg_3", "msg_1", "msg_2"]
    assert take() is None


def test_a_claimed_message_is_nobody_elses_until_its_lease_is_over(call, take):
    call(append, [message()])
    first = take(0.0)
    assert take(LEASE - 0.1, owner="b" * 16) is None
    second = take(LEASE, owner="b" * 16)
    assert second.id == first.id
    assert second.lease != first.lease


def test_who_has_lost_the_lease_settles_nothing(call, take):
    call(append, [message()])
    late, now = take(0.0), LEASE
    current = take(now, owner="b" * 16)
    assert call(settle, late, failed(now), now=now, chance=0.5) is None
    assert call(find_delivery, "msg_1").attempts == 0
    assert call(settle, current, arrived(now), now=now, chance=0.5).state is State.DELIVERED
    assert call(settle, current, arrived(now), now=now, chance=0.5) is None
    assert call(find_delivery, "msg_1").attempts == 1


def test_a_process_that_stops_gives_back_what_it_has_claimed(call, take):
    call(append, [message("msg_1"), message("msg_2")])
    take(0.0, owner="a" * 16)
    take(0.0, owner="b" * 16)
    call(outbox.release, "a" * 16, 1.0)
    assert take(1.0, owner="c" * 16).id == "msg_1"
    assert take(1.0, owner="c" * 16) is None


def test_what_every_process_has_claimed_is_given_back_together(call, take):
    call(append, [message("msg_1"), message("msg_2"), message("msg_3")])
    take(0.0, owner="a" * 16)
    take(0.0, owner="b" * 16)
    call(outbox.release, "", 1.0)
    assert {take(1.0, owner="c" * 16).id for _ in range(3)} == {"msg_1", "msg_2", "msg_3"}


def test_the_log_says_what_came_of_each_delivery(call, take):
    call(append, [message()])
    call(settle, take(0.0), failed(0.0), now=0.0, chance=0.5)
    waiting = call(find_delivery, "msg_1")
    assert (waiting.state, waiting.next_attempt_at, waiting.settled_at) == (State.PENDING, 5.0, None)
    call(settle, take(5.0), arrived(5.0), now=5.0, chance=0.5)
    done = call(find_delivery, "msg_1")
    assert (done.state, done.next_attempt_at, done.settled_at, done.attempts) == (State.DELIVERED, None, 5.0, 2)
    assert [(attempt.at, attempt.status, attempt.error) for attempt in done.log] == [
        (0.0, 500, "The receiver answered 500."),
        (5.0, 200, None),
    ]


def test_the_content_is_deleted_as_soon_as_it_has_arrived(call, take, database):
    call(append, [message()])
    call(settle, take(), arrived(), now=0.0, chance=0.5)
    with database.reading.begin() as connection:
        assert connection.exec_driver_sql("SELECT body FROM webhook_messages").scalar_one() is None


def test_a_receiver_fails_from_the_first_failure_to_the_next_success(call, take):
    call(append, [message("msg_1"), message("msg_2"), message("msg_3")])
    call(settle, take(), failed(10.0), now=10.0, chance=0.5)
    call(settle, take(), failed(11.0), now=11.0, chance=0.5)
    assert call(subscriptions.get, 1).failing_since == 10.0
    call(settle, take(), arrived(12.0), now=12.0, chance=0.5)
    assert call(subscriptions.get, 1).failing_since is None


def test_two_failures_with_days_between_them_do_not_switch_a_receiver_off(call, take):
    call(append, [message("msg_1"), message("msg_2"), message("msg_3")])
    call(settle, take(), failed(), now=0.0, chance=0.5)
    later = 6 * DAY
    assert call(settle, take(later), failed(later), now=later, chance=0.5).disabled_reason is None
    assert call(subscriptions.get, 1).failing_since == later
    # Five days without such a gap do.
    for day in (7, 8, 9, 10, 11):
        verdict = call(settle, take(day * DAY), failed(day * DAY), now=day * DAY, chance=0.5)
    assert verdict.disabled_reason == "All deliveries of five days have failed."


def test_a_failure_of_long_ago_is_forgotten_with_the_next_success(call, take):
    call(append, [message("msg_1"), message("msg_2")])
    call(settle, take(), failed(), now=0.0, chance=0.5)
    call(settle, take(6 * DAY), arrived(6 * DAY), now=6 * DAY, chance=0.5)
    assert call(subscriptions.get, 1).failing_since is None


def test_there_is_room_for_a_bounded_number_of_messages(call, take):
    messages = [message(f"msg_{n}") for n in range(5)]
    assert call(append, messages, most=3) == {1: 2}
    assert call(append, [message("msg_6")], most=3) == {1: 1}
    call(settle, take(), arrived(), now=0.0, chance=0.5)
    assert call(append, [message("msg_7")], most=3) == {}


def test_there_is_room_for_a_bounded_number_of_bytes(call):
    assert call(append, [message("msg_1", body=bytes(60)), message("msg_2", body=bytes(60))], most_bytes=100) == {1: 1}


def test_one_full_receiver_takes_no_room_from_another(call, subscribe):
    subscribe()
    assert call(append, [message("a"), message("b"), message("c", 2)], most=1) == {1: 1}
    assert [delivery.id for delivery in call(outbox.list_deliveries, 2)] == ["c"]


@pytest.mark.parametrize("change", [subscriptions.delete, lambda *of: subscriptions.disable(*of, "off")])
def test_nothing_is_stored_for_a_subscription_that_ended_meanwhile(call, change):
    call(change, 1)
    assert call(append, [message()]) == {}
    assert call(outbox.list_deliveries, 1) == []
    with pytest.raises(Conflict):
        call(append_claimed, message(event="test"), owner="a" * 16, until=1.0)


def test_deleting_a_subscription_deletes_its_messages_and_their_log(call, take):
    call(append, [message("msg_1"), message("msg_2")])
    claimed = take()
    call(settle, take(), failed(), now=0.0, chance=0.5)
    call(subscriptions.delete, 1)
    assert call(settle, claimed, arrived(), now=0.0, chance=0.5) is None
    with pytest.raises(NotFound):
        call(find_delivery, "msg_1")


def test_a_failed_message_can_be_sent_again_by_hand_under_its_id(call, take):
    call(append, [message(event="test")])
    call(settle, take(), failed(), now=0.0, chance=0.5)
    assert call(find_delivery, "msg_1").state is State.FAILED
    again = call(retry, "msg_1", 100.0)
    assert (again.state, again.next_attempt_at, again.attempts) == (State.PENDING, 100.0, 0)
    assert take(100.0).id == "msg_1"


def test_a_message_that_waits_can_be_hurried_and_one_on_its_way_is_left_alone(call, take):
    call(append, [message()])
    call(settle, take(), failed(), now=0.0, chance=0.5)
    assert call(retry, "msg_1", 1.0).next_attempt_at == 1.0
    take(1.0)
    assert call(retry, "msg_1", 2.0).next_attempt_at == 1.0 + LEASE


def test_what_has_arrived_cannot_be_sent_again(call, take):
    call(append, [message()])
    call(settle, take(), arrived(), now=0.0, chance=0.5)
    with pytest.raises(Conflict) as caught:
        call(retry, "msg_1", 1.0)
    assert caught.value.code == "delivery_gone"
    with pytest.raises(NotFound):
        call(retry, "msg_2", 1.0)


def test_deliveries_are_listed_newest_first(call):
    call(append, [message(f"msg_{n}") for n in range(5)])
    assert [delivery.id for delivery in call(outbox.list_deliveries, 1, 2)] == ["msg_4", "msg_3"]
    assert call(outbox.list_deliveries, 1, -1) == []


def test_due_is_asked_for_each_subscription(call, subscribe):
    subscribe()
    call(append, [message("a", at=5.0), message("b", 2, at=10.0)])
    assert call(outbox.due_subscriptions, [1, 2, 3], 4.9) == []
    assert call(outbox.due_subscriptions, [1, 2, 3], 5.0) == [1]
    assert call(outbox.due_subscriptions, [2], 10.0) == [2]


# --- a model: what may happen in any order

steps = st.lists(
    st.one_of(
        st.just(("append",)),
        st.tuples(st.just("claim"), st.integers(0, 1)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 10.0, 61.0, 4000.0])),
        st.tuples(st.just("stop"), st.integers(0, 1)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(steps)
def test_every_message_is_settled_once_and_never_held_by_two(moves):
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys=ON"))
    webhook_subscriptions.metadata.create_all(
        engine, [webhook_subscriptions, outbox.webhook_messages, outbox.webhook_attempts]
    )
    with engine.begin() as connection:
        subscriptions.create(connection, url="http://a.example", events=["key.parked"], secret=b"s", now=0.0)
        Model(connection).play(moves)
    engine.dispose()


class Model:
    """What must be true of an outbox, beside the real one."""

    def __init__(self, connection):
        self.connection = connection
        self.now = 0.0
        self.numbers = itertools.count()
        self.held = {}
        """Claims whose lease has neither ended nor been settled, by message."""
        self.claims = []
        self.done = set()
        self.known = []

    def play(self, moves):
        for name, *arguments in moves:
            getattr(self, name)(*arguments)
            self.check()
        self.drain()

    def append(self):
        name = f"msg_{next(self.numbers)}"
        append(self.connection, [message(name, at=self.now)])
        self.known.append(name)

    def claim(self, process):
        owner = "ab"[process] * 16
        claimed = claim(self.connection, 1, owner=owner, now=self.now, until=self.now + LEASE)
        if claimed is not None:
            assert claimed.id not in self.done
            assert claimed.id not in self.held
            self.held[claimed.id] = (claimed, process, self.now + LEASE)
            self.claims.append(claimed)

    def settle(self, which, success):
        if not self.claims:
            return
        claimed = self.claims[which % len(self.claims)]
        known = find_delivery(self.connection, claimed.id)
        result = arrived(self.now) if success else failed(self.now)
        verdict = settle(self.connection, claimed, result, now=self.now, chance=0.5)
        holds = claimed.id in self.held and self.held[claimed.id][0] is claimed
        # A lease that is over still settles as long as nobody else has taken the message.
        if holds:
            assert verdict is not None
        if verdict is None:
            assert find_delivery(self.connection, claimed.id) == known
            return
        self.held.pop(claimed.id, None)
        if verdict.state is not State.PENDING:
            assert claimed.id not in self.done
            self.done.add(claimed.id)

    def wait(self, seconds):
        self.now += seconds
        self.held = {name: held for name, held in self.held.items() if held[2] > self.now}

    def stop(self, process):
        outbox.release(self.connection, "ab"[process] * 16, self.now)
        self.held = {name: held for name, held in self.held.items() if held[1] != process}

    def check(self):
        for name in self.known:
            delivery = find_delivery(self.connection, name)
            assert (delivery.state is not State.PENDING) == (name in self.done)
            assert delivery.attempts == len(delivery.log)

    def drain(self):
        """Whatever has happened: with a receiver that answers, everything arrives."""
        self.wait(100_000.0)
        while (claimed := claim(self.connection, 1, owner="c" * 16, now=self.now, until=self.now + LEASE)) is not None:
            assert claimed.id not in self.done
            settle(self.connection, claimed, arrived(self.now), now=self.now, chance=0.5)
            self.done.add(claimed.id)
        assert self.done == set(self.known)
