"""Ollama's own Python client against a running gateway: before a vendor with OpenAI's API, an Ollama, and a slot."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import ollama
import pydantic
import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway
from tests.scripted_upstream import ScriptedUpstream, Talk, chat, chunk, completion
from tests.upstream_scripts import answering, failing, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

VENDOR, OLLAMA, SLOT = "up/up", "small:1b", "stellwerk-demo"
MODELS = (VENDOR, OLLAMA, SLOT)
HELLO = [{"role": "user", "content": "Hi"}]
COUNTS = {"prompt_eval_count": 5, "eval_count": 2, "eval_duration": 9}
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55")


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


async def play_ollama(talk: Talk) -> None:
    """Answers as an Ollama with one model does."""
    if talk.request.path == "/api/tags":
        row = {"name": OLLAMA, "model": OLLAMA, "digest": "d1", "size": 7, "modified_at": "2026-01-02T03:04:05Z"}
        await talk.answer({"models": [row]})
        return
    body = talk.request.json
    if talk.request.path == "/api/show":
        info = {"general.architecture": "small", "small.context_length": 4096}
        await talk.answer({"capabilities": ["completion", "tools", "embedding"], "model_info": info})
        return
    head = {"model": body["model"], "created_at": "2026-01-02T03:04:05.678Z"}
    if talk.request.path == "/api/embed":
        given = body["input"]
        count = len(given) if isinstance(given, list) else 1
        await talk.answer({"model": body["model"], "embeddings": [[0.6, -0.8]] * count, "prompt_eval_count": 3})
        return

    def say(text: str) -> dict:
        is_chat = talk.request.path == "/api/chat"
        return {"message": {"role": "assistant", "content": text}} if is_chat else {"response": text}

    last = {"done": True, "done_reason": "stop", **COUNTS}
    if body.get("stream") is False:
        await talk.answer({**head, **say("Hello!"), **last})
        return
    await talk.start_stream()
    for piece in ({**say("Hel"), "done": False}, {**say("lo!"), "done": False}, {**say(""), **last}):
        await talk.chunk(json.dumps({**head, **piece}, separators=(",", ":")).encode() + b"\n")
    await talk.finish_stream(done=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def near() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(script=play_ollama)
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server, near) -> AsyncIterator[GatewayProcess]:
    config = {
        "providers": {"up": {"base_url": server.url, "models": ["up", "text-embedding-up"], "api_key": ""}},
        "upstream": {"attempts": 1, "breaker_failures": 0},
        "discovery": {"ollama": True, "ollama_url": near.url.removesuffix("/v1")},
        "engines": {"enabled": True},
    }
    async with running_gateway(tmp_path_factory.mktemp("ollama"), config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(gateway) -> AsyncIterator[ollama.AsyncClient]:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with ollama.AsyncClient(host=gateway.url, headers=headers, trust_env=False, timeout=20) as made:
        yield made


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


@pytest.fixture
def local(near) -> ScriptedUpstream:
    near.script = play_ollama
    near.requests.clear()
    return near


@pytest.mark.parametrize("model", MODELS)
async def test_a_chat_is_answered(client, upstream, local, model):
    answer = await client.chat(model=model, messages=HELLO, options={"num_predict": 8, "num_ctx": 2048})
    assert answer.message.content
    assert answer.model == model
    assert answer.done
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count
    assert answer.eval_count
    assert answer.created_at
    if model == OLLAMA:
        assert local.requests[-1].path == "/api/chat"
        assert "num_ctx" not in local.requests[-1].json["options"]


@pytest.mark.parametrize("model", MODELS)
async def test_a_chat_is_streamed(client, upstream, local, model):
    parts = [
        part async for part in await client.chat(model=model, messages=HELLO, stream=True, options={"num_predict": 8})
    ]
    assert "".join(part.message.content or "" for part in parts)
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part.model for part in parts} == {model}
    assert parts[-1].eval_count
    assert parts[-1].eval_duration
    if model != SLOT:
        assert "".join(part.message.content or "" for part in parts) == "Hello!"


@pytest.mark.parametrize("model", MODELS)
async def test_a_text_is_generated(client, upstream, local, model):
    options = {"num_predict": 8}
    answer = await client.generate(model=model, prompt="Hi", system="Be brief.", options=options)
    assert answer.response
    assert answer.done
    parts = [part async for part in await client.generate(model=model, prompt="Hi", stream=True, options=options)]
    assert "".join(part.response for part in parts)
    assert parts[-1].done


@pytest.mark.parametrize("model", MODELS)
async def test_a_model_is_loaded_and_unloaded_by_asking_nothing(client, model):
    assert (await client.generate(model=model)).done_reason == "load"
    assert (await client.chat(model=model, messages=[], keep_alive=0)).done_reason == "unload"


async def test_a_tool_is_called_and_answered(client, upstream):
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    upstream.script = answering(200, completion(choices=[choice]))
    asked = [{"role": "user", "content": "1+2?"}]
    answer = await client.chat(model=VENDOR, messages=asked, tools=[add])
    (made,) = answer.message.tool_calls
    assert (made.function.name, made.function.arguments) == ("add", {"a": 1, "b": 2})
    assert upstream.requests[-1].json["tools"][0]["function"]["parameters"]["required"] == ["a", "b"]
    upstream.script = chat
    result = {"role": "tool", "tool_name": "add", "content": str(add(**made.function.arguments))}
    assert (await client.chat(model=VENDOR, messages=[*asked, answer.message, result])).message.content == "Hello"
    _, before, after = upstream.requests[-1].json["messages"]
    assert before["tool_calls"][0]["id"] == after["tool_call_id"]
    assert json.loads(before["tool_calls"][0]["function"]["arguments"]) == {"a": 1, "b": 2}


async def test_thoughts_and_tool_calls_are_streamed(client, upstream):
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a":'}}
    rest = {"index": 0, "function": {"arguments": "1}"}}
    deltas = [{"reasoning_content": "Hm"}, {"tool_calls": [call]}, {"tool_calls": [rest]}]
    chunks = [{**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    upstream.script = streaming(*chunks, chunk(finish="tool_calls"))
    parts = [part async for part in await client.chat(model=VENDOR, messages=HELLO, stream=True, think=True)]
    assert parts[0].message.thinking == "Hm"
    assert parts[1].message.tool_calls[0].function.arguments == {"a": 1}
    assert parts[-1].done_reason == "stop"


class Pet(pydantic.BaseModel):
    name: str
    age: int | None = None


async def test_an_answer_has_the_form_of_a_schema(client, upstream):
    upstream.script = answering(200, completion('{"name":"Rex","age":null}'))
    answer = await client.chat(model=VENDOR, messages=HELLO, format=Pet.model_json_schema())
    assert Pet.model_validate_json(answer.message.content).name == "Rex"
    wanted = upstream.requests[-1].json["response_format"]["json_schema"]
    assert wanted["strict"]
    assert wanted["schema"]["required"] == ["name", "age"]


async def test_an_image_reaches_the_vendor(client, upstream):
    await client.chat(model=VENDOR, messages=[{"role": "user", "content": "What?", "images": [PNG]}])
    _, image = upstream.requests[-1].json["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


async def test_texts_become_vectors(client, upstream, local):
    answer = await client.embed(model=OLLAMA, input=["a", "b"])
    assert [list(vector) for vector in answer.embeddings] == [[0.6, -0.8]] * 2
    rows = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
    upstream.script = answering(200, {"object": "list", "data": rows, "usage": {"prompt_tokens": 2}})
    answer = await client.embed(model="up/text-embedding-up", input="a")
    assert (list(answer.embeddings[0]), answer.prompt_eval_count) == ([1.0], 2)
    assert list((await client.embeddings(model="up/text-embedding-up", prompt="a")).embedding) == [1.0]
    assert list((await client.embeddings(model=OLLAMA, prompt="a")).embedding) == [0.6, -0.8]


async def test_models_are_listed_and_shown(client):
    names = {row.model for row in (await client.list()).models}
    assert {VENDOR, f"ollama/{OLLAMA}", SLOT} <= names
    shown = await client.show(OLLAMA)
    assert shown.capabilities == ["completion", "tools", "embedding"]
    assert 4096 in shown.modelinfo.values()
    assert shown.modified_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_a_loaded_model_is_listed_as_running(client):
    await client.chat(model=SLOT, messages=HELLO, options={"num_predict": 1})
    (row,) = (await client.ps()).models
    assert row.model == SLOT
    assert row.context_length > 0
    assert row.expires_at > datetime.now(UTC)


async def test_errors_have_their_status_and_words(client, upstream):
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as caught:
        await client.chat(model="nobody", messages=HELLO)
    assert caught.value.status_code == 404
    upstream.script = failing(400)
    with pytest.raises(ollama.ResponseError, match="reason 400") as caught:
        await client.chat(model=VENDOR, messages=HELLO)
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="not offered"):
        await client.pull("llama3")


async def test_an_error_inside_a_stream_reaches_the_client(client, upstream):
    upstream.script = streaming(chunk("Hel"), {"error": {"message": "out of memory"}}, done=False)
    seen = []
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        seen.extend([part async for part in await client.chat(model=VENDOR, messages=HELLO, stream=True)])


async def test_a_wrong_key_is_refused(gateway):
    async with ollama.AsyncClient(host=gateway.url, headers={"authorization": "Bearer no"}, trust_env=False) as who:
        with pytest.raises(ollama.ResponseError) as caught:
            await who.list()
    assert caught.value.status_code == 401
