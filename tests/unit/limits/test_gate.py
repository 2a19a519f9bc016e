import asyncio
from contextlib import suppress
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from stellwerk.core.call import Call, Operation, Place, Wire
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import Principal, Priority, Role
from stellwerk.limits.gate import AGING_SECONDS, Gate, Gates, GateSettings


def call(client=1, priority=Priority.NORMAL, deadline=1e12, place=None, background=False):
    return Call(
        id="req_1",
        operation=Operation.CHAT,
        wire=Wire.OPENAI_CHAT,
        model="m",
        fields={},
        principal=Principal(key_id="k", name="k", role=Role.USER, user_id=client),
        received=0.0,
        deadline=deadline,
        priority=priority,
        place=place,
        background=background,
    )


class Turns:
    """Calls at one gate; `order` is who had a turn, in their order."""

    def __init__(self, gate):
        self.gate = gate
        self.order = []
        self.tasks = {}

    async def send(self, name, one):
        async def enter():
            await self.gate.enter(one)
            self.order.append(name)

        self.tasks[name] = asyncio.create_task(enter())
        await self.settle()

    async def leave(self):
        self.gate.leave()
        await self.settle()

    @staticmethod
    async def settle():
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def make(clock):
    return lambda width=1, **more: Turns(Gate("m", GateSettings(max_concurrent=width, **more), clock))


async def test_as_many_calls_run_as_the_gate_is_wide_and_the_others_wait_for_them(make):
    turns = make(2)
    for name in "abcd":
        await turns.send(name, call())
    assert turns.order == ["a", "b"]
    await turns.leave()
    assert turns.order == ["a", "b", "c"]
    await turns.leave()
    assert turns.order == ["a", "b", "c", "d"]
    status = turns.gate.status()
    assert (status.running, status.waiting) == (2, 0)


async def test_the_more_urgent_comes_first(make):
    turns = make()
    await turns.send("running", call())
    for name, priority in [("low", Priority.LOW), ("normal", Priority.NORMAL), ("high", Priority.HIGH)]:
        await turns.send(name, call(priority=priority))
    for _ in range(3):
        await turns.leave()
    assert turns.order == ["running", "high", "normal", "low"]


async def test_calls_that_nobody_waits_for_come_after_all_others_until_they_have_aged(make, clock):
    turns = make()
    await turns.send("first", call())
    await turns.send("job", call(2, Priority.HIGH, background=True))
    await turns.send("low", call(3, Priority.LOW))
    await turns.leave()
    assert turns.order == ["first", "low"]
    clock.at += 3 * AGING_SECONDS
    await turns.send("high", call(3, Priority.HIGH))
    await turns.leave()
    assert turns.order == ["first", "low", "job"]


async def test_a_low_call_begins_within_a_minute_under_endless_high_ones(make, clock):
    turns = make()
    await turns.send("running", call(client=1))
    await turns.send("low", call(client=1, priority=Priority.LOW))
    for second in range(60):
        clock.at += 1
        await turns.send(f"high {second}", call(client=1, priority=Priority.HIGH))
        await turns.leave()
        if "low" in turns.order:
            break
    assert "low" in turns.order
    assert clock.at - 1_000_000 <= 2 * AGING_SECONDS + 1
    for task in turns.tasks.values():
        task.cancel()


async def test_a_client_with_many_calls_lets_one_with_a_single_call_pass(make):
    turns = make()
    await turns.send("running", call(client=1))
    for number in range(5):
        await turns.send(f"many {number}", call(client=1))
    await turns.send("single", call(client=2))
    await turns.leave()
    await turns.leave()
    assert turns.order[1:] == ["many 0", "single"] or turns.order[1:] == ["single", "many 0"]
    for _ in range(4):
        await turns.leave()
    assert turns.order[-4:] == ["many 1", "many 2", "many 3", "many 4"]


async def test_two_clients_with_many_calls_take_turns(make):
    turns = make()
    await turns.send("running", call(client=3))
    for number in range(4):
        await turns.send(f"a{number}", call(client=1))
    for number in range(4):
        await turns.send(f"b{number}", call(client=2))
    for _ in range(8):
        await turns.leave()
    letters = "".join(name[0] for name in turns.order[1:])
    assert letters == "abababab"


async def test_a_full_room_refuses_at_once_and_says_when_to_come_back(make):
    turns = make(1, max_waiting=2)
    for name in "abc":
        await turns.send(name, call())
    with pytest.raises(Unavailable) as refused:
        await turns.gate.enter(call())
    assert (refused.value.code, refused.value.status, refused.value.may_fall_back) == ("queue_full", 503, True)
    assert 1 <= refused.value.retry_after <= 60
    for task in turns.tasks.values():
        task.cancel()


async def test_who_waits_too_long_is_told_so_and_keeps_no_place(make):
    turns = make(1, max_wait_seconds=0.01)
    await turns.send("a", call())
    with pytest.raises(Unavailable) as refused:
        await turns.gate.enter(call())
    assert refused.value.code == "queue_timeout"
    assert turns.gate.status().waiting == 0
    turns.gate.leave()
    assert turns.gate.idle


async def test_a_call_does_not_wait_past_its_deadline(make, clock):
    turns = make()
    await turns.send("a", call())
    with pytest.raises(Unavailable) as refused:
        await turns.gate.enter(call(deadline=clock.at + 0.01))
    assert refused.value.code == "queue_timeout"


async def test_a_client_that_leaves_the_line_holds_nobody_up(make):
    turns = make()
    for name in "abc":
        await turns.send(name, call())
    turns.tasks["b"].cancel()
    await turns.settle()
    await turns.leave()
    assert turns.order == ["a", "c"]


async def test_a_client_that_leaves_in_the_moment_of_its_turn_gives_it_on(make):
    turns = make()
    for name in "abc":
        await turns.send(name, call())
    turns.gate.leave()
    turns.tasks["b"].cancel()
    await turns.settle()
    assert turns.order == ["a", "c"]
    turns.gate.leave()
    assert turns.gate.idle


async def test_who_waits_hears_its_place_as_it_changes(clock):
    turns = Turns(Gate("m", GateSettings(max_concurrent=1), clock, apart_seconds=0))
    await turns.send("a", call())
    heard = {"b": [], "c": []}
    for name, said in heard.items():
        place = Place()
        place.listener = said.append
        await turns.send(name, call(place=place))
        assert place.first == 1 + list(heard).index(name)
    await turns.leave()
    changes = {name: [place for place, _ in groupby(said)] for name, said in heard.items()}
    assert changes == {"b": [1], "c": [2, 1]}
    turns.tasks["c"].cancel()
    await turns.settle()


async def test_who_waits_hears_its_place_again_though_nothing_changes(clock):
    turns = Turns(Gate("m", GateSettings(max_concurrent=1), clock, again_seconds=0.001))
    heard, enough, place = [], asyncio.Event(), Place()

    def listen(number):
        heard.append(number)
        if len(heard) == 4:
            enough.set()

    place.listener = listen
    await turns.send("a", call())
    await turns.send("b", call(place=place))
    async with asyncio.timeout(30):
        await enough.wait()
    assert set(heard) == {1}
    await turns.leave()
    assert turns.order == ["a", "b"]


async def test_a_wider_gate_lets_the_waiting_in_and_one_that_is_taken_away_lets_all_in(clock):
    known = {"m": GateSettings(max_concurrent=1)}
    gates = Gates(known.get, clock)
    turns = Turns(gates.find("m"))
    for name in "abcd":
        await turns.send(name, call())
    known["m"] = GateSettings(max_concurrent=2)
    assert gates.find("m") is turns.gate
    await turns.settle()
    assert turns.order == ["a", "b"]
    del known["m"]
    assert gates.find("m") is None
    await turns.settle()
    assert turns.order == ["a", "b", "c", "d"]
    assert gates.status() == []


async def test_a_thousand_that_come_at_once_hold_nobody_up(clock):
    turns = Turns(Gate("m", GateSettings(max_concurrent=1, max_waiting=1000), clock))
    ordered = []
    in_order = turns.gate.in_order
    turns.gate.in_order = lambda: ordered.append(1) or in_order()
    entered = [asyncio.create_task(turns.gate.enter(call(place=Place()))) for _ in range(1001)]
    await turns.settle()
    assert turns.gate.status().waiting == 1000
    assert len(ordered) <= 2
    for task in entered:
        task.cancel()
    await asyncio.wait(entered)


class _Clock:
    at = 0.0

    def now(self):
        return self.at

    monotonic = now


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from(list(Priority))),
        st.tuples(st.just("leave")),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("pass"), st.integers(1, 90)),
        st.tuples(st.just("widen"), st.integers(1, 4)),
    ),
    max_size=60,
)


@profile(max_examples=200)
@given(STEPS)
async def test_never_do_more_run_than_allowed_and_everybody_who_stays_gets_in(steps):
    clock = _Clock()
    gate = Gate("m", GateSettings(max_concurrent=2, max_waiting=10), clock)
    turns, widest, running, names = Turns(gate), 2, set(), 0

    async def note():
        for name in turns.order[len(note.seen) :]:
            note.seen.append(name)
            running.add(name)

    note.seen = []
    for step in steps:
        if step[0] == "send":
            await turns.send(names, call(client=step[1], priority=step[2]))
            names += 1
        elif step[0] == "leave" and running:
            running.pop()
            await turns.leave()
        elif step[0] == "cancel" and step[1] in turns.tasks and not turns.tasks[step[1]].done():
            turns.tasks[step[1]].cancel()
            await turns.settle()
        elif step[0] == "pass":
            clock.at += step[1]
        elif step[0] == "widen":
            widest = max(widest, step[1])
            gate.change(GateSettings(max_concurrent=step[1], max_waiting=10))
            await turns.settle()
        await note()
        assert len(running) == gate.status().running <= widest
    while running:
        running.pop()
        await turns.leave()
        await note()
    assert gate.idle
    for task in turns.tasks.values():
        with suppress(Unavailable, asyncio.CancelledError):
            await task
