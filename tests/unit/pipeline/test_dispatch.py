import asyncio

import msgspec
import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import (
    BadRequest,
    GatewayError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Plan, Target
from stellwerk.pipeline.dispatch import back_off
from stellwerk.pipeline.estimate import estimate
from stellwerk.pipeline.meter import CallMeter
from tests.port_fakes import Pause

DEAD = UpstreamError("Dead.", may_fall_back=True)
BUSY = Unavailable("Busy.", code="upstream_overloaded", may_fall_back=True)
UNKNOWN = NotFound("No such model.", may_fall_back=True)
REFUSED = UpstreamRefused("Not with this key.", may_fall_back=True)
FULL = RateLimited("Later.", may_fall_back=True)


async def run(line, client, *targets):
    plan = Plan(name="x", targets=tuple(Target(provider=name, model=f"model-{name}") for name in targets))
    meter = CallMeter(client.call, line.clock, estimate(client.call))
    try:
        await line.dispatch.run(client.call, plan, client, meter)
    finally:
        line.meter = meter


async def test_the_same_wire_is_relayed_with_the_fields_of_that_wire(line, answer):
    line.play(a=(played := answer(b"one")))
    client = line.client()
    await run(line, client, "a", "b")
    ((target, wire, fields),) = line.houses["a"].sent
    assert (target.model, wire, fields) == ("model-a", Wire.OPENAI_CHAT, {"as": Wire.OPENAI_CHAT})
    assert (client.got, client.rendered, played.aborted) == ([b"one"], [], 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_another_wire_is_read_into_events_and_rendered(line, answer, chat_only, stream):
    line.houses["a"].wires = chat_only
    line.play(a=(played := answer(b"one")))
    client = line.client(Operation.COMPLETION, stream=stream)
    await run(line, client, "a")
    assert client.rendered == [("events of", played, Wire.OPENAI_CHAT, stream)]
    assert (client.got, played.aborted) == ([], 1)
    assert line.houses["a"].sent[0][2] == {"as": Wire.OPENAI_CHAT}


async def test_targets_are_tried_in_order_until_one_answers(line, answer):
    line.play(a=DEAD, b=RateLimited("Later.", may_fall_back=True), c=answer(b"one"))
    client = line.client()
    await run(line, client, "a", "b", "c", "d")
    assert (client.got, line.fallbacks, line.meter.attempts) == ([b"one"], 2, 3)
    assert line.houses["d"].sent == []


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_there_are_no_more_attempts_than_configured(make_line, attempts):
    line = make_line(attempts=attempts)
    errors = {name: UpstreamError(name, may_fall_back=True) for name in "abcd"}
    line.play(**errors)
    with pytest.raises(UpstreamError) as caught:
        await run(line, line.client(), *"abcd")
    assert caught.value is errors["abcd"[attempts - 1]]
    assert (line.meter.attempts, line.fallbacks) == (attempts, attempts - 1)
    assert [len(line.houses[name].sent) for name in "abcd"] == [1] * attempts + [0] * (4 - attempts)


async def test_an_error_that_lies_with_the_request_is_final(line, answer):
    line.play(a=BadRequest("No."), b=answer(b"never"))
    with pytest.raises(BadRequest):
        await run(line, line.client(), "a", "b")
    assert (line.houses["b"].sent, line.fallbacks) == ([], 0)


async def test_an_answer_that_fails_before_its_first_byte_is_replaced(line, answer):
    line.play(a=(first := answer(DEAD)), b=(second := answer(b"one")))
    client = line.client()
    await run(line, client, "a", "b")
    assert client.got == [b"one"]
    assert (first.aborted, second.aborted) == (1, 1)


async def test_after_the_first_byte_there_is_no_second_target(line, answer):
    line.play(a=(first := answer(b"one", UpstreamBroken("Gone.", may_fall_back=True))), b=answer(b"never"))
    client = line.client()
    with pytest.raises(UpstreamBroken):
        await run(line, client, "a", "b")
    assert (client.got, line.houses["b"].sent, line.fallbacks) == ([b"one"], [], 0)
    assert first.aborted == 1


async def test_what_a_failed_target_counted_is_not_billed_to_the_next(make_line, answer):
    line = make_line(attempts=2)
    line.play(a=answer(b"x"), b=DEAD)
    client = line.client()

    async def relay(played, target, meter):
        meter.count(Usage(input_tokens=99))
        raise DEAD

    client.relay = relay
    with pytest.raises(UpstreamError):
        await run(line, client, "a", "b")
    assert line.meter.usage is None
    assert line.meter.target.provider == "b"


async def test_a_provider_that_is_gone_is_passed_over(line, answer):
    line.play(b=answer(b"one"))
    client = line.client()
    await run(line, client, "gone", "b")
    assert (client.got, line.fallbacks) == ([b"one"], 1)
    with pytest.raises(Unavailable):
        await run(line, line.client(), "gone")


async def test_what_a_provider_cannot_do_is_the_requests_fault(line):
    line.houses["a"].operations = frozenset({Operation.CHAT})
    with pytest.raises(BadRequest) as caught:
        await run(line, line.client(Operation.EMBEDDING), "a")
    assert (caught.value.code, caught.value.param) == ("unsupported_operation", "model")
    assert line.houses["a"].sent == []


async def test_what_cannot_be_said_in_the_providers_wire_is_not_sent(line):
    client = line.client()
    client.refuses_to_say = BadRequest("'suffix' is not possible.")
    with pytest.raises(BadRequest):
        await run(line, client, "a")
    assert line.houses["a"].sent == []


async def test_a_provider_that_is_added_later_is_found(line, answer):
    line.dispatch.providers = {**line.houses, "new": line.houses["d"]}
    line.play(d=answer(b"one"))
    client = line.client()
    await run(line, client, "new")
    assert client.got == [b"one"]


# --- once more


def sent(line):
    return {name: len(house.sent) for name, house in line.houses.items() if house.sent}


@pytest.mark.parametrize("error", [DEAD, BUSY, FULL, UpstreamTimeout("Late.", may_fall_back=True)])
async def test_a_target_that_may_recover_is_tried_again_after_a_wait(line, answer, error):
    line.play(a=[error, error, answer(b"one")])
    client = line.client()
    await run(line, client, "a")
    assert (client.got, line.retries, line.fallbacks, line.meter.attempts) == ([b"one"], 2, 0, 3)
    first, second = line.naps
    assert 0.375 <= first <= 0.5
    assert 0.75 <= second <= 1.0


def test_the_wait_doubles_up_to_five_seconds_and_is_never_the_same():
    for retries, longest in enumerate([0.5, 1, 2, 4, 5, 5, 5]):
        waits = [back_off(retries) for _ in range(50)]
        assert 0.75 * longest <= min(waits) < max(waits) <= longest


@pytest.mark.parametrize("error", [UNKNOWN, REFUSED])
async def test_a_target_that_will_not_do_better_is_tried_once(line, error):
    line.play(a=error)
    with pytest.raises(GatewayError) as caught:
        await run(line, line.client(), "a")
    assert caught.value is error
    assert (line.naps, sent(line)) == ([], {"a": 1})


async def test_every_target_is_tried_before_one_is_tried_again(line, answer):
    line.dispatch.attempts = 5
    line.play(a=[DEAD, answer(b"one")], b=REFUSED, c=UNKNOWN)
    client = line.client()
    await run(line, client, "a", "b", "c")
    assert (client.got, sent(line)) == ([b"one"], {"a": 2, "b": 1, "c": 1})
    assert (line.fallbacks, line.retries) == (2, 1)


async def test_a_target_comes_back_not_before_it_said(line, answer):
    wants = Unavailable("Busy.", code="upstream_overloaded", retry_after=7, may_fall_back=True)
    line.play(a=[wants, answer(b"one")])
    await run(line, line.client(), "a")
    assert line.naps == [7]


async def test_the_target_that_is_free_first_is_tried_again_first(line, answer):
    line.play(a=RateLimited("Later.", retry_after=20, may_fall_back=True), b=[DEAD, answer(b"one")])
    client = line.client()
    await run(line, client, "a", "b")
    assert (client.got, sent(line)) == ([b"one"], {"a": 1, "b": 2})
    assert sum(line.naps) <= 0.5


@pytest.mark.parametrize(("seconds", "left"), [(31, 1e6), (10, 9), (0.1, 0.2)])
async def test_a_wait_that_is_too_long_is_the_clients(line, seconds, left):
    error = RateLimited("Later.", retry_after=seconds, may_fall_back=True)
    line.play(a=error)
    client = line.client(deadline=line.clock.seconds + left)
    with pytest.raises(RateLimited) as caught:
        await run(line, client, "a")
    assert caught.value is error
    assert (line.naps, sent(line)) == ([], {"a": 1})


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_a_client_may_ask_for_another_number_of_attempts(line, attempts):
    line.play(a=[DEAD] * attempts)
    client = line.client()
    client.call = msgspec.structs.replace(client.call, attempts=attempts)
    with pytest.raises(UpstreamError):
        await run(line, client, "a")
    assert (sent(line), line.retries) == ({"a": attempts}, attempts - 1)


async def test_a_client_that_leaves_during_a_wait_leaves_at_once(line):
    pause = Pause()
    line.dispatch._sleep = lambda _seconds: pause.wait()
    line.play(a=DEAD)
    going = asyncio.ensure_future(run(line, line.client(), "a"))
    async with asyncio.timeout(30):
        await pause.reached.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert sent(line) == {"a": 1}


# --- breakers


async def fail(line, times, target="a", error=DEAD):
    line.play(**{target: [error] * times})
    line.dispatch.attempts = 1
    for _ in range(times):
        with pytest.raises(GatewayError):
            await run(line, line.client(), target)
    line.dispatch.attempts = 3


def state(line):
    return {status.provider: status.state for status in line.breakers.status()}


async def test_a_target_that_keeps_failing_is_not_asked_any_more(line):
    await fail(line, 5)
    assert state(line) == {"a": "open"}
    with pytest.raises(Unavailable) as caught:
        await run(line, line.client(), "a")
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "circuit_open", 30)
    assert (sent(line), line.naps, line.meter.attempts, line.meter.target) == ({"a": 5}, [], 0, None)


async def test_attempts_of_one_call_count_singly(make_line):
    line = make_line(failures=2)
    line.play(a=[DEAD, DEAD])
    with pytest.raises(UpstreamError) as caught:
        await run(line, line.client(), "a")
    assert caught.value is DEAD
    assert (sent(line), state(line)) == ({"a": 2}, {"a": "open"})


async def test_the_next_target_answers_for_one_that_is_open(line, answer):
    await fail(line, 5)
    line.play(b=answer(b"one"))
    client = line.client()
    await run(line, client, "a", "b")
    assert (client.got, line.meter.attempts, line.fallbacks, sent(line)) == ([b"one"], 1, 0, {"a": 5, "b": 1})


async def test_the_wait_until_the_first_of_several_is_told(line):
    await fail(line, 5, "a")
    line.clock.seconds += 10
    await fail(line, 5, "b")
    with pytest.raises(Unavailable) as caught:
        await run(line, line.client(), "a", "b")
    assert caught.value.retry_after == 20


async def test_one_that_becomes_free_during_a_wait_goes_before_a_second_attempt(line, answer):
    await fail(line, 5, "a")
    line.clock.seconds += 29.8
    line.play(a=answer(b"one"), b=DEAD)
    client = line.client()
    await run(line, client, "a", "b")
    assert (client.got, sent(line), state(line)) == ([b"one"], {"a": 6, "b": 1}, {"b": "closed"})


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("No."),
        UNKNOWN,
        REFUSED,
        FULL,
        Unavailable("All connections are in use.", may_fall_back=True),
        Unavailable("Loading.", code="model_loading", may_fall_back=True),
    ],
)
async def test_what_is_not_the_upstreams_failure_opens_nothing(line, error):
    await fail(line, 8, error=error)
    assert state(line) == {}


async def test_a_call_whose_own_time_is_up_opens_nothing(line):
    late = UpstreamTimeout("Late.", may_fall_back=True)
    line.play(a=[late] * 8)
    for _ in range(8):
        with pytest.raises(UpstreamTimeout):
            await run(line, line.client(deadline=line.clock.seconds), "a")
    assert state(line) == {}


async def test_an_answer_that_breaks_off_is_a_failure(line, answer):
    line.play(a=answer(b"one", UpstreamBroken("Gone.")))
    with pytest.raises(UpstreamBroken):
        await run(line, line.client(), "a")
    assert state(line) == {"a": "closed"}


async def test_a_client_that_leaves_makes_way_for_the_next_probe(line, answer):
    await fail(line, 5)
    line.clock.seconds += 30
    line.play(a=[pause := Pause(), answer(b"one")])
    going = asyncio.ensure_future(run(line, line.client(), "a"))
    async with asyncio.timeout(30):
        await pause.reached.wait()
    with pytest.raises(Unavailable):
        await run(line, line.client(), "a")
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert state(line) == {"a": "half_open"}
    client = line.client()
    await run(line, client, "a")
    assert (client.got, state(line)) == ([b"one"], {})


async def test_the_first_byte_of_a_probe_lets_the_others_in(line, answer):
    await fail(line, 5)
    line.clock.seconds += 30
    line.play(a=[answer(b"one", pause := Pause(), b"two"), answer(b"three")])
    slow, quick = line.client(), line.client()
    going = asyncio.ensure_future(run(line, slow, "a"))
    async with asyncio.timeout(30):
        await pause.reached.wait()
        await run(line, quick, "a")
        pause.go_on.set()
        await going
    assert (slow.got, quick.got, state(line)) == ([b"one", b"two"], [b"three"], {})


async def test_of_many_calls_at_once_one_tries_a_target_that_was_left_alone(line, answer):
    await fail(line, 5)
    line.clock.seconds += 30
    line.play(a=[pause := Pause(), answer(b"one")])
    going = [asyncio.ensure_future(run(line, line.client(), "a")) for _ in range(50)]
    async with asyncio.timeout(30):
        await pause.reached.wait()
        pause.go_on.set()
        ended = await asyncio.gather(*going, return_exceptions=True)
    assert len(line.houses["a"].sent) == 6
    assert [type(each) for each in ended if each is not None] == [Unavailable] * 49
