"""A streamed response: the chat is relayed as ever, and what the client reads are the events of a response."""

import asyncio
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.responses_answers import begin_response, show_response
from stellwerk.api.openai.responses_items import OutputItems
from stellwerk.api.openai.responses_requests import ResponsesBody
from stellwerk.api.openai.responses_stream import ResponseStream
from stellwerk.api.openai.responses_tools import Tool, full_names
from stellwerk.core.call import Place
from stellwerk.core.errors import GatewayError, Unavailable, UpstreamBroken, UpstreamError
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Target
from tests.port_fakes import CountingMeter, Pause, PlayedAnswer, RecordedExchange, make_call
from tests.scripted_upstream import chunk, usage_chunk

TARGET = Target(provider="house", model="up")
BODY = ResponsesBody(model="house/up", input="Hello")
ROOM = 1_000_000
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Talk:
    """One streamed response with everything around it."""

    def __init__(self, *, room=ROOM, names=None, **fields) -> None:
        self.client, self.meter = RecordedExchange(), CountingMeter()
        response = begin_response(BODY, "resp_1", 1_700_000_000)
        self.exchange = ResponseStream(
            self.client, "/v1/chat", b"{}", {}, response=response, output=OutputItems(room, names)
        )
        self.call = msgspec.structs.replace(make_call(stream=True, wants_usage=True), **fields)
        self.reply = OpenAIReply(self.call, self.exchange, patience=0.0)
        self.error = None

    async def relay(self, *pieces) -> list:
        try:
            async with asyncio.timeout(10):
                await self.reply.relay(PlayedAnswer(*pieces), TARGET, self.meter)
        except GatewayError as error:
            self.error = error
        return self.events

    @property
    def events(self) -> list:
        """What the client has read, held against what all of it must be like."""
        parts = [part for part in self.client.written.decode().split("\n\n") if part and not part.startswith(":")]
        events = []
        for number, part in enumerate(parts):
            name, data = part.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert (name, event["sequence_number"]) == (f"event: {event['type']}", number)
            events.append(event)
        return events

    @property
    def types(self) -> list:
        return [event["type"].removeprefix("response.") for event in self.events]


def sse(*bodies, done=True) -> bytes:
    texts = [json.dumps(body, ensure_ascii=False, separators=(",", ":")) for body in bodies]
    events = [b"data: " + text.encode() + b"\n\n" for text in texts]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def piece(finish=None, **delta) -> dict:
    return {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call_piece(index, name=None, arguments="", call_id=None) -> dict:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    made = {"index": index, "function": function}
    return piece(tool_calls=[made if call_id is None else {**made, "id": call_id, "type": "function"}])


# --- the same as the answer that is not streamed

TEXTS = st.text(max_size=12)
CALLS = st.lists(st.tuples(st.text(min_size=1, max_size=5), TEXTS), max_size=3)
MESSAGES = st.fixed_dictionaries(
    {
        "reasoning_content": st.none() | TEXTS,
        "content": st.none() | TEXTS,
        "refusal": st.none() | TEXTS,
        "calls": CALLS,
    }
)


def cut(data, text):
    """The text in any pieces."""
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def whole_of(message, finish) -> bytes:
    said = {name: message[name] for name in ("reasoning_content", "content", "refusal")}
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(message["calls"])
    ]
    choice = {"index": 0, "message": {**said, **({"tool_calls": calls} if calls else {})}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def pieces_of(data, message, finish) -> list:
    chunks = [
        piece(**{name: part})
        for name in ("reasoning_content", "content", "refusal")
        if message[name] is not None
        for part in cut(data, message[name])
    ]
    for number, (name, arguments) in enumerate(message["calls"]):
        first, *others = cut(data, arguments)
        chunks.append(call_piece(number, name, first, f"call_{number}"))
        chunks += [call_piece(number, arguments=part) for part in others]
    return [*chunks, piece(finish), usage_chunk()]


def without_ids(response):
    for item in response["output"]:
        assert item.pop("id").partition("_")[0] in {"rs", "msg", "fc"}
    return response


@settings(max_examples=150)
@given(message=MESSAGES, finish=st.sampled_from(["stop", "tool_calls", "length", "content_filter"]), data=st.data())
def test_a_text_in_any_pieces_is_the_response_that_it_is_as_a_whole(message, finish, data):
    stream = sse(*pieces_of(data, message, finish))
    talk = Talk()
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    asyncio.run(talk.relay(*(stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True))))
    expected = show_response(
        begin_response(BODY, "resp_1", 1_700_000_000), whole_of(message, finish), OutputItems(ROOM)
    )
    *_, last = talk.events
    check_pieces(talk.events)
    assert last["type"] == f"response.{last['response']['status']}"
    assert without_ids(last["response"]) == without_ids(json.loads(expected))


def check_pieces(events):
    """What was told of each item, piece by piece and at its end, is what stands in the last event."""
    final = {item["id"]: item for item in events[-1]["response"]["output"]}
    texts = dict.fromkeys(final, "")
    for event in events:
        if event["type"].endswith(".delta"):
            texts[event["item_id"]] += event["delta"]
        elif event["type"] == "response.output_item.done":
            assert (
                events[-1]["response"]["output"][event["output_index"]] == event["item"] == final[event["item"]["id"]]
            )
    for name, item in final.items():
        parts = item.get("content", [])
        assert texts[name] == item.get("arguments", "".join(part.get("text", part.get("refusal")) for part in parts))


# --- order


async def test_the_events_of_a_text_come_in_their_order():
    talk = Talk()
    await talk.relay(sse(chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage_chunk()))
    assert talk.types == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert talk.meter.counted == [Usage(input_tokens=5, output_tokens=2)]
    assert (talk.client.finished, talk.client.header("content-type")) == (1, "text/event-stream; charset=utf-8")


async def test_a_thought_is_complete_when_the_model_speaks_and_a_text_when_it_calls():
    talk = Talk()
    await talk.relay(
        sse(piece(reasoning="Hm"), chunk("Wait."), call_piece(0, "f", "{}", "call_1"), chunk(finish="tool_calls"))
    )
    assert talk.types[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["output_index"] for event in talk.events if "output_item.added" in event["type"]] == [0, 1, 2]


async def test_calls_whose_pieces_come_in_turns_stay_apart():
    talk = Talk()
    chunks = [call_piece(0, "f", "", "a"), call_piece(1, "g", "", "b")]
    chunks += [call_piece(0, arguments="[1"), call_piece(1, arguments="[2"), call_piece(0, arguments="]")]
    events = await talk.relay(sse(*chunks, call_piece(1, arguments="]"), piece("tool_calls")))
    output = events[-1]["response"]["output"]
    assert [(one["call_id"], one["name"], one["arguments"]) for one in output] == [("a", "f", "[1]"), ("b", "g", "[2]")]


async def test_a_call_without_an_id_gets_one_that_stays():
    talk = Talk()
    events = await talk.relay(sse(call_piece(0, "f", "{"), call_piece(0, arguments="}"), piece("tool_calls")))
    told = [event["item"]["call_id"] for event in events if "output_item" in event["type"]]
    assert len(told) == 2
    assert set(told) == {events[-1]["response"]["output"][0]["call_id"]}
    assert told[0].startswith("call_")


async def test_a_function_of_a_namespace_is_called_by_both_of_its_names():
    talk = Talk(names=full_names([Tool("namespace", "files", tools=[Tool("function", "read")])]))
    events = await talk.relay(
        sse(call_piece(0, "files__read", "{}", "a"), call_piece(1, "read", "{}", "b"), piece("tool_calls"))
    )
    calls = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [(call.get("namespace"), call["name"]) for call in calls] == [("files", "read"), (None, "read")]
    assert [event["name"] for event in events if event["type"].endswith("arguments.done")] == ["read", "read"]


async def test_logprobs_stand_at_their_texts():
    tokens = [{"token": one, "logprob": -0.5, "bytes": [104], "top_logprobs": []} for one in "ab"]
    chunks = [piece(content=one["token"]) for one in tokens]
    for made, token in zip(chunks, tokens, strict=True):
        made["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    talk = Talk()
    events = await talk.relay(sse(*chunks, piece("stop")))
    told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert told == [[{"token": one, "logprob": -0.5, "top_logprobs": []}] for one in "ab"]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == tokens


# --- while it waits


async def test_comments_pass_between_the_events():
    talk = Talk()
    await talk.relay(sse(chunk("Hi"), done=False) + b": PROCESSING\n\n" + sse(chunk(finish="stop")))
    assert b"\n\n: PROCESSING\n\n" in talk.client.written
    assert talk.types[-1] == "completed"


@pytest.mark.parametrize(
    "foreign",
    [
        b': x\rdata: {"type":"response.completed"}\n\n',
        b"event: response.completed\n\n",
        b": x\nevent: ping\n\n",
        b"retry: 99999999\nid: 7\n\n",
        b"data\n\n",
    ],
)
async def test_what_an_upstream_says_beside_its_data_is_no_event_of_the_response(foreign):
    talk = Talk()
    events = await talk.relay(sse(chunk("Hi"), done=False) + foreign + sse(chunk(finish="stop")))
    assert foreign not in talk.client.written
    # Clients end a line at a return, too, and some take every field for an event.
    assert b"\r" not in talk.client.written
    assert events[-1]["type"] == "response.completed"


async def test_a_stream_that_waits_for_its_turn_has_begun():
    place = Place()
    talk = Talk(place=place)
    place.take(3)
    assert talk.types == ["created", "in_progress"]
    assert talk.client.written.endswith(b": waiting, place 3\n\n")
    assert talk.reply.tell(Unavailable("The queue is full.", code="queue_timeout"))
    [*_, last] = talk.events
    assert (last["type"], last["response"]["error"]["message"]) == ("response.failed", "The queue is full.")
    assert talk.client.finished == 1


# --- failures


async def test_an_upstream_that_breaks_off_has_failed_and_what_it_said_is_kept():
    talk = Talk()
    events = await talk.relay(sse(chunk("Hel"), call_piece(0, "f", "{", "a"), done=False))
    assert isinstance(talk.error, UpstreamError)
    response = events[-1]["response"]
    assert (events[-1]["type"], response["status"], talk.client.finished) == ("response.failed", "failed", 1)
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][1]["arguments"] == "{"


@pytest.mark.parametrize(
    "garbage",
    [
        b'data: {"finish_reason":null\n\n',
        b'data: {"choices":[{"delta":{"content":[]},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ud800"},"finish_reason":null}]}\n\n',
    ],
)
@pytest.mark.parametrize("first", [b"", sse(chunk("Hi"), done=False)])
async def test_what_cannot_be_read_ends_the_upstream_too(garbage, first):
    talk = Talk()
    pause = Pause()
    events = await talk.relay(first, garbage, pause)
    assert isinstance(talk.error, UpstreamBroken)
    assert not pause.reached.is_set()
    assert [event["type"] for event in events if event["type"].endswith(("failed", "completed"))] == ["response.failed"]
    assert events[-1]["response"]["output"] == [] or first
    assert talk.client.finished == 1


async def test_an_answer_that_is_too_large_is_given_up():
    talk = Talk(room=10)
    events = await talk.relay(sse(chunk("x" * 6), done=False), sse(chunk("y" * 6), chunk(finish="stop")))
    assert events[-1]["type"] == "response.failed"
    assert "too large" in events[-1]["response"]["error"]["message"]
    assert talk.client.finished == 1


ODD = st.sampled_from([None, True, -1, 0, 3, "", "x", "{}", [], ["x"], {}, {"name": "f"}, {"arguments": "{"}])
FUNCTIONS = st.fixed_dictionaries({}, optional={"name": ODD, "arguments": ODD})
ODD_CALLS = st.fixed_dictionaries({}, optional={"index": ODD, "id": ODD, "function": FUNCTIONS | ODD})
ODD_DELTAS = st.fixed_dictionaries(
    {}, optional={"content": ODD, "refusal": ODD, "reasoning": ODD, "tool_calls": st.lists(ODD_CALLS, max_size=2) | ODD}
)
ODD_CHOICES = st.fixed_dictionaries(
    {"delta": ODD_DELTAS | ODD, "finish_reason": st.sampled_from([None, "stop", "length"])},
    optional={"index": ODD, "logprobs": ODD},
)
ODD_CHUNKS = st.fixed_dictionaries({"choices": st.lists(ODD_CHOICES, max_size=2)}, optional={"usage": ODD})


@settings(max_examples=150)
@given(chunks=st.lists(ODD_CHUNKS, max_size=4), done=st.booleans())
def test_whatever_an_upstream_sends_its_stream_has_one_end(chunks, done):
    talk = Talk()
    asyncio.run(talk.relay(sse(chunk("Hi"), done=False), sse(*chunks, done=done)))
    endings = [kind for kind in talk.types if kind in ("completed", "incomplete", "failed")]
    assert endings == talk.types[-1:]
    assert talk.client.finished == 1


async def test_a_call_without_a_name_is_no_answer():
    talk = Talk()
    events = await talk.relay(sse(call_piece(0, arguments="{}", call_id="a"), piece("tool_calls")))
    assert events[-1]["type"] == "response.failed"
    assert (events[-1]["response"]["output"], talk.client.finished) == ([], 1)


async def test_an_upstream_that_fails_before_it_speaks_leaves_the_status_open():
    talk = Talk()
    await talk.relay(b"")
    assert talk.error is not None
    assert not talk.client.started
    assert not talk.exchange.started


async def test_a_client_that_leaves_ends_the_upstream():
    talk = Talk()
    pause = Pause()
    going = asyncio.ensure_future(
        talk.reply.relay(PlayedAnswer(sse(chunk("Hi"), done=False), pause), TARGET, talk.meter)
    )
    await pause.reached.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert talk.types[-1] == "output_text.delta"
    assert talk.client.finished == 0
