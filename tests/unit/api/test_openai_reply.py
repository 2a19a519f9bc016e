import asyncio
import base64
import json

import pytest

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, UpstreamBroken, UpstreamError
from stellwerk.core.events import Finished, Text, Used
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Target
from tests.port_fakes import CountingMeter, Pause, PlayedAnswer, RecordedExchange, make_call, sse
from tests.scripted_upstream import chunk, completion, usage_chunk

TARGET = Target(provider="house", model="up")
BROKEN = UpstreamBroken("The upstream broke off in the middle of its answer.", may_fall_back=True)


class Talk:
    """One reply with everything around it."""

    def __init__(self, operation=Operation.CHAT, **fields) -> None:
        self.exchange, self.meter = RecordedExchange(), CountingMeter()
        self.reply = OpenAIReply(make_call(operation, **fields), self.exchange)
        self.reply.admit(((b"x-ratelimit-limit-requests", b"60"),))

    async def relay(self, *pieces) -> RecordedExchange:
        async with asyncio.timeout(30):
            await self.reply.relay(PlayedAnswer(*pieces), TARGET, self.meter)
        return self.exchange

    async def render(self, *pieces) -> RecordedExchange:
        async def play():
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        async with asyncio.timeout(30):
            await self.reply.render(play(), PlayedAnswer(), TARGET, self.meter)
        return self.exchange


def tight(body) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


async def test_a_whole_answer_is_relayed_with_its_headers_and_counted():
    talk = Talk()
    exchange = await talk.relay(tight(completion("Hi", x="kept")))
    assert (exchange.status, exchange.finished) == (200, 1)
    assert exchange.json == completion("Hi", model="house/up", x="kept")
    assert exchange.header("content-type") == "application/json"
    assert exchange.header("x-request-id") == "req_1"
    assert exchange.header("x-ratelimit-limit-requests") == "60"
    assert talk.meter.counted == [Usage(input_tokens=5, output_tokens=2)]
    assert (talk.meter.begun, talk.reply.started) == (1, True)


@pytest.mark.parametrize("pieces", [(b"<html>",), (b"",), (b'{"choices":[{}],', BROKEN)])
async def test_an_answer_that_cannot_be_used_leaves_the_client_untouched(pieces):
    talk = Talk()
    with pytest.raises(UpstreamError) as caught:
        await talk.relay(*pieces)
    assert caught.value.may_fall_back
    assert (talk.reply.started, talk.exchange.started, talk.meter.begun) == (False, False, 0)


@pytest.mark.parametrize(("encoding", "is_text"), [("base64", True), ("float", False), (None, False)])
async def test_vectors_are_encoded_for_whoever_asked(encoding, is_text):
    talk = Talk(Operation.EMBEDDING, **({"encoding_format": encoding} if encoding else {}))
    row = {"object": "embedding", "index": 0, "embedding": [1.0]}
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    exchange = await talk.relay(tight({"object": "list", "data": [row], "model": "up", "usage": usage}))
    packed = base64.b64encode(b"\x00\x00\x80?").decode()
    assert exchange.json["data"][0]["embedding"] == (packed if is_text else [1.0])
    assert exchange.json["model"] == "house/up"
    assert talk.meter.counted == [Usage(input_tokens=3)]


async def test_a_stream_is_relayed_as_it_comes():
    talk = Talk(stream=True)
    pieces = [sse(chunk("Hel")), sse(chunk("lo")), sse(chunk(finish="stop"), usage_chunk(), "[DONE]")]
    exchange = await talk.relay(*pieces)
    assert exchange.written == sse(
        *[chunk(**one, model="house/up") for one in ({"content": "Hel"}, {"content": "lo"}, {"finish": "stop"})],
        "[DONE]",
    )
    assert exchange.header("content-type") == "text/event-stream; charset=utf-8"
    assert exchange.header("x-ratelimit-limit-requests") == "60"
    assert (exchange.finished, exchange.source, talk.meter.begun) == (1, None, 1)
    assert talk.meter.counted == [Usage(input_tokens=5, output_tokens=2)]


async def test_nothing_is_sent_before_the_first_whole_event_and_it_is_not_held_back():
    talk, pause = Talk(stream=True), Pause()
    event = sse(chunk("Hi"))
    going = asyncio.ensure_future(talk.relay(event[:20], pause, event[20:], second := Pause(), sse("[DONE]")))
    async with asyncio.timeout(30):
        await pause.reached.wait()
        assert not talk.exchange.started
        pause.go_on.set()
        await second.reached.wait()
        assert talk.exchange.events == [chunk("Hi", model="house/up")]
        assert talk.exchange.source is not None
        second.go_on.set()
        await going


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b'{"choices":[]}',),
        (BROKEN,),
        (sse({"error": {"message": "no"}}),),
        (sse(chunk("Hi"), {"error": {"message": "no"}}),),
        (b"data: {\n\n",),
        (b"data: ", BROKEN),
    ],
    ids=repr,
)
async def test_a_stream_that_fails_before_its_first_event_may_be_tried_elsewhere(pieces):
    talk = Talk(stream=True)
    with pytest.raises(UpstreamError) as caught:
        await talk.relay(*pieces)
    assert caught.value.may_fall_back
    assert (talk.reply.started, talk.exchange.started) == (False, False)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((BROKEN,), BROKEN.message),
        ((), BROKEN.message),
        ((b'data: {"cho',), BROKEN.message),
        ((sse({"error": {"message": "GPU on fire"}}), sse(chunk("late"))), "GPU on fire"),
        ((b"data: {\n\n",), "The upstream sent an event that cannot be read."),
    ],
    ids=repr,
)
async def test_a_stream_that_fails_later_says_so_and_is_not_done(pieces, message):
    talk = Talk(stream=True)
    with pytest.raises(UpstreamError):
        await talk.relay(sse(chunk("Hi")), *pieces)
    first, last = talk.exchange.events
    assert first == chunk("Hi", model="house/up")
    assert last["error"]["message"] == message
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert (talk.exchange.finished, talk.exchange.source) == (1, None)


async def test_what_goes_wrong_after_done_takes_nothing_from_the_client():
    exchange = await Talk(stream=True).relay(sse(chunk("Hi"), chunk(finish="stop")), sse("[DONE]"), BROKEN)
    assert exchange.events[-1] == "[DONE]"
    assert exchange.finished == 1


async def test_a_finished_stream_without_done_gets_one():
    exchange = await Talk(stream=True).relay(sse(chunk("Hi"), chunk(finish="stop")))
    assert exchange.events[-1] == "[DONE]"
    assert exchange.finished == 1


async def test_a_cancelled_relay_lets_the_upstream_go_and_writes_nothing_more():
    talk, pause = Talk(stream=True), Pause()
    going = asyncio.ensure_future(talk.relay(sse(chunk("Hi")), pause))
    async with asyncio.timeout(30):
        await pause.reached.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (talk.exchange.source, talk.exchange.finished) == (None, 0)


async def test_a_client_that_leaves_after_done_has_had_everything():
    talk, pause = Talk(stream=True), Pause()
    going = asyncio.ensure_future(talk.relay(sse(chunk("Hi"), chunk(finish="stop")), sse("[DONE]"), pause))
    async with asyncio.timeout(30):
        await pause.reached.wait()
    going.cancel()
    exchange = await going
    assert exchange.events[-1] == "[DONE]"
    assert (exchange.source, exchange.finished, going.cancelling()) == (None, 1, 0)


ANSWER = [
    Text(index=0, text="Hi"),
    Finished(index=0, reason="stop"),
    Used(usage=Usage(input_tokens=1, output_tokens=2)),
]


async def test_events_are_rendered_whole():
    talk = Talk(Operation.COMPLETION)
    exchange = await talk.render(*ANSWER)
    assert exchange.json["choices"][0]["text"] == "Hi"
    assert exchange.json["id"].startswith("cmpl-")
    assert talk.meter.counted == [Usage(input_tokens=1, output_tokens=2)]
    assert (exchange.finished, talk.meter.begun, talk.reply.started) == (1, 1, True)


async def test_events_are_rendered_as_a_stream():
    talk = Talk(Operation.COMPLETION, stream=True)
    exchange = await talk.render(*ANSWER)
    assert [one if one == "[DONE]" else one["choices"][0]["text"] for one in exchange.events] == ["Hi", "", "[DONE]"]
    assert (exchange.finished, talk.meter.begun) == (1, 1)
    assert talk.meter.counted == [Usage(input_tokens=1, output_tokens=2)]


async def test_a_rendered_stream_that_breaks_says_so():
    talk = Talk(Operation.COMPLETION, stream=True)
    with pytest.raises(UpstreamBroken):
        await talk.render(ANSWER[0], BROKEN)
    assert talk.exchange.events[-1]["error"]["code"] == "upstream_broken"
    assert talk.exchange.finished == 1


@pytest.mark.parametrize("pieces", [(BROKEN,), (ANSWER[0], BROKEN)])
@pytest.mark.parametrize("stream", [True, False])
async def test_rendering_that_fails_before_anything_is_sent_leaves_the_client_untouched(stream, pieces):
    talk = Talk(Operation.COMPLETION, stream=stream)
    with pytest.raises(UpstreamBroken):
        await talk.render(*pieces)
    assert talk.exchange.started is talk.reply.started is (stream and len(pieces) > 1)


def test_the_body_is_the_clients_own_in_its_own_wire():
    talk = Talk()
    assert talk.reply.fields(Wire.OPENAI_CHAT) is talk.reply._call.fields


def test_a_completion_can_be_said_as_a_chat_and_nothing_else_can_be_translated():
    assert "messages" in Talk(Operation.COMPLETION).reply.fields(Wire.OPENAI_CHAT)
    for operation, wire in ((Operation.CHAT, Wire.OPENAI_COMPLETION), (Operation.EMBEDDING, Wire.OPENAI_CHAT)):
        with pytest.raises(BadRequest) as caught:
            Talk(operation).reply.fields(wire)
        assert caught.value.code == "unsupported_operation"
