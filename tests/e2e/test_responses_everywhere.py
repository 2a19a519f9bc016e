"""Streamed responses of everything that a gateway can stand before: a vendor, an Ollama, the demo and own files."""

import json
from collections.abc import AsyncIterator
from typing import Literal

import pydantic
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.ollama_backends import (
    ADD,
    ARGUMENTS,
    MODELS,
    OLLAMA,
    PET,
    SLOT,
    SLOT_CALLS,
    VENDOR,
    Backends,
    play_vendor,
    running_backends,
)
from tests.openai_client import client_of
from tests.scripted_upstream import Talk, chunk, usage_chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")
FUNCTION = {"type": "function", "strict": False, **ADD["function"]}


class Pet(pydantic.BaseModel):
    name: Literal["Rex"]
    age: Literal[3]


async def play_ollama(talk: Talk) -> None:
    """Answers chats as an Ollama does under /v1: thoughts as `reasoning`, and calls of tools whole in one chunk."""
    body = talk.request.json
    if body.get("tools"):
        function = {"name": "add", "arguments": json.dumps(ARGUMENTS)}
        said = [{"content": "", "tool_calls": [{"id": "call_1", "index": 0, "type": "function", "function": function}]}]
    elif body.get("response_format"):
        said = [{"content": json.dumps(PET)}]
    else:
        said = [{"content": "", "reasoning": "Hm."}, {"content": "Hel"}, {"content": "lo!"}]
    ending = ({"content": ""}, "tool_calls" if body.get("tools") else "stop")
    await talk.start_stream()
    for delta, finish in [*((one, None) for one in said), ending]:
        choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
        await talk.event({**chunk(), "choices": [choice]})
    await talk.event(usage_chunk())
    await talk.finish_stream()


async def play(talk: Talk) -> None:
    if talk.request.json.get("response_format"):
        await play_ollama(talk)
    else:
        await play_vendor(talk)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backends(tmp_path_factory) -> AsyncIterator[Backends]:
    async with running_backends(tmp_path_factory.mktemp("responses")) as running:
        yield running


@pytest.fixture(autouse=True)
def played(backends):
    """What is asked of the two upstreams by chats, as well as what they are asked otherwise."""
    backends.renew()

    async def near(talk: Talk) -> None:
        await (play_ollama if talk.request.path.endswith("/v1/chat/completions") else backends.played)(talk)

    backends.ollama.script, backends.vendor.script = near, play


@pytest_asyncio.fixture(loop_scope="module")
async def client(backends) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(backends.gateway, timeout=120) as made:
        yield made


@pytest.mark.parametrize("model", MODELS)
async def test_a_text_is_streamed(client, model):
    text = ""
    async with client.responses.stream(model=model, input="Say hello.", max_output_tokens=16) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in ("response.incomplete", "response.completed"):
                response = event.response
    assert text
    assert (response.output_text, response.model) == (text, model)
    assert response.usage.output_tokens > 0
    assert [item.type for item in response.output][-1] == "message"


async def test_what_an_ollama_thinks_comes_first(client):
    async with client.responses.stream(model=OLLAMA, input="Hello") as stream:
        response = await stream.get_final_response()
    reasoning, _ = response.output
    assert (reasoning.content[0].text, response.output_text) == ("Hm.", "Hello!")


@pytest.mark.parametrize("model", [VENDOR, OLLAMA, SLOT_CALLS])
async def test_a_call_of_a_tool_is_streamed(client, model):
    arguments = ""
    async with client.responses.stream(model=model, input="What is 1 + 2?", tools=[FUNCTION]) as stream:
        async for event in stream:
            if event.type == "response.function_call_arguments.delta":
                arguments += event.delta
        response = await stream.get_final_response()
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments), call.status) == ("add", ARGUMENTS, "completed")
    assert (arguments, bool(call.call_id)) == (call.arguments, True)


@pytest.mark.parametrize("model", [VENDOR, OLLAMA, SLOT])
async def test_an_answer_in_a_form_is_parsed(client, model):
    async with client.responses.stream(model=model, input="A pet?", text_format=Pet) as stream:
        response = await stream.get_final_response()
    assert response.output_parsed == Pet(**PET)
