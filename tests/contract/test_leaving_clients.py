"""A client may leave at any moment: one record, one permit given back, no connection that goes on for nobody."""

import asyncio
from itertools import count

import msgspec
import pytest

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.responses_answers import begin_response
from stellwerk.api.openai.responses_items import OutputItems
from stellwerk.api.openai.responses_requests import ResponsesBody
from stellwerk.api.openai.responses_stream import ResponseStream
from stellwerk.core.call import Operation
from stellwerk.core.clock import SystemClock
from stellwerk.core.plan import Plan, Target
from stellwerk.core.principal import Tier
from stellwerk.http.pool import parse_base_url
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.gateway import Gateway
from stellwerk.pipeline.settle import Settle
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings
from stellwerk.routing.breaker import Breakers, BreakerSettings
from tests.gateway_process import wait_until
from tests.port_fakes import ALICE, RecordedExchange, make_call
from tests.scripted_upstream import chunk, usage_chunk

PAYS = msgspec.structs.replace(ALICE, tier=Tier.PAYG)


class Permit:
    headers = ()

    def __init__(self) -> None:
        self.given_back = 0

    def release(self, tokens=None) -> None:
        self.given_back += 1

    refund = release


class Hold:
    def __init__(self) -> None:
        self.closed = 0

    def settle(self, cost, *, estimated) -> None:
        self.closed += 1

    def release(self) -> None:
        self.closed += 1


class Line:
    """A gateway with real parts from the reply to the upstream's socket."""

    def __init__(self, upstream, pools, **settings) -> None:
        clock = SystemClock()
        self.pool = pools.pool(parse_base_url(upstream.url)[0])
        provider = OpenAICompatible(
            ProviderSettings(name="vendor", base_url=upstream.url, **settings), self.pool, clock
        )
        plan = Plan(name="x", targets=(Target(provider="vendor", model="up"),) * 2)
        self.permits, self.outcomes, self.holds = [], [], []
        self.gateway = Gateway(
            plan=lambda _call: plan,
            admit=self.admit,
            hold=self.hold,
            dispatch=Dispatch({"vendor": provider}, self, 2, Breakers(BreakerSettings(failures=0), clock), clock),
            settle=Settle([self.outcomes.append], lambda *_: 0),
            clock=clock,
        )

    def fell_back(self) -> None: ...

    def retried(self) -> None: ...

    def admit(self, _call, _estimate, _model) -> Permit:
        self.permits.append(Permit())
        return self.permits[-1]

    async def hold(self, _call, _prices, _estimate) -> Hold:
        await asyncio.sleep(0)
        self.holds.append(Hold())
        return self.holds[-1]

    @property
    def busy(self) -> list:
        return [connection for connection in self.pool._all if connection.answer is not None]


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(
    ("operation", "stream", "settings"),
    [
        (Operation.CHAT, True, {}),
        (Operation.CHAT, False, {}),
        (Operation.COMPLETION, True, {"completions": False}),
    ],
    ids=["streamed", "whole", "translated"],
)
async def test_whenever_a_client_leaves_everything_is_given_back(upstream, pools, operation, stream, settings, refused):
    if refused:

        async def script(talk):
            await talk.answer({"error": {"message": "No."}}, 503)

        upstream.script = script
    line = Line(upstream, pools, **settings)
    statuses = set()
    for steps in count(1):
        call = msgspec.structs.replace(make_call(operation, stream=stream), principal=PAYS)
        exchange = RecordedExchange()
        going = asyncio.ensure_future(line.gateway.run(call, OpenAIReply(call, exchange)))
        for _ in range(steps):
            await asyncio.sleep(0)
        complete = going.done()
        going.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(going, return_exceptions=True)
        assert len(line.permits) == steps
        assert line.permits[-1].given_back == 1
        # Who leaves before the money is held has had nothing.
        assert len(line.outcomes) == len(line.holds) >= steps - 1
        assert all(hold.closed == 1 for hold in line.holds)
        assert (line.gateway.in_flight, line.busy) == (0, [])
        statuses |= {outcome.status for outcome in line.outcomes[-1:]}
        if complete or steps > 2000:
            break
    assert statuses == {499, 503 if refused else 200}


@pytest.mark.parametrize("left", [False, True])
async def test_a_streamed_response_is_booked_as_the_chat_that_it_is(upstream, pools, left):
    async def script(talk):
        await talk.start_stream()
        for word in ("Hel", "lo"):
            await talk.event(chunk(word))
        if left:
            await talk.left.wait()
        else:
            await talk.event(chunk(finish="stop"))
            await talk.event(usage_chunk())
            await talk.finish_stream()

    upstream.script = script
    line, clients = Line(upstream, pools), []
    for translates in (False, True):
        exchange = client = RecordedExchange()
        clients.append(client)
        if translates:
            response = begin_response(ResponsesBody(model="house/up", input="Hi"), "resp_1", 0)
            exchange = ResponseStream(client, "/", b"", {}, response=response, output=OutputItems(1000))
        call = msgspec.structs.replace(make_call(stream=True), principal=PAYS, wants_usage=True)
        going = asyncio.ensure_future(line.gateway.run(call, OpenAIReply(call, exchange)))
        if left:
            await wait_until(lambda client=client: b'"lo"' in client.written)
            going.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(going, return_exceptions=True)
    chat, response = line.outcomes
    assert (chat.status, chat.estimated) == ((499, True) if left else (200, False))
    assert msgspec.structs.replace(response, at=chat.at, duration=chat.duration, first_byte=chat.first_byte) == chat
    assert [hold.closed for hold in line.holds] == [permit.given_back for permit in line.permits] == [1, 1]
