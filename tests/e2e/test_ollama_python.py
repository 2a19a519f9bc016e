"""Ollama's own Python client against a running gateway: before a vendor with OpenAI's API, an Ollama, and slots."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import ollama
import pydantic
import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, wait_until
from tests.ollama_backends import (
    ARGUMENTS,
    BROKEN,
    EMBEDDING,
    FROM_HUB,
    HUB_NAME,
    MODELS,
    OLLAMA,
    PET,
    PET_SCHEMA,
    PNG,
    PULLED,
    SLOT,
    SLOT_CALLS,
    SLOT_TOOLS,
    VENDOR,
    Backends,
    calls_of,
    running_backends,
)
from tests.raw_http import get
from tests.scripted_upstream import ScriptedUpstream, chunk, completion
from tests.small_hub import Fault
from tests.upstream_scripts import answering, failing, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "Hi"}]
FEW = {"num_predict": 8}
LONG = {"num_predict": 1500, "temperature": 1.5, "seed": 7}


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


async def running_models(client) -> set[str]:
    return {row.model for row in (await client.ps()).models}


async def slots(backends) -> dict[str, dict]:
    """What is in the slots, by model."""
    details = (await get(backends.gateway.port, ADMIN_KEY, "/health/details")).json
    return {slot["model"]: slot for slot in details["slots"] if slot.get("model")}


async def until_unloaded(backends, model) -> None:
    async def is_gone() -> bool:
        return model not in await slots(backends)

    await wait_until(is_gone)


async def listed_models(client) -> set[str]:
    return {row.model for row in (await client.list()).models}


async def read_until_error(client, model, words, *, after_first=None, options=None) -> list[str]:
    """The texts that came before the error."""
    seen: list[str] = []

    async def read() -> None:
        async for part in await client.chat(model=model, messages=HELLO, stream=True, options=options):
            seen.append(part.message.content)
            if after_first is not None and len(seen) == 1:
                after_first()

    with pytest.raises(ollama.ResponseError, match=words):
        await read()
    return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory) -> AsyncIterator[Backends]:
    async with running_backends(tmp_path_factory.mktemp("python")) as backends:
        yield backends


@pytest.fixture
def backends(running) -> Backends:
    return running.renew()


@pytest.fixture
def upstream(backends) -> ScriptedUpstream:
    return backends.vendor


@pytest.fixture
def local(backends) -> ScriptedUpstream:
    return backends.ollama


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running) -> AsyncIterator[ollama.AsyncClient]:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with ollama.AsyncClient(host=running.gateway.url, headers=headers, trust_env=False, timeout=60) as made:
        yield made


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
        (asked,) = calls_of(local)
        assert asked.path == "/api/chat"
        assert "num_ctx" not in asked.json["options"]


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
async def test_a_model_is_loaded_and_unloaded_by_asking_nothing(client, backends, model):
    assert (await client.generate(model=model)).done_reason == "load"
    assert (model == SLOT) <= (model in await running_models(client))
    assert (await client.chat(model=model, messages=[], keep_alive=0)).done_reason == "unload"
    assert model not in await running_models(client)
    if model == SLOT:
        await until_unloaded(backends, model)
    if model == OLLAMA:
        load, unload = (request.json for request in calls_of(backends.ollama))
        assert "keep_alive" not in load
        assert unload["keep_alive"] == 0


async def test_a_model_goes_after_its_answer_when_it_is_told_to(client, backends):
    await client.chat(model=SLOT_TOOLS, messages=HELLO, options=FEW, keep_alive="10m")
    assert SLOT_TOOLS in await running_models(client)
    await client.generate(model=SLOT_TOOLS, prompt="Hi", options=FEW, keep_alive=0)
    assert SLOT_TOOLS not in await running_models(client)
    await until_unloaded(backends, SLOT_TOOLS)


@pytest.mark.parametrize("model", [VENDOR, OLLAMA, SLOT_CALLS])
async def test_a_tool_is_called_and_answered(client, backends, model):
    asked = [{"role": "user", "content": "1+2?"}]
    answer = await client.chat(model=model, messages=asked, tools=[add])
    (made,) = answer.message.tool_calls
    assert (made.function.name, made.function.arguments) == ("add", ARGUMENTS)
    parts = [part async for part in await client.chat(model=model, messages=asked, tools=[add], stream=True)]
    (streamed,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert streamed.function == made.function
    result = {"role": "tool", "tool_name": "add", "content": str(add(**made.function.arguments))}
    answer = await client.chat(model=model, messages=[*asked, answer.message, result], tools=[add])
    # The one in a slot knows nothing but its call; that its template takes the result is what can be seen.
    assert answer.done if model == SLOT_CALLS else answer.message.content.startswith("Hello")


async def test_a_vendor_gets_tools_and_their_results_as_it_knows_them(client, upstream):
    asked = [{"role": "user", "content": "1+2?"}]
    answer = await client.chat(model=VENDOR, messages=asked, tools=[add])
    assert upstream.requests[-1].json["tools"][0]["function"]["parameters"]["required"] == ["a", "b"]
    await client.chat(model=VENDOR, messages=[*asked, answer.message, {"role": "tool", "content": "3"}])
    _, before, after = upstream.requests[-1].json["messages"]
    assert before["tool_calls"][0]["id"] == after["tool_call_id"]
    assert json.loads(before["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS


async def test_a_slot_shows_its_model_the_tools(client):
    plain = await client.chat(model=SLOT_TOOLS, messages=HELLO, options=FEW)
    offered = await client.chat(model=SLOT_TOOLS, messages=HELLO, tools=[add], options=FEW)
    assert offered.prompt_eval_count > plain.prompt_eval_count + 50
    assert offered.done


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


@pytest.mark.parametrize("model", MODELS)
async def test_an_answer_has_the_form_of_a_schema(client, backends, model):
    answer = await client.chat(model=model, messages=HELLO, format=PET_SCHEMA)
    assert json.loads(answer.message.content) == PET


async def test_a_vendor_gets_the_schema_of_a_class_as_it_knows_it(client, upstream):
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


@pytest.mark.parametrize("model", MODELS)
async def test_texts_become_vectors(client, backends, model):
    answer = await client.embed(model=EMBEDDING[model], input=["a", "b"])
    first, second = (list(vector) for vector in answer.embeddings)
    assert len(first) == len(second)
    assert answer.prompt_eval_count
    old = list((await client.embeddings(model=EMBEDDING[model], prompt="a")).embedding)
    assert len(old) == len(first)
    if model != SLOT:
        assert first == second == old == [0.6, -0.8]


async def test_models_are_listed_and_shown(client):
    names = {row.model for row in (await client.list()).models}
    assert {VENDOR, f"ollama/{OLLAMA}", SLOT} <= names
    shown = {model: await client.show(model) for model in MODELS}
    assert shown[VENDOR].capabilities == ["completion", "embedding"]
    assert shown[SLOT].capabilities == ["completion"]
    assert shown[OLLAMA].capabilities == ["completion", "tools", "embedding"]
    assert 4096 in shown[OLLAMA].modelinfo.values()
    assert shown[OLLAMA].modified_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_a_loaded_model_is_listed_as_running(client):
    await client.chat(model=SLOT, messages=HELLO, options={"num_predict": 1})
    (row,) = [row for row in (await client.ps()).models if row.model == SLOT]
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
        await client.create("mine", from_=SLOT)


@pytest.mark.parametrize(("model", "status"), [(VENDOR, 502), (OLLAMA, 502), (SLOT, 400)])
async def test_what_an_upstream_refuses_has_its_status(client, backends, model, status):
    backends.vendor.script = backends.ollama.script = failing(500)
    # An engine of ours refuses what its model cannot do.
    asked = EMBEDDING[SLOT] if model == SLOT else model

    async def read_first() -> None:
        await anext(await client.chat(model=asked, messages=HELLO, stream=True))

    async def read_all() -> None:
        await client.chat(model=asked, messages=HELLO)

    for read in (read_all, read_first):
        with pytest.raises(ollama.ResponseError) as caught:
            await read()
        assert caught.value.status_code == status
        assert caught.value.error


async def test_an_error_inside_a_vendors_stream_reaches_the_client(client, upstream):
    upstream.script = streaming(chunk("Hel"), {"error": {"message": "out of memory"}}, done=False)
    seen = await read_until_error(client, VENDOR, "out of memory")
    assert "".join(seen) == "Hel"


async def test_an_error_inside_an_ollamas_stream_reaches_the_client(client, local):
    seen = asyncio.Event()

    async def fail(talk):
        await talk.start_stream()
        line = {"model": OLLAMA, "message": {"role": "assistant", "content": "Hel"}, "done": False}
        await talk.chunk(json.dumps(line).encode() + b"\n")
        await seen.wait()
        await talk.chunk(b'{"error":"an error was encountered while running the model"}\n')
        await talk.finish_stream(done=False)

    local.script = fail
    assert await read_until_error(client, OLLAMA, "while running the model", after_first=seen.set) == ["Hel"]


async def test_an_engine_that_dies_inside_a_stream_is_an_error_at_its_end(client, backends):
    await client.generate(model=SLOT_TOOLS)
    pid = (await slots(backends))[SLOT_TOOLS]["pid"]
    seen = await read_until_error(
        client, SLOT_TOOLS, "broke off", after_first=lambda: os.kill(pid, signal.SIGKILL), options=LONG
    )
    assert seen
    # The next one has an engine again.
    assert (await client.chat(model=SLOT_TOOLS, messages=HELLO, options=FEW)).done


# --- which models there are


@pytest.mark.parametrize("model", [VENDOR, SLOT])
async def test_of_a_model_that_is_here_there_is_nothing_to_fetch(client, backends, model):
    assert (await client.pull(model)).status == "success"
    statuses = [part.status async for part in await client.pull(model, stream=True)]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")


async def test_an_ollama_pulls_copies_and_deletes_models(client, backends):
    parts = [part async for part in await client.pull(PULLED, stream=True)]
    assert [part.status for part in parts][-2:] == ["verifying sha256 digest", "success"]
    assert [(part.total, part.completed) for part in parts if part.digest] == [(7, None), (7, 7)]
    assert f"ollama/{PULLED}" in await listed_models(client)
    assert (await client.chat(model=PULLED, messages=HELLO)).message.content
    assert (await client.copy(PULLED, "mine:1b")).status == "success"
    assert (await client.chat(model="mine:1b", messages=HELLO)).message.content
    for name in (PULLED, "ollama/mine:1b"):
        assert (await client.delete(name)).status == "success"
    assert not {f"ollama/{PULLED}", "ollama/mine:1b"} & await listed_models(client)
    with pytest.raises(ollama.ResponseError, match="not found"):
        await client.delete(PULLED)


async def test_what_an_ollama_cannot_pull_it_says(client, backends):
    for name, words in ((BROKEN, "no space left"), ("nobody:1b", "does not exist")):
        with pytest.raises(ollama.ResponseError, match=words):
            await client.pull(name)
        parts = []
        with pytest.raises(ollama.ResponseError, match=words):
            parts.extend([part async for part in await client.pull(name, stream=True)])


async def test_a_model_of_the_hub_is_pulled_asked_copied_and_deleted(client, backends):
    parts = [part async for part in await client.pull(HUB_NAME, stream=True)]
    data = (backends.models / f"{FROM_HUB}.gguf").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    progress = [part for part in parts if part.digest]
    assert {part.digest for part in progress} == {f"sha256:{digest}"}
    assert {part.status for part in progress} == {f"pulling {digest[:12]}"}
    assert progress[-1].total == progress[-1].completed == len(data)
    assert [part.status for part in parts if not part.digest] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert FROM_HUB in await listed_models(client)
    for name in (HUB_NAME, FROM_HUB):
        assert (await client.chat(model=name, messages=HELLO, options=FEW)).model == name
    assert (await client.copy(HUB_NAME, "mine:tiny")).status == "success"
    assert (await client.chat(model="mine-tiny", messages=HELLO, options=FEW)).message.content
    for name in (HUB_NAME, "mine-tiny"):
        assert (await client.delete(name)).status == "success"
    assert not {FROM_HUB, "mine-tiny"} & await listed_models(client)
    assert not (backends.models / f"{FROM_HUB}.gguf").exists()


async def test_a_pull_goes_on_where_its_client_left_it(client, backends):
    backends.hub.faults.append(Fault(stop_after=5000))
    stream = await client.pull(HUB_NAME, stream=True)
    async for part in stream:
        if (part.completed or 0) >= 5000:
            break
    await stream.aclose()
    assert (await client.pull(HUB_NAME)).status == "success"
    assert [request.headers.get("range") for request in backends.hub.bodies()] == [None, "bytes=5000-"]
    assert (await client.chat(model=HUB_NAME, messages=HELLO, options=FEW)).done
    await client.delete(HUB_NAME)


async def test_a_pull_goes_on_where_the_hub_broke_off(client, backends):
    backends.hub.faults.append(Fault(cut_after=5000))
    assert (await client.pull(HUB_NAME)).status == "success"
    assert [request.headers.get("range") for request in backends.hub.bodies()] == [None, "bytes=5000-"]
    await client.delete(HUB_NAME)


async def test_what_the_hub_does_not_have_is_not_pulled(client, backends):
    for name in ("hf.co/someone/else", "hf.co/someone/tiny-GGUF:Q8_0"):
        with pytest.raises(ollama.ResponseError) as caught:
            await client.pull(name)
        assert caught.value.status_code == 404


async def test_a_vendors_model_stays_where_it_is(client, backends):
    for method, *names in (("delete", VENDOR), ("copy", VENDOR, "mine")):
        with pytest.raises(ollama.ResponseError, match="a provider's") as caught:
            await getattr(client, method)(*names)
        assert caught.value.status_code == 400


async def test_only_an_admin_changes_which_models_there_are(running, backends):
    made = await running.gateway.run("keys", "create", "somebody")
    key = next(word for word in made.output.split() if word.startswith("sk-sw-"))
    async with ollama.AsyncClient(
        host=running.gateway.url, headers={"authorization": f"Bearer {key}"}, trust_env=False
    ) as who:
        assert (await who.pull(SLOT)).status == "success"
        for method, *names in (("pull", PULLED), ("pull", HUB_NAME), ("delete", SLOT), ("copy", SLOT, "mine")):
            with pytest.raises(ollama.ResponseError) as caught:
                await getattr(who, method)(*names)
            assert caught.value.status_code == 403
    assert not [request for request in backends.ollama.requests if request.path == "/api/pull"]


async def test_an_unknown_path_is_refused_as_an_ollama_does(running):
    answer = await get(running.gateway.port, ADMIN_KEY, "/api/nothing")
    assert answer.status == 404
    assert isinstance(answer.json["error"], str)


async def test_a_wrong_key_is_refused(running):
    async with ollama.AsyncClient(
        host=running.gateway.url, headers={"authorization": "Bearer no"}, trust_env=False
    ) as who:
        with pytest.raises(ollama.ResponseError) as caught:
            await who.list()
    assert caught.value.status_code == 401
