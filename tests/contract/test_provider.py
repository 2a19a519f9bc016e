"""What every provider promises, whatever stands behind it. A new member of the port joins by one line in MEMBERS."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, GatewayError, Unprocessable, UpstreamBroken, UpstreamError
from stellwerk.core.events import Finished, Text, Used
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import EngineAddress, Provider
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.local import Local
from stellwerk.providers.ollama_native import OllamaNative
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings
from tests.port_fakes import make_call
from tests.scripted_upstream import ScriptedUpstream, chunk, completion, usage_chunk

TARGET = Target(provider="member", model="up")
USED = Used(usage=Usage(input_tokens=5, output_tokens=2))


@dataclass
class Engine:
    """One engine that is always loaded, at the port `Engines`."""

    address: EngineAddress
    leased: int = 0

    def models(self):
        return [Model(provider="local", name="up", id="up", local=True)]

    async def acquire(self, model, *, deadline, request_id="", place=None):
        self.leased += 1
        return self

    def doubt(self) -> None: ...

    def suspect(self) -> None: ...

    def note_answer(self) -> None: ...

    def release(self) -> None:
        self.leased -= 1


def openai_compatible(upstream, pools):
    settings = ProviderSettings(name="member", base_url=upstream.url, keys=(Secret("a-key"),))
    return OpenAICompatible(settings, pools.pool(parse_base_url(upstream.url)[0]), SystemClock()), None


def local(upstream, pools):
    engine = Engine(EngineAddress(host="127.0.0.1", port=upstream.port, key="a-key"))
    return Local(engine, pools.pool, SystemClock()), engine


def ollama_native(upstream, pools):
    settings = ProviderSettings(name="member", base_url=upstream.url, keys=(Secret("a-key"),), local=True)
    return OllamaNative(settings, pools.pool(parse_base_url(upstream.url)[0]), SystemClock()), None


MEMBERS = [openai_compatible, local, ollama_native]


@dataclass
class Member:
    provider: Provider
    upstream: ScriptedUpstream
    engine: Engine | None

    def script(self, do) -> None:
        self.upstream.script = do

    async def send(self, operation=Operation.CHAT, **fields):
        call = make_call(operation, **fields)
        wire = self.provider.wire(operation, call.wire)
        async with asyncio.timeout(30):
            return await self.provider.send(call, TARGET, wire, call.fields)

    async def events(self, answer, *, stream):
        async with asyncio.timeout(30):
            return [event async for event in self.provider.events(answer, Wire.OPENAI_CHAT, stream=stream)]

    def assert_nothing_is_held(self) -> None:
        assert self.engine is None or self.engine.leased == 0


@pytest.fixture(params=MEMBERS, ids=lambda build: build.__name__)
async def member(request, upstream, pools):
    provider, engine = request.param(upstream, pools)
    return Member(provider, upstream, engine)


async def test_it_has_a_name_and_a_wire_for_each_thing_it_can_do(member):
    assert member.provider.name
    for operation in Operation:
        assert all(isinstance(member.provider.wire(operation, wire), Wire | None) for wire in Wire)
    assert member.provider.wire(Operation.CHAT, Wire.OPENAI_CHAT) is Wire.OPENAI_CHAT


async def test_it_speaks_the_clients_own_wire_or_one_that_stays_the_same(member):
    for operation in Operation:
        usual = {member.provider.wire(operation, wire) for wire in Wire if wire.value.startswith("openai.")}
        assert len(usual) == 1
        assert all(member.provider.wire(operation, wire) in {wire, *usual} for wire in Wire)


# Reranking and reading pages are asked for in other ways: tests/unit/providers/test_reranking.py and test_ocr.py.
@pytest.mark.parametrize("operation", [each for each in Operation if each not in (Operation.RERANK, Operation.OCR)])
async def test_the_request_arrives_under_the_targets_name_with_every_field(member, operation):
    async def script(talk):
        await talk.answer(completion())

    member.script(script)
    await (await member.send(operation, user="ä", x=[1.0])).read()
    (request,) = member.upstream.requests
    sent = {name: json.loads(bytes(raw)) for name, raw in make_call(operation, user="ä", x=[1.0]).fields.items()}
    assert request.json == sent | {"model": "up"}
    assert request.headers["authorization"] == "Bearer a-key"
    member.assert_nothing_is_held()


async def test_an_answer_comes_back_as_the_upstream_wrote_it(member):
    body = json.dumps(completion("Grüße"), indent=1).encode()

    async def script(talk):
        await talk.answer(body, headers=[("X-Odd", "yes")])

    member.script(script)
    answer = await member.send()
    assert (answer.status, answer.header(b"x-odd")) == (200, b"yes")
    assert await answer.read() == body
    member.assert_nothing_is_held()


async def test_a_stream_can_be_read_and_poured(member):
    for pour in (False, True):
        answer = await member.send(stream=True)
        pieces = []
        async with asyncio.timeout(30):
            if pour:
                await answer.pour(pieces.append)
            else:
                while piece := await answer.next():
                    pieces.append(piece)
        text = b"".join(pieces)
        assert text.count(b"data:") == 6
        assert text.endswith(b"data: [DONE]\n\n")
        member.assert_nothing_is_held()


async def test_a_stream_arrives_piece_by_piece(member):
    go_on = asyncio.Event()

    async def script(talk):
        await talk.start_stream()
        await talk.event(chunk("one"))
        await go_on.wait()
        await talk.finish_stream()

    member.script(script)
    answer = await member.send(stream=True)
    async with asyncio.timeout(30):
        assert b"one" in await answer.next()
        go_on.set()
        assert await answer.next() == b"data: [DONE]\n\n"
        assert await answer.next() == b""


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_can_be_read_into_events(member, stream):
    answer = await member.send(stream=stream)
    *texts, finished, used = await member.events(answer, stream=stream)
    assert "".join(text.text for text in texts) == ("Hello!" if stream else "Hello")
    assert all(isinstance(text, Text) for text in texts)
    assert (finished, used) == (Finished(index=0, reason="stop"), USED)
    answer.abort()
    member.assert_nothing_is_held()


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_a_refusal_is_a_gateway_error_and_holds_nothing(member, status):
    async def script(talk):
        await talk.answer({"error": {"message": "No."}}, status)

    member.script(script)
    with pytest.raises(GatewayError) as caught:
        await member.send()
    assert caught.value.may_fall_back is (status not in (400, 422))
    assert isinstance(caught.value, BadRequest | Unprocessable) is (status in (400, 422))
    member.assert_nothing_is_held()


async def test_an_upstream_that_is_not_there_is_an_error_that_another_may_answer(member):
    await member.upstream.stop()
    with pytest.raises(UpstreamError) as caught:
        await member.send()
    assert caught.value.may_fall_back
    member.assert_nothing_is_held()
    await member.upstream.start()


@pytest.mark.parametrize("way", ["read", "pour", "events"])
async def test_an_answer_that_breaks_off_is_broken_however_it_is_read(member, way):
    async def script(talk):
        await talk.start_stream()
        await talk.event(chunk("one"))
        talk.cut()

    member.script(script)
    answer = await member.send(stream=True)
    reading = {
        "read": answer.read,
        "pour": lambda: answer.pour(lambda data: None),
        "events": lambda: member.events(answer, stream=True),
    }[way]
    with pytest.raises(UpstreamBroken):
        await asyncio.wait_for(reading(), 30)
    member.assert_nothing_is_held()


async def test_an_error_inside_a_stream_is_an_error(member):
    async def script(talk):
        await talk.start_stream()
        await talk.event(chunk("one"))
        await talk.event({"error": {"message": "GPU on fire"}})
        await talk.event(usage_chunk())
        await talk.finish_stream()

    member.script(script)
    answer = await member.send(stream=True)
    with pytest.raises(UpstreamError, match="GPU on fire"):
        await member.events(answer, stream=True)
    answer.abort()
    member.assert_nothing_is_held()


@pytest.mark.parametrize("begun", [True, False])
async def test_giving_up_closes_the_upstreams_connection(member, begun):
    reached, left = asyncio.Event(), asyncio.Event()

    async def script(talk):
        if begun:
            await talk.start_stream()
        reached.set()
        with suppress(ConnectionError):
            await talk.left.wait()
        left.set()

    member.script(script)
    going = asyncio.ensure_future(member.send(stream=True))
    async with asyncio.timeout(30):
        await reached.wait()
        if begun:
            (await going).abort()
        else:
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
        await left.wait()
    member.assert_nothing_is_held()


async def test_it_says_what_it_offers(member):
    async def script(talk):
        await talk.answer({"object": "list", "data": [{"id": "up"}]})

    member.script(script)
    (model,) = await member.provider.models()
    assert isinstance(model, Model)
    assert (model.name, model.id.rpartition("/")[2]) == ("up", "up")
