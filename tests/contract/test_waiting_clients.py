"""A stream that waits in a line: from the gate through the gateway to what the client reads."""

import asyncio

import msgspec
import pytest

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.core.call import Place
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unavailable
from stellwerk.core.plan import Plan, Target
from stellwerk.http.pool import parse_base_url
from stellwerk.limits.gate import Gate, GateSettings
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.gateway import Gateway
from stellwerk.pipeline.settle import Settle
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings
from stellwerk.routing.breaker import Breakers, BreakerSettings
from tests.gateway_process import wait_until
from tests.port_fakes import RecordedExchange, make_call


class Permit:
    headers = ()

    def release(self, tokens=None) -> None: ...

    refund = release


class Line:
    """A gateway with one gate, one call wide, whose only turn is taken; streams are opened at once when they wait."""

    def __init__(self, upstream, pools, **settings) -> None:
        clock = SystemClock()
        pool = pools.pool(parse_base_url(upstream.url)[0])
        provider = OpenAICompatible(ProviderSettings(name="vendor", base_url=upstream.url), pool, clock)
        self.gate = Gate("up", GateSettings(max_concurrent=1, **settings), clock, again_seconds=0.01)
        self.outcomes = []
        self.exchange = RecordedExchange()
        self.gateway = Gateway(
            plan=lambda call: Plan(name="x", targets=(Target(provider="vendor", model="up"),)),
            admit=lambda *_: Permit(),
            hold=None,
            dispatch=Dispatch(
                {"vendor": provider}, self, 1, Breakers(BreakerSettings(), clock), clock, gate=lambda _: self.gate
            ),
            settle=Settle([self.outcomes.append], lambda *_: 0),
            clock=clock,
        )

    def fell_back(self) -> None: ...

    def retried(self) -> None: ...

    async def begin(self):
        """A stream that waits and has been told so."""
        await self.gate.enter(make_call())
        call = msgspec.structs.replace(make_call(stream=True), place=Place())
        going = asyncio.ensure_future(self.gateway.run(call, OpenAIReply(call, self.exchange, patience=0.0)))
        await wait_until(lambda: self.exchange.written)
        return going


async def test_a_stream_that_waited_gets_its_answer_after_the_comments(upstream, pools):
    line = Line(upstream, pools)
    going = await line.begin()
    assert line.exchange.written == b": waiting, place 1\n\n"
    line.gate.leave()
    async with asyncio.timeout(30):
        await going
    assert line.exchange.events[-1] == "[DONE]"
    assert (line.outcomes[0].status, line.outcomes[0].error, line.gate.idle) == (200, None, True)


async def test_a_stream_that_waited_in_vain_is_told_so_inside_and_the_connection_is_kept(upstream, pools):
    line = Line(upstream, pools, max_wait_seconds=0.05)
    going = await line.begin()
    async with asyncio.timeout(30):
        await going
    [event] = line.exchange.events
    assert event["error"]["code"] == "queue_timeout"
    assert (line.exchange.finished, line.exchange.broken) == (1, False)
    assert (line.outcomes[0].status, line.outcomes[0].error) == (200, "queue_timeout")


async def test_an_upstream_that_fails_after_the_wait_is_told_inside_too(upstream, pools):
    async def refuse(talk):
        await talk.answer({"error": {"message": "No."}}, 503)

    upstream.script = refuse
    line = Line(upstream, pools)
    going = await line.begin()
    line.gate.leave()
    async with asyncio.timeout(30):
        await going
    assert [event["error"]["type"] for event in line.exchange.events] == ["server_error"]
    assert (line.exchange.finished, line.exchange.broken, line.gate.idle) == (1, False, True)


async def test_who_leaves_while_it_waits_is_a_499_and_keeps_no_place(upstream, pools):
    line = Line(upstream, pools)
    going = await line.begin()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (line.outcomes[0].status, line.gate.status().waiting) == (499, 0)
    assert upstream.requests == []


async def test_a_full_room_is_a_status_as_nothing_was_said_yet(upstream, pools):
    line = Line(upstream, pools, max_waiting=0)
    await line.gate.enter(make_call())
    call = msgspec.structs.replace(make_call(stream=True), place=Place())
    with pytest.raises(Unavailable) as refused:
        await line.gateway.run(call, OpenAIReply(call, line.exchange, patience=0.0))
    assert (refused.value.code, line.exchange.started, line.outcomes[0].status) == ("queue_full", False, 503)
