import asyncio

import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.errors import (
    BadRequest,
    NotFound,
    RateLimited,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.outcome import Outcome, Usage
from tests.port_fakes import ALICE, Pause

DEAD = UpstreamError("Dead.", may_fall_back=True)
BAD = BadRequest("No.")
BROKEN = UpstreamBroken("Broke off.", may_fall_back=True)


async def test_a_call_goes_all_the_way_and_is_settled_once(line, answer):
    line.play(a=answer(b"one", b"two"))
    client = await line.run(line.client(stream=True))
    assert client.got == [b"one", b"two"]
    assert client.admitted == line.permits[0].headers
    assert line.outcome == Outcome(
        id="req_1",
        at=1_700_000_000.0,
        key_id="key_alice",
        user_id=0,
        operation=Operation.CHAT,
        model="house/up",
        provider="a",
        target="model-a",
        stream=True,
        status=200,
        error=None,
        attempts=1,
        usage=Usage(input_tokens=10, output_tokens=20),
        estimated=False,
        cost=80,
        duration=0.0,
        first_byte=0.0,
    )


async def test_times_count_from_the_head_of_the_request(line, answer):
    first, rest = Pause(), Pause()
    line.play(a=answer(first, b"one", rest, b"two"))
    going = asyncio.ensure_future(line.run())
    async with asyncio.timeout(30):
        await first.reached.wait()
        line.clock.seconds += 2
        first.go_on.set()
        await rest.reached.wait()
        assert line.gateway.in_flight == 1
        line.clock.seconds += 3
        rest.go_on.set()
        await going
    assert (line.outcome.first_byte, line.outcome.duration, line.outcome.at) == (2.0, 5.0, 1_700_000_000.0)


async def test_a_call_that_cannot_be_planned_uses_nothing_up(line):
    line.plan_error = NotFound("No such model.")
    with pytest.raises(NotFound):
        await line.run()
    assert (line.permits, line.outcomes, line.gateway.in_flight) == ([], [], 0)


async def test_a_call_that_is_not_admitted_is_not_settled(line):
    line.admit_error = RateLimited("Too many.", retry_after=1)
    with pytest.raises(RateLimited):
        await line.run()
    assert (line.outcomes, line.gateway.in_flight) == ([], 0)
    assert not any(house.sent for house in line.houses.values())


async def test_another_target_answers_when_the_first_is_dead(line, answer):
    line.play(a=DEAD, b=answer(b"one"))
    client = await line.run()
    assert client.got == [b"one"]
    assert line.fallbacks == 1
    outcome = line.outcome
    assert (outcome.provider, outcome.target, outcome.attempts) == ("b", "model-b", 2)
    assert (outcome.status, outcome.error, outcome.cost) == (200, None, 80)


async def test_when_all_are_dead_the_last_error_is_told_and_recorded(make_line):
    line = make_line(attempts=2)
    line.play(a=DEAD, b=UpstreamTimeout("Late.", may_fall_back=True))
    with pytest.raises(UpstreamTimeout):
        await line.run()
    outcome = line.outcome
    assert (outcome.status, outcome.error, outcome.attempts) == (504, "upstream_timeout", 2)
    assert (outcome.usage, outcome.cost, outcome.first_byte, outcome.provider) == (None, None, None, "b")


async def test_a_refusal_of_the_request_itself_is_recorded_as_one(line):
    line.play(a=BadRequest("Too long.", code="context_length_exceeded"))
    with pytest.raises(BadRequest):
        await line.run()
    assert (line.outcome.status, line.outcome.error, line.outcome.attempts) == (400, "context_length_exceeded", 1)


async def test_a_failure_is_told_inside_an_answer_that_was_opened_while_it_waited(line):
    line.play(a=DEAD, b=BAD)
    client = line.client(stream=True)
    client.opened = True
    await line.run(client)
    assert (client.told, client.started) == ([BAD], False)
    assert (line.outcome.status, line.outcome.error, line.fallbacks) == (200, "invalid_value", 1)


async def test_an_answer_that_breaks_after_its_start_was_a_200_with_an_error(line, answer):
    line.play(a=answer(b"one", BROKEN), b=answer(b"never"))
    client = await line.run()
    assert client.got == [b"one"]
    outcome = line.outcome
    assert (outcome.status, outcome.error, outcome.attempts) == (200, "upstream_broken", 1)
    assert outcome.first_byte == 0.0
    assert line.fallbacks == 0


@pytest.mark.parametrize("where", ["send", "fields", "relay", "admit"])
async def test_an_unforeseen_failure_is_settled_and_goes_on(line, answer, where):
    client = line.client()
    failure = RuntimeError("bug")
    if where == "send":
        line.play(a=failure)
    elif where == "relay":
        line.play(a=answer(failure))
    elif where == "fields":
        client.refuses_to_say = failure
    else:
        client.admit = None  # calling it is a TypeError
        failure = TypeError
    with pytest.raises(failure if where == "admit" else RuntimeError):
        await line.run(client)
    assert (line.outcome.status, line.outcome.error) == (500, "internal_error")


@pytest.mark.parametrize("place", ["send", "before the first byte", "after the first byte", "second target"])
async def test_a_client_that_leaves_is_a_499_wherever_it_leaves(line, answer, place):
    pause = Pause()
    played = {
        "send": {"a": [pause, answer(b"one")]},
        "before the first byte": {"a": answer(pause, b"one")},
        "after the first byte": {"a": answer(b"one", pause, b"two")},
        "second target": {"a": DEAD, "b": answer(pause, b"one")},
    }[place]
    line.play(**played)
    going = asyncio.ensure_future(line.run())
    async with asyncio.timeout(30):
        await pause.reached.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    outcome = line.outcome
    assert (outcome.status, outcome.error) == (499, "client_closed_request")
    assert outcome.attempts == (2 if place == "second target" else 1)
    assert (outcome.first_byte is not None) == (place == "after the first byte")
    assert line.fallbacks == (place == "second target")


@pytest.mark.parametrize("steps", range(14))
async def test_a_cancellation_at_any_step_settles_what_was_admitted(line, answer, steps):
    async def step():
        await asyncio.sleep(0)

    class Slow(Pause):
        wait = staticmethod(step)

    line.play(a=[Slow(), Slow(), DEAD], b=[Slow(), answer(Slow(), b"one", Slow(), Slow(), b"two", Slow())])
    call = line.client()
    going = asyncio.ensure_future(line.gateway.run(call.call, call))
    for _ in range(steps):
        await asyncio.sleep(0)
    cancelled = going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert len(line.outcomes) == len(line.permits) == (steps > 0)
    assert all(permit.released == 1 for permit in line.permits)
    assert line.gateway.in_flight == 0
    if cancelled and steps:
        assert line.outcome.status == 499
    if not cancelled:
        assert line.outcome.status == 200


async def test_a_second_cancellation_changes_nothing(line, answer):
    line.play(a=answer(b"one", pause := Pause()))
    client = line.client()
    cleaning, told = asyncio.Event(), []

    async def relay(played, target, meter):
        try:
            await played.next()
            await played.next()
        except asyncio.CancelledError:
            cleaning.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("twice")
            raise

    client.relay = relay
    going = asyncio.ensure_future(line.run(client))
    async with asyncio.timeout(30):
        await pause.reached.wait()
        going.cancel()
        await cleaning.wait()
        going.cancel()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
    assert told == ["twice"]
    assert line.outcome.status == 499


async def test_many_calls_at_once_are_each_settled_once(line, answer):
    pauses = [Pause() for _ in range(20)]
    line.play(a=[answer(pause, b"x") for pause in pauses])
    going = [asyncio.ensure_future(line.run()) for _ in pauses]
    async with asyncio.timeout(30):
        await asyncio.gather(*(pause.reached.wait() for pause in pauses))
        assert line.gateway.in_flight == 20
        for pause in pauses:
            pause.go_on.set()
        await asyncio.gather(*going)
    assert [permit.released for permit in line.permits] == [1] * 20
    assert len(line.outcomes) == 20
    assert line.gateway.in_flight == 0


async def test_who_may_not_go_on_is_cut_and_the_others_are_not(line, answer):
    pauses = {name: Pause() for name in ("bob", "eve")}
    clients = {}
    for name, pause in pauses.items():
        line.play(a=answer(b"one", pause, b"two"))
        clients[name] = line.client(stream=True, principal=msgspec.structs.replace(ALICE, key_id=name))
    going = {name: asyncio.ensure_future(line.run(client)) for name, client in clients.items()}
    async with asyncio.timeout(30):
        await asyncio.gather(*(pause.reached.wait() for pause in pauses.values()))
        assert line.gateway.cut(lambda principal: principal.key_id != "eve") == 1
        with pytest.raises(asyncio.CancelledError):
            await going["eve"]
        pauses["bob"].go_on.set()
        await going["bob"]
    assert clients["bob"].got == [b"one", b"two"]
    assert clients["eve"].got == [b"one"]
    assert {outcome.key_id: (outcome.status, outcome.error) for outcome in line.outcomes} == {
        "eve": (403, "access_ended"),
        "bob": (200, None),
    }
    assert line.gateway.cut(lambda _principal: False) == 0


async def test_the_client_is_told_that_another_model_stands_in(line, answer):
    line.play(a=answer(b"one"))
    plan = line.gateway._plan
    line.gateway._plan = lambda call: msgspec.structs.replace(plan(call), note="eyes; reason=image")
    client = await line.run()
    assert (b"x-stellwerk-fallback", b"eyes; reason=image") in client.admitted


async def test_whoever_keeps_sessions_together_hears_who_has_answered(line, answer):
    heard = []
    line.gateway._answered = lambda call, plan, target: heard.append((call.id, plan.name, target.model))
    line.play(a=UpstreamError("Dead.", may_fall_back=True), b=answer(b"one"))
    client = await line.run()
    assert heard == [(client.call.id, client.call.model, "model-b")]


async def test_a_running_call_is_listed_until_it_has_ended_and_can_be_ended(line, answer):
    hold = Pause()
    line.play(a=hold)
    line.houses["a"].plays.append(answer(b"one"))
    client = line.client()
    task = asyncio.create_task(line.gateway.run(client.call, client))
    await hold.reached.wait()
    line.clock.seconds += 5
    (running,) = line.gateway.running()
    assert (running.id, running.provider, running.target) == ("req_1", "a", "model-a")
    assert (running.seconds, running.first_byte, running.background) == (5.0, None, False)
    assert line.gateway.end("another") == 0
    assert line.gateway.end("req_1") == 1
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.gateway.running() == []
    assert (line.outcome.status, line.outcome.error) == (403, "ended_by_operator")
