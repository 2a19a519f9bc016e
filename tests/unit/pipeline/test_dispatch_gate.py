import asyncio

import pytest

from stellwerk.core.errors import Unavailable
from stellwerk.core.plan import Plan, Target
from stellwerk.limits.gate import Gate, GateSettings
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.estimate import estimate
from stellwerk.pipeline.meter import CallMeter
from tests.port_fakes import Pause


@pytest.fixture
def gate(line):
    """A gate in front of house a, one call wide."""
    return Gate("a", GateSettings(max_concurrent=1, max_waiting=1), line.clock)


@pytest.fixture
def run(line, gate):
    dispatch = Dispatch(
        line.houses,
        line,
        line.attempts,
        line.breakers,
        line.clock,
        line.sleep,
        gate=lambda target: gate if target.provider == "a" else None,
    )

    async def run(client, *targets):
        plan = Plan(name="x", targets=tuple(Target(provider=name, model=f"model-{name}") for name in targets))
        await dispatch.run(client.call, plan, client, CallMeter(client.call, line.clock, estimate(client.call)))

    return run


async def test_a_call_waits_until_the_one_before_it_has_its_whole_answer(line, answer, gate, run):
    hold = Pause()
    line.play(a=hold)
    line.houses["a"].plays += [answer(b"one"), answer(b"two")]
    first, second = line.client(), line.client()
    running = asyncio.create_task(run(first, "a"))
    await hold.reached.wait()
    waiting = asyncio.create_task(run(second, "a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (gate.status().running, gate.status().waiting, second.got) == (1, 1, [])
    hold.go_on.set()
    await running
    await waiting
    assert (first.got, second.got, gate.idle) == ([b"one"], [b"two"], True)


async def test_the_next_target_answers_when_the_room_is_full(line, answer, gate, run):
    line.play(b=answer(b"from b"))
    await gate.enter(line.client().call)
    waiting = asyncio.create_task(gate.enter(line.client().call))
    await asyncio.sleep(0)
    client = line.client()
    await run(client, "a", "b")
    assert (client.got, line.naps) == ([b"from b"], [])
    waiting.cancel()


async def test_a_full_room_is_said_at_once_and_not_tried_again(line, gate, run):
    await gate.enter(line.client().call)
    waiting = asyncio.create_task(gate.enter(line.client().call))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await run(line.client(), "a")
    assert (refused.value.code, line.naps, line.houses["a"].sent) == ("queue_full", [], [])
    waiting.cancel()


async def test_a_model_for_which_there_is_too_little_memory_is_not_waited_for(line, run):
    line.play(a=Unavailable("Too large.", code="memory_short", retry_after=5, may_fall_back=True))
    with pytest.raises(Unavailable) as refused:
        await run(line.client(), "a")
    assert (refused.value.code, line.naps, len(line.houses["a"].sent)) == ("memory_short", [], 1)


async def test_a_failed_call_gives_its_turn_back(line, gate, run):
    line.play(a=Unavailable("Broken.", code="x"))
    with pytest.raises(Unavailable):
        await run(line.client(), "a")
    assert gate.idle
