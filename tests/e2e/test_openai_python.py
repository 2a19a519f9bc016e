"""OpenAI's own Python client against a running gateway, with an upstream that says what each test needs."""

import asyncio
import base64
import json
import struct

import openai
import pydantic
import pytest
from openai import AsyncOpenAI

from tests.gateway_process import ADMIN_KEY
from tests.openai_client import HELLO, client_of, new_key, text_of
from tests.raw_http import post
from tests.scripted_upstream import Talk, chunk, completion, usage_chunk
from tests.upstream_scripts import answering, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "maximum": 9007199254740991}},
            "required": ["place"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


# --- chat


async def test_a_chat_is_answered(client, upstream):
    answer = await client.chat.completions.create(model="up/up", messages=HELLO)
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7
    assert answer.model == "up/up"


async def test_a_chat_is_streamed(client, upstream):
    stream = await client.chat.completions.create(model="up/up", messages=HELLO, stream=True)
    chunks = [part async for part in stream]
    assert "".join(part.choices[0].delta.content or "" for part in chunks) == "Hello!"
    assert [part.choices[0].finish_reason for part in chunks] == [None, None, None, "stop"]
    assert len({part.id for part in chunks}) == 1
    assert {part.model for part in chunks} == {"up/up"}


async def test_the_client_without_asyncio_works_too(gateway, upstream):
    def ask() -> str:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=ADMIN_KEY, max_retries=0, timeout=60) as client:
            stream = client.chat.completions.create(model="up/up", messages=HELLO, stream=True)
            return "".join(part.choices[0].delta.content or "" for part in stream)

    assert await asyncio.to_thread(ask) == "Hello!"


async def test_a_base_address_without_v1_works_too(gateway, upstream):
    async with AsyncOpenAI(base_url=gateway.url, api_key=ADMIN_KEY, max_retries=0) as client:
        assert (await client.chat.completions.create(model="up/up", messages=HELLO)).choices


async def test_several_choices_keep_their_numbers_in_a_stream(client, upstream):
    parts = [("a", 0), ("x", 1), ("b", 0), ("y", 1)]
    events = [
        {**chunk(), "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}
        for text, index in parts
    ]
    upstream.script = streaming(*events, chunk(finish="stop"))
    stream = await client.chat.completions.create(model="up/up", messages=HELLO, stream=True, n=2)
    seen = [(part.choices[0].delta.content, part.choices[0].index) async for part in stream]
    assert seen[:-1] == parts
    assert upstream.requests[0].json["n"] == 2


async def test_unknown_fields_reach_the_upstream_unchanged(client, upstream):
    unknown = {
        "reasoning": {"effort": "low", "tokens": None},
        "x_list": [1, 2.5, "ü", {"a": []}],
        "top_k": 12345678901234,
    }
    messages = [
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "x"}}]}
    ]
    await client.chat.completions.create(
        model="up/up",
        messages=messages,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        metadata={"run": "7"},
        service_tier="flex",
        store=False,
        extra_body=unknown,
    )
    sent = upstream.requests[0].json
    assert sent == {
        "model": "up",
        "messages": messages,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "metadata": {"run": "7"},
        "service_tier": "flex",
        "store": False,
        **unknown,
    }


async def test_values_reach_the_upstream_as_they_were_written(gateway, upstream):
    body = (
        b'{"messages": [{"role":"user","content":"\\u00fc"}], "model":"up/up", "x": [1.50, 1e2, 123456789012345678901]}'
    )
    assert (await post(gateway.port, ADMIN_KEY, body)).status == 200
    sent = upstream.requests[0].body
    assert b"[1.50, 1e2, 123456789012345678901]" in sent
    assert b'"\\u00fc"' in sent


# --- tools


def tool_chunk(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> dict:
    call: dict = {"index": index, "function": {"arguments": arguments}}
    if call_id is not None:
        call |= {"id": call_id, "type": "function"}
        call["function"]["name"] = name
    return {**chunk(), "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


BEGIN = {**chunk(), "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]}
ROME = [tool_chunk(0, "", "call_a", "weather"), tool_chunk(0, '{"place":'), tool_chunk(0, '"Rome"}')]
OSLO = [tool_chunk(1, "", "call_b", "weather"), tool_chunk(1, '{"place":"Os'), tool_chunk(1, 'lo"}')]


async def two_calls_then_an_answer(talk: Talk) -> None:
    """Asks for the weather of two places at once, and then tells what it was."""
    results = [message["content"] for message in talk.request.json["messages"] if message["role"] == "tool"]
    if results:
        script = streaming(chunk(" and ".join(results)), chunk(finish="stop"))
    else:
        script = streaming(BEGIN, *ROME, *OSLO, chunk(finish="tool_calls"))
    await script(talk)


async def test_two_parallel_tool_calls_make_a_round_trip_in_a_stream(client, upstream):
    upstream.script = two_calls_then_an_answer
    messages: list = [{"role": "user", "content": "Weather in Rome and Oslo?"}]
    async with client.chat.completions.stream(model="up/up", messages=messages, tools=[WEATHER]) as stream:
        asked = (await stream.get_final_completion()).choices[0]
    assert asked.finish_reason == "tool_calls"
    calls = asked.message.tool_calls
    assert [(call.id, json.loads(call.function.arguments)) for call in calls] == [
        ("call_a", {"place": "Rome"}),
        ("call_b", {"place": "Oslo"}),
    ]
    messages.append(asked.message.model_dump(exclude_none=True, exclude={"parsed"}))
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": f"sun in {json.loads(call.function.arguments)['place']}"}
        for call in calls
    ]
    stream = await client.chat.completions.create(model="up/up", messages=messages, tools=[WEATHER], stream=True)
    assert await text_of(stream) == "sun in Rome and sun in Oslo"
    first, second = (request.json for request in upstream.requests)
    assert first["tools"] == second["tools"] == [WEATHER]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in second["messages"][1]["tool_calls"]] == ["call_a", "call_b"]


async def test_the_mixed_pieces_of_two_calls_stay_apart(client, upstream):
    mixed = [event for pair in zip(ROME, OSLO, strict=True) for event in pair]
    upstream.script = streaming(*mixed, chunk(finish="tool_calls"))
    stream = await client.chat.completions.create(model="up/up", messages=HELLO, tools=[WEATHER], stream=True)
    arguments = {0: "", 1: ""}
    async for part in stream:
        for call in part.choices[0].delta.tool_calls or []:
            arguments[call.index] += call.function.arguments
    assert arguments == {0: '{"place":"Rome"}', 1: '{"place":"Oslo"}'}


async def test_a_tool_call_comes_back_whole_without_a_stream(client, upstream):
    call = {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Rom"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = completion()
    body["choices"] = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    upstream.script = answering(200, body)
    answer = await client.chat.completions.create(
        model="up/up", messages=HELLO, tools=[WEATHER], parallel_tool_calls=False
    )
    [given] = answer.choices[0].message.tool_calls or []
    assert given.model_dump(exclude_none=True) == call
    assert upstream.requests[0].json["parallel_tool_calls"] is False


# --- structured answers


class City(pydantic.BaseModel):
    name: str
    people: int


async def test_parse_gives_an_object(client, upstream):
    upstream.script = answering(200, completion('{"name":"Rom","people":2800000}'))
    answer = await client.chat.completions.parse(model="up/up", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rom", people=2800000)
    sent = upstream.requests[0].json["response_format"]
    assert (sent["type"], sent["json_schema"]["strict"]) == ("json_schema", True)


async def test_the_streaming_helper_gives_an_object(client, upstream):
    upstream.script = streaming(chunk('{"name":"Rom",'), chunk('"people":7}'), chunk(finish="stop"))
    async with client.chat.completions.stream(model="up/up", messages=HELLO, response_format=City) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == City(name="Rom", people=7)
    assert {"content.delta", "content.done", "chunk"} <= kinds


# --- usage


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not asked"])
async def test_the_usage_chunk_comes_only_when_asked_and_the_ledger_has_it_always(gateway, client, upstream, asked):
    options = {"stream_options": {"include_usage": True}} if asked else {}
    request_id = f"usage-{asked}"
    stream = await client.chat.completions.create(
        model="up/up", messages=HELLO, stream=True, extra_headers={"x-request-id": request_id}, **options
    )
    chunks = [part async for part in stream]
    usages = [part.usage.total_tokens for part in chunks if part.usage is not None]
    assert usages == ([7] if asked else [])
    assert all(part.choices for part in chunks[:-1])
    assert bool(chunks[-1].choices) is not asked
    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}
    row = await gateway.call(request_id)
    assert (row["input_tokens"], row["output_tokens"], row["stream"]) == (5, 2, 1)
    assert 0 < row["first_byte"] <= row["duration"]


async def test_a_usage_chunk_behind_the_end_of_the_stream_is_not_needed(gateway, client, upstream):
    events = [chunk("Hi"), {**chunk(finish="stop"), "usage": usage_chunk()["usage"]}]
    upstream.script = streaming(*events)
    stream = await client.chat.completions.create(
        model="up/up", messages=HELLO, stream=True, extra_headers={"x-request-id": "usage-inside"}
    )
    assert await text_of(stream) == "Hi"
    assert (await gateway.call("usage-inside"))["output_tokens"] == 2


# --- headers


async def test_the_raw_answer_has_openais_headers(gateway, upstream):
    key = await new_key(gateway, "--requests-per-minute", "600", "--burst", "10")
    async with client_of(gateway, key) as client:
        raw = await client.chat.completions.with_raw_response.create(model="up/up", messages=HELLO)
        assert raw.parse().choices[0].message.content == "Hello"
        assert raw.headers["x-request-id"].startswith("req_")
        assert raw.headers["openai-version"] == "2020-10-01"
        assert raw.headers["x-ratelimit-limit-requests"] == "600"
        assert raw.headers["x-ratelimit-remaining-requests"] == "9"
        assert raw.headers["x-ratelimit-reset-requests"] == "1m0s"
        row = await gateway.call(raw.headers["x-request-id"])
        assert row["status"] == 200


async def test_a_streamed_raw_answer_has_them_too(gateway, client, upstream):
    create = client.chat.completions.with_streaming_response.create
    async with create(model="up/up", messages=HELLO, stream=True) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["openai-version"] == "2020-10-01"
        assert raw.headers["x-request-id"].startswith("req_")
        assert [line async for line in raw.iter_lines()][-2] == "data: [DONE]"


async def test_the_clients_own_request_id_is_kept(client, upstream):
    raw = await client.models.with_raw_response.list(extra_headers={"x-request-id": "mine-42"})
    assert raw.headers["x-request-id"] == "mine-42"


async def test_the_providers_headers_are_not_passed_on(client, upstream):
    upstream.script = answering(200, completion(), set_cookie="a=b", x_request_id="theirs", openai_organization="org")
    raw = await client.chat.completions.with_raw_response.create(model="up/up", messages=HELLO)
    assert raw.headers["x-request-id"] != "theirs"
    assert not {"set-cookie", "openai-organization"} & set(raw.headers)


# --- embeddings, completions, models


VECTOR = [0.5, -0.25, 3.0]


def embedding(value) -> dict:
    row = {"object": "embedding", "index": 0, "embedding": value}
    return {
        "object": "list",
        "data": [row],
        "model": "text-embedding-up",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


@pytest.mark.parametrize(
    "sent",
    [VECTOR, base64.b64encode(struct.pack("<3f", *VECTOR)).decode()],
    ids=["floats", "base64"],
)
async def test_an_embedding_arrives_whatever_the_upstream_sends(gateway, client, upstream, sent):
    upstream.script = answering(200, embedding(sent))
    request_id = f"embedding-{type(sent).__name__}"
    answer = await client.embeddings.create(
        model="text-embedding-up", input="text", extra_headers={"x-request-id": request_id}
    )
    assert upstream.requests[0].json["encoding_format"] == "base64"
    assert answer.data[0].embedding == VECTOR
    row = await gateway.call(request_id)
    assert (row["operation"], row["input_tokens"], row["status"]) == ("embedding", 3, 200)


async def test_an_embedding_asked_for_in_floats_stays_so(client, upstream):
    upstream.script = answering(200, embedding(VECTOR))
    answer = await client.embeddings.create(
        model="text-embedding-up", input=["a", "b"], encoding_format="float", dimensions=3
    )
    assert answer.data[0].embedding == VECTOR
    assert upstream.requests[0].json == {
        "model": "text-embedding-up",
        "input": ["a", "b"],
        "encoding_format": "float",
        "dimensions": 3,
    }


async def test_a_legacy_completion_is_answered_and_streamed(client, upstream):
    choice = {"index": 0, "text": "Hello", "finish_reason": "stop"}
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "up", "choices": [choice]}
    upstream.script = answering(200, body)
    answer = await client.completions.create(model="up/up", prompt="Say hello", max_tokens=5)
    assert answer.choices[0].text == "Hello"
    assert upstream.requests[0].path == "/v1/completions"
    parts = [{**body, "choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("Hel", "lo")]
    upstream.script = streaming(*parts, {**body, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    stream = await client.completions.create(model="up/up", prompt="Say hello", stream=True)
    assert "".join([part.choices[0].text async for part in stream]) == "Hello"


async def test_models_are_listed_and_found_by_their_name(client, upstream):
    names = [model.id async for model in client.models.list()]
    assert names == ["up/up", "up/vendor/family:large", "up/text-embedding-up", "hasty/silent"]
    for name in names:
        assert (await client.models.retrieve(name)).id == name
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("up/other/family:large")


async def test_a_model_with_slashes_and_a_colon_is_asked_under_its_own_name(client, upstream):
    await client.chat.completions.create(model="up/vendor/family:large", messages=HELLO)
    assert upstream.requests[0].json["model"] == "vendor/family:large"
