import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, RateLimited, Unavailable, UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Plan, Target
from stellwerk.pipeline.estimate import estimate
from stellwerk.pipeline.meter import CallMeter

DEAD = UpstreamError("Dead.", may_fall_back=True)


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


async def test_what_a_failed_target_counted_is_not_billed_to_the_next(line, answer):
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
