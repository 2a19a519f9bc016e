"""OpenAI's own Python client reads streamed responses of a running gateway, whatever speaks behind it."""

import asyncio
import json

import openai
import pydantic
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.gateway_process import ADMIN_KEY
from tests.scripted_upstream import Talk, chunk, usage_chunk
from tests.upstream_scripts import failing, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Pet(pydantic.BaseModel):
    name: str
    age: int


class Sum(pydantic.BaseModel):
    a: int
    b: int


def piece(finish: str | None = None, **delta) -> dict:
    return {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(index: int, arguments: str, **more) -> dict:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return piece(tool_calls=[{"index": index, "function": function, **more}])


CALLS = (
    piece(role="assistant", content=None),
    call(0, "", id="call_1", type="function", name="add"),
    call(0, '{"a":1,'),
    call(0, '"b":2}'),
    call(1, "", id="call_2", type="function", name="add"),
    call(1, '{"a":3,"b":4}'),
    piece("tool_calls"),
    usage_chunk(),
)


async def collect(client: AsyncOpenAI, **more) -> list:
    stream = await client.responses.create(model="up/up", input="Hello", stream=True, **more)
    return [event async for event in stream]


def text_of(events) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def test_a_response_is_streamed_in_numbered_events(client, upstream):
    events = await collect(client, instructions="Be short.", metadata={"run": "7"})
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert text_of(events) == "Hello!"
    last = events[-1].response
    assert (last.status, last.output_text, last.usage.total_tokens) == ("completed", "Hello!", 7)
    assert (last.id, last.model, last.metadata) == (events[0].response.id, "up/up", {"run": "7"})
    assert (events[0].response.status, events[0].response.output) == ("in_progress", [])
    sent = upstream.requests[0].json
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}


async def test_the_head_of_a_streamed_response_is_that_of_a_streamed_chat(client, upstream):
    options = {"model": "up/up", "input": "Hello", "stream": True}
    async with client.responses.with_streaming_response.create(
        **options, extra_headers={"x-request-id": "mine"}
    ) as got:
        assert got.headers["content-type"].startswith("text/event-stream")
        assert (got.headers["x-request-id"], got.headers["x-stellwerk-model"]) == ("mine", "up/up")
        lines = [line async for line in got.iter_lines()]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names == [event["type"] for event in data]
    assert "[DONE]" not in "".join(lines)


async def test_the_client_without_asyncio_streams_too(gateway, upstream):
    def ask() -> tuple[str, Response]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=ADMIN_KEY, max_retries=0, timeout=60) as client:
            with client.responses.create(model="up/up", input="Hello", stream=True) as stream:
                text = text_of(list(stream))
            with client.responses.stream(model="up/up", input="Hello") as stream:
                return text, stream.get_final_response()

    text, response = await asyncio.to_thread(ask)
    assert (text, response.output_text) == ("Hello!", "Hello!")


async def test_calls_of_tools_are_streamed_and_can_be_answered(client, upstream):
    upstream.script = streaming(*CALLS)
    async with client.responses.stream(model="up/up", input="1+2, 3+4?", tools=[ADD]) as stream:
        events = [event async for event in stream]
        response = await stream.get_final_response()
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert [(event.output_index, event.delta) for event in deltas] == [
        (0, '{"a":1,'),
        (0, '"b":2}'),
        (1, '{"a":3,"b":4}'),
    ]
    assert deltas[1].snapshot == '{"a":1,"b":2}'
    calls = response.output
    assert [(one.type, one.call_id, one.name, one.status) for one in calls] == [
        ("function_call", "call_1", "add", "completed"),
        ("function_call", "call_2", "add", "completed"),
    ]
    answers = [{"type": "function_call_output", "call_id": one.call_id, "output": "3"} for one in calls]
    upstream.script = streaming(chunk("3"), chunk(finish="stop"))
    asked = [{"role": "user", "content": "1+2, 3+4?"}, *(one.to_dict() for one in calls), *answers]
    stream = await client.responses.create(model="up/up", input=asked, tools=[ADD], stream=True)
    assert text_of([event async for event in stream]) == "3"
    messages = upstream.requests[-1].json["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert len(messages[1]["tool_calls"]) == 2


async def test_tools_of_pydantic_are_parsed_at_the_end(client, upstream):
    upstream.script = streaming(*CALLS)
    tools = [openai.pydantic_function_tool(Sum, name="add")]
    flat = [{"type": "function", **tool["function"]} for tool in tools]
    async with client.responses.stream(model="up/up", input="1+2?", tools=flat) as stream:
        response = await stream.get_final_response()
    assert [one.parsed_arguments for one in response.output] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


async def test_an_answer_in_a_form_is_parsed(client, upstream):
    upstream.script = streaming(chunk('{"name":"Rex",'), chunk('"age":3}'), chunk(finish="stop"), usage_chunk())
    async with client.responses.stream(model="up/up", input="A pet?", text_format=Pet) as stream:
        async for event in stream:
            if event.type == "response.output_text.done":
                assert event.parsed == Pet(name="Rex", age=3)
        response = await stream.get_final_response()
    assert response.output_parsed == Pet(name="Rex", age=3)
    assert upstream.requests[0].json["response_format"]["json_schema"]["name"] == "Pet"


async def test_thoughts_come_before_the_answer(client, upstream):
    upstream.script = streaming(
        piece(reasoning_content="Hm"), piece(reasoning_content="m."), chunk("Hi"), chunk(finish="stop"), usage_chunk()
    )
    events = await collect(client)
    thoughts = [event for event in events if event.type == "response.reasoning_text.delta"]
    assert "".join(event.delta for event in thoughts) == "Hmm."
    reasoning, message = events[-1].response.output
    assert (reasoning.type, reasoning.content[0].text, message.content[0].text) == ("reasoning", "Hmm.", "Hi")
    done = [event.item.type for event in events if event.type == "response.output_item.done"]
    assert done == ["reasoning", "message"]


async def test_a_refusal_is_a_part_of_its_own(client, upstream):
    upstream.script = streaming(
        piece(role="assistant", content=""), piece(refusal="I "), piece(refusal="won't."), chunk(finish="stop")
    )
    events = await collect(client)
    said = "".join(event.delta for event in events if event.type == "response.refusal.delta")
    assert said == "I won't."
    assert [part.type for part in events[-1].response.output[0].content] == ["refusal"]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_was_cut_ends_incomplete(client, upstream, finish, reason):
    upstream.script = streaming(chunk("Hel"), chunk(finish=finish), usage_chunk())
    last = (await collect(client))[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "incomplete")
    assert (last.response.incomplete_details.reason, last.response.output[0].status) == (reason, "incomplete")
    assert last.response.usage.total_tokens == 7


async def hear(client, upstream, then) -> list:
    """The events of a stream that says `Hel`, and goes on with `then` when the client has read that."""
    read = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Hel"))
        await read.wait()
        await then(talk)

    upstream.script = script
    events = []
    async for event in await client.responses.create(model="up/up", input="Hello", stream=True):
        events.append(event)
        if event.type == "response.output_text.delta":
            read.set()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


async def test_an_error_in_the_middle_ends_it_as_failed(client, upstream):
    async def fail(talk: Talk) -> None:
        await talk.event({"error": {"message": "Out of memory.", "code": "oom"}})
        await talk.finish_stream()

    last = (await hear(client, upstream, fail))[-1]
    assert (last.type, last.response.status, last.response.output_text) == ("response.failed", "failed", "Hel")
    assert last.response.error.code == "server_error"
    assert "Out of memory." in last.response.error.message


async def test_an_upstream_that_breaks_off_is_told_as_failed(client, upstream):
    async def cut(talk: Talk) -> None:
        talk.cut()

    last = (await hear(client, upstream, cut))[-1]
    assert (last.type, last.response.output[0].status) == ("response.failed", "incomplete")


@pytest.mark.parametrize(
    "garbage", ['{"choices":[{"delta":{"content":1},"finish_reason":null}]}', '{"finish_reason":null', "{"]
)
async def test_what_cannot_be_read_is_told_as_failed(gateway, client, upstream, garbage):
    async def babble(talk: Talk) -> None:
        await talk.chunk(f"data: {garbage}\n\n".encode())
        # It is not listened to any more.
        await talk.left.wait()

    last = (await hear(client, upstream, babble))[-1]
    assert (last.type, last.response.output_text) == ("response.failed", "Hel")
    assert last.response.error.message


async def test_what_fails_before_the_first_byte_is_an_error_with_its_status(client, upstream):
    upstream.script = failing(429)
    with pytest.raises(openai.RateLimitError):
        await collect(client)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="up/unknown", input="Hello", stream=True)


async def test_a_request_in_the_form_of_codex_is_answered(client, upstream):
    upstream.script = streaming(call(0, "{}", id="call_1", name="agents__wait"), piece("tool_calls"), usage_chunk())
    wait = {"type": "function", "name": "wait", "strict": False, "parameters": {"type": "object", "properties": {}}}
    text = {"type": "input_text", "text": "Hello"}
    asked = {
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "id": "msg_1", "role": role, "content": [text]} for role in ("developer", "user")
        ],
        "tools": [
            ADD,
            {"type": "namespace", "name": "agents", "description": "Agents.", "tools": [wait]},
            {"type": "web_search", "external_web_access": False, "search_content_types": ["text", "image"]},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "prompt_cache_key": "thread-1",
        "extra_body": {"client_metadata": {"turn_id": "1"}},
    }
    stream = await client.responses.create(model="up/up", stream=True, **asked)
    events = [event async for event in stream]
    assert [tool.type for tool in events[-1].response.tools] == ["function", "namespace"]
    [done] = [event.item for event in events if event.type == "response.output_item.done"]
    assert (done.namespace, done.name, done.call_id) == ("agents", "wait", "call_1")
    sent = upstream.requests[0].json
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["add", "agents__wait"]
    assert [message["role"] for message in sent["messages"]] == ["system", "developer", "user"]
    assert sent["prompt_cache_key"] == "thread-1"
    assert "client_metadata" not in sent
