import asyncio
import json

import msgspec
import pytest

from stellwerk.api.ollama.openai_requests import Abilities
from stellwerk.api.ollama.reply import OllamaReply
from stellwerk.api.ollama.requests import ChatBody, EmbedBody, GenerateBody
from stellwerk.core.call import Call, Operation, Place, Wire
from stellwerk.core.errors import BadRequest, UpstreamBroken, UpstreamError
from stellwerk.core.events import Finished, Text, ToolCall, Used
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Target
from tests.port_fakes import ALICE, CountingMeter, Pause, PlayedAnswer, RecordedExchange, StillClock

TARGET = Target(provider="ollama", model="up:8b")
BROKEN = UpstreamBroken("The upstream broke off.", may_fall_back=True)
BODIES = {Wire.OLLAMA_CHAT: ChatBody, Wire.OLLAMA_GENERATE: GenerateBody, Wire.OLLAMA_EMBED: EmbedBody}


class Talk:
    """One reply with everything around it."""

    def __init__(self, wire=Wire.OLLAMA_CHAT, *, stream=True, old=False) -> None:
        self.exchange, self.meter = RecordedExchange(), CountingMeter()
        call = Call(
            id="req_1",
            operation=Operation.EMBEDDING if wire is Wire.OLLAMA_EMBED else Operation.CHAT,
            wire=wire,
            model="up",
            fields={"model": msgspec.Raw(b'"up"'), "x": msgspec.Raw(b"1")},
            principal=ALICE,
            received=98.0,
            deadline=1e12,
            stream=stream and wire is not Wire.OLLAMA_EMBED,
            place=Place(),
        )
        body = BODIES[wire](model="up:latest")
        self.call = call
        self.reply = OllamaReply(call, self.exchange, body, abilities=Abilities(), clock=StillClock(), old=old)
        self.reply.admit(((b"x-ratelimit-limit-requests", b"60"),))

    async def relay(self, *pieces):
        async with asyncio.timeout(30):
            await self.reply.relay(PlayedAnswer(*pieces), TARGET, self.meter)
        return self.exchange

    async def render(self, *pieces, answer=None):
        async def play():
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece

        async with asyncio.timeout(30):
            await self.reply.render(play(), answer or PlayedAnswer(), TARGET, self.meter)
        return self.exchange

    @property
    def lines(self):
        return [json.loads(line) for line in self.exchange.written.splitlines()]


def line(content="", **more):
    said = {"model": "up:8b", "message": {"role": "assistant", "content": content}, "done": False, **more}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


LAST = line(done=True, done_reason="stop", prompt_eval_count=5, eval_count=2)


async def test_a_stream_of_an_ollama_passes_under_the_clients_name():
    talk = Talk()
    first = line("Hel")
    exchange = await talk.relay(first[:10], first[10:], line("lo") + LAST[:9], LAST[9:])
    assert exchange.written == (first + line("lo") + LAST).replace(b"up:8b", b"up:latest")
    assert exchange.header("content-type") == "application/x-ndjson"
    assert exchange.header("x-request-id") == "req_1"
    assert exchange.header("x-ratelimit-limit-requests") == "60"
    assert (exchange.status, exchange.finished, exchange.source) == (200, 1, None)
    assert talk.meter.counted == [Usage(input_tokens=5, output_tokens=2)]


async def test_a_whole_answer_of_an_ollama_passes_as_one_object():
    talk = Talk(stream=False)
    exchange = await talk.relay(LAST)
    assert exchange.json == json.loads(LAST.replace(b"up:8b", b"up:latest"))
    assert exchange.header("content-type") == "application/json; charset=utf-8"
    assert talk.meter.counted == [Usage(input_tokens=5, output_tokens=2)]
    assert (talk.meter.events, talk.meter.begun) == (1, 1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("pieces", [(b"",), (b"<html>\n",), (b'{"error":"no"}\n',), (b'{"mod', BROKEN), (BROKEN,)])
async def test_a_failure_before_the_first_line_leaves_the_client_untouched(stream, pieces):
    talk = Talk(stream=stream)
    with pytest.raises(UpstreamError) as caught:
        await talk.relay(*pieces)
    assert caught.value.may_fall_back
    assert (talk.reply.started, talk.exchange.started, talk.meter.begun) == (False, False, 0)


@pytest.mark.parametrize("failure", [b'{"error":"no memory"}\n', BROKEN, b"<html>\n", b""])
async def test_a_failure_inside_is_the_last_line(failure):
    talk = Talk()
    with pytest.raises(UpstreamError):
        await talk.relay(line("Hel"), failure)
    assert list(talk.lines[-1]) == ["error"]
    assert [said.get("done") for said in talk.lines] == [False, None]
    assert (talk.exchange.finished, talk.exchange.source) == (1, None)


async def test_a_failure_after_the_last_line_harms_nobody():
    talk = Talk()
    await talk.relay(line("Hel"), LAST, BROKEN)
    assert talk.lines[-1]["done"]
    assert talk.exchange.finished == 1


async def test_a_client_that_leaves_ends_it():
    talk, pause = Talk(), Pause()
    task = asyncio.create_task(talk.relay(line("Hel"), pause))
    await asyncio.wait_for(pause.reached.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (talk.exchange.finished, talk.exchange.source) == (0, None)


async def test_events_become_lines():
    talk = Talk(Wire.OLLAMA_GENERATE)
    usage = Usage(input_tokens=5, output_tokens=2)
    exchange = await talk.render(
        Text(index=0, text="Hel"), Text(index=0, text="lo"), Finished(index=0, reason="stop"), Used(usage=usage)
    )
    assert [said["response"] for said in talk.lines] == ["Hel", "lo", ""]
    assert {said["model"] for said in talk.lines} == {"up:latest"}
    last = talk.lines[-1]
    assert (last["total_duration"], last["prompt_eval_duration"]) == (2_000_000_000, 250_000_000)
    assert (last["prompt_eval_count"], last["eval_count"]) == (5, 2)
    assert (exchange.finished, exchange.source, talk.meter.counted, talk.meter.events) == (1, None, [usage], 2)


async def test_an_answer_without_words_is_complete_too():
    talk = Talk()
    await talk.render(Finished(index=0, reason="stop"))
    assert [said["done"] for said in talk.lines] == [True]


async def test_events_become_one_object_for_who_wants_no_stream():
    talk = Talk(stream=False)
    call = ToolCall(index=0, number=0, id="a", name="f", arguments="{}")
    exchange = await talk.render(Text(index=0, text="Hi"), call, Finished(index=0, reason="tool_calls"))
    function = {"index": 0, "name": "f", "arguments": {}}
    said = {"role": "assistant", "content": "Hi", "tool_calls": [{"id": "a", "function": function}]}
    assert exchange.json["message"] == said
    assert (exchange.json["done"], exchange.json["done_reason"]) == (True, "stop")
    assert (talk.meter.events, talk.meter.begun, exchange.pieces) == (1, 1, 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_events_that_fail_first_leave_the_client_untouched(stream):
    talk = Talk(stream=stream)
    with pytest.raises(UpstreamBroken):
        await talk.render(BROKEN)
    assert (talk.reply.started, talk.exchange.started) == (False, False)


async def test_events_that_fail_later_end_in_an_error_line():
    talk = Talk()
    with pytest.raises(UpstreamBroken):
        await talk.render(Text(index=0, text="Hel"), BROKEN)
    assert talk.lines[-1] == {"error": "The upstream broke off."}
    assert talk.exchange.finished == 1


async def test_a_tool_call_that_breaks_at_the_very_end_is_no_answer():
    talk = Talk(stream=False)
    with pytest.raises(UpstreamBroken):
        await talk.render(Text(index=0, text="Hi"), ToolCall(index=0, number=0, name="f", arguments="{"))
    assert not talk.exchange.started


@pytest.mark.parametrize(("old", "said"), [(False, {"model": "up:latest", "embeddings": [[1.5]]}), (True, {})])
async def test_vectors_are_relayed_and_translated(old, said):
    native = {"model": "up:8b", "embeddings": [[1.5]], "prompt_eval_count": 3}
    other = {"object": "list", "data": [{"index": 0, "embedding": [1.5]}], "usage": {"prompt_tokens": 3}}
    relayed, rendered = Talk(Wire.OLLAMA_EMBED, old=old), Talk(Wire.OLLAMA_EMBED, old=old)
    await relayed.relay(json.dumps(native).encode())
    await rendered.render(answer=PlayedAnswer(json.dumps(other).encode()))
    for talk in (relayed, rendered):
        assert talk.meter.counted == [Usage(input_tokens=3)]
        assert talk.exchange.json.items() >= said.items()
        if old:
            assert talk.exchange.json == {"embedding": [1.5]}


@pytest.mark.parametrize("body", [b"{}", b'{"error":{"message":"no"}}', b'{"data":[]}', b'{"data":[{}]}'])
async def test_no_vector_is_an_error(body):
    talk = Talk(Wire.OLLAMA_EMBED, old=True)
    with pytest.raises(UpstreamError) as caught:
        await talk.render(answer=PlayedAnswer(body))
    assert caught.value.may_fall_back
    assert not talk.exchange.started


def test_fields_are_given_in_the_wire_of_the_provider():
    talk = Talk()
    assert talk.reply.fields(Wire.OLLAMA_CHAT) is talk.call.fields
    assert "x" not in talk.reply.fields(Wire.OPENAI_CHAT)
    assert set(Talk(Wire.OLLAMA_EMBED).reply.fields(Wire.OPENAI_EMBEDDING)) == {"model", "encoding_format"}
    for wire in (Wire.OPENAI_COMPLETION, Wire.OPENAI_EMBEDDING, Wire.OLLAMA_GENERATE):
        with pytest.raises(BadRequest):
            talk.reply.fields(wire)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_says_who_gave_it_and_where_its_call_had_to_wait(stream):
    talk = Talk(stream=stream)
    talk.call.place.take(3)
    line = {"model": "up:8b", "message": {"role": "assistant", "content": "Hi"}, "done": True}
    await talk.relay(json.dumps(line).encode() + b"\n")
    assert talk.exchange.header("x-stellwerk-model") == "ollama/up:8b"
    assert talk.exchange.header("x-stellwerk-queue-position") == "3"
    assert not talk.reply.tell(BROKEN)
