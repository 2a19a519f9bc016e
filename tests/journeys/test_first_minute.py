"""What a new user does first: start it, copy the line that it prints, and see what it has found by itself."""

import asyncio
import json
import os
import pty
import re
import secrets
import shutil
import stat
import subprocess
import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stellwerk.engines.slot_settings import DEMO_MODEL
from tests.gateway_process import (
    COMMAND,
    DEADLINE,
    GatewayProcess,
    best_within,
    end,
    environment_for,
    running_gateway,
    wait_until,
)
from tests.openai_client import client_of, text_of
from tests.raw_http import Answer, get, hello, post
from tests.real_engines import free_ports
from tests.scripted_upstream import ScriptedUpstream, Talk, chat, completion
from tests.tiny_gguf import write_tiny_chat_model

KEY = re.compile(r"sk-sw-[a-z2-7]{10}-[\w-]{43}")
ENGINE = {"enabled": True, "slots": 2, "context": 512, "threads": 1}


def with_engine(**more) -> dict:
    return {"engines": {**ENGINE, "first_port": free_ports(2), **more}}


@pytest.fixture
def models(tmp_path) -> Path:
    """The models folder of a data folder, with the demo model or one of its name in it."""
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True, mode=0o700)
    if not DEMO_MODEL.exists():
        write_tiny_chat_model(folder / "stellwerk-demo.gguf")
    return folder


def contents(stream: str) -> str:
    """What a streamed answer says."""
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def model_ids(gateway: GatewayProcess) -> set[str]:
    return {model["id"] for model in (await get(gateway.port, gateway.key, "/v1/models")).json["data"]}


async def run_printed_line(gateway: GatewayProcess) -> str:
    """What the line prints that the gateway tells people to try."""
    [line] = [line.strip() for line in gateway.output.splitlines() if line.strip().startswith("curl ")]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", line, env=environment_for(gateway.folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return output.decode()


async def offers(gateway: GatewayProcess, name: str) -> None:
    async def is_listed() -> bool:
        return name in await model_ids(gateway)

    await wait_until(is_listed)


# --- the first answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_printed_curl_line_streams_an_answer(tmp_path, models):
    async with running_gateway(tmp_path, with_engine(), chosen_key=False) as gateway:
        answer = contents(await run_printed_line(gateway))
        assert answer
        if DEMO_MODEL.exists():
            assert "Stellwerk" in answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_printed_curl_line_asks_a_model_that_there_is(tmp_path, upstream: ScriptedUpstream):
    upstream.script = chat
    providers = {"up": {"base_url": upstream.url, "models": ["it's-mine"], "api_key": ""}}
    async with running_gateway(tmp_path, {"providers": providers}, chosen_key=False) as gateway:
        assert contents(await run_printed_line(gateway))
    assert upstream.requests[-1].json["model"] == "it's-mine"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_without_a_model_the_printed_curl_line_lists_them(tmp_path):
    async with running_gateway(tmp_path, chosen_key=False) as gateway:
        assert json.loads(await run_printed_line(gateway))["data"] == []


async def test_without_a_terminal_the_admin_key_goes_to_a_private_file_only(tmp_path):
    async with running_gateway(tmp_path, chosen_key=False) as gateway:
        file = gateway.data / "admin.key"
        key = file.read_text().strip()
        assert KEY.fullmatch(key)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(gateway.data.stat().st_mode) == 0o700
        assert str(file) in gateway.output
        assert key not in gateway.output + gateway.log
        assert (await get(gateway.port, key, "/v1/models")).status == 200
        await gateway.stop()
        kept = b"".join(path.read_bytes() for path in gateway.data.glob("stellwerk.db*"))
        assert key.encode() not in kept


async def test_openais_client_gets_the_same_answer_twice(tmp_path, models):
    async with (
        running_gateway(tmp_path, with_engine(), chosen_key=False) as gateway,
        client_of(gateway, gateway.key) as client,
    ):
        answers = []
        for _ in range(2):
            stream = await client.chat.completions.create(
                model="stellwerk-demo",
                messages=[{"role": "user", "content": "Was ist Stellwerk?"}],
                stream=True,
                temperature=0,
                max_tokens=200,
            )
            answers.append(await text_of(stream))
        assert answers[0]
        assert answers[0] == answers[1]


async def test_chat_once_prints_the_answer(tmp_path, models):
    async with running_gateway(tmp_path, with_engine(), chosen_key=False) as gateway:
        done = await gateway.run("chat", "--url", gateway.url, "--once", "What is Stellwerk?")
        assert (done.code, done.errors) == (0, "")
        assert done.output.strip()
        if DEMO_MODEL.exists():
            assert "Stellwerk" in done.output


async def test_chat_says_that_no_gateway_runs(tmp_path):
    async with running_gateway(tmp_path, chosen_key=False) as gateway:
        await gateway.stop()
        done = await gateway.run("chat", "--url", gateway.url, "--once", "Hello")
        assert done.code == 1
        assert gateway.url in done.errors
        assert "Traceback" not in done.errors


# --- on a terminal


class Terminal:
    """A `stellwerk serve` that believes that a person looks at it."""

    def __init__(self, process: "subprocess.Popen[bytes]", screen: int) -> None:
        self.process = process
        self._screen = screen
        # What was read may end in the middle of a character.
        self._decode = getincrementaldecoder("utf-8")().decode
        self.shown = ""

    def look(self) -> str:
        # EIO is how a terminal says that nobody writes to it any more.
        with suppress(BlockingIOError, OSError):
            while piece := os.read(self._screen, 65536):
                self.shown += self._decode(piece)
        return self.shown


@contextmanager
def on_a_terminal(folder: Path) -> Iterator[Terminal]:
    screen, keyboard = pty.openpty()
    os.set_blocking(screen, False)
    variables = {
        **environment_for(folder),
        "STELLWERK_ENGINES__ENABLED": "false",
        "STELLWERK_DISCOVERY__OLLAMA": "false",
    }
    command = [*COMMAND, "serve", "--port", "0", "--data", str(folder / "data")]
    process = subprocess.Popen(command, env=variables, cwd=folder, stdin=keyboard, stdout=keyboard, stderr=keyboard)
    os.close(keyboard)
    try:
        yield Terminal(process, screen)
    finally:
        end(process)
        os.close(screen)


@pytest.mark.skipif(sys.platform != "linux", reason="terminals differ")
async def test_on_a_terminal_the_key_is_shown_once_and_never_again(tmp_path):
    with on_a_terminal(tmp_path) as first:
        await wait_until(lambda: "Ctrl+C" in first.look())
        [introduced, in_curl] = KEY.findall(first.shown)
        assert introduced == in_curl
        [port] = re.findall(r"answers on http://127\.0\.0\.1:(\d+)", first.shown)
        assert (await get(int(port), introduced, "/v1/models")).status == 200
        assert not (tmp_path / "data" / "admin.key").exists()
        first.process.send_signal(2)
        assert await asyncio.to_thread(first.process.wait, DEADLINE) == 0
        assert "Traceback" not in first.look()
    with on_a_terminal(tmp_path) as second:
        await wait_until(lambda: "Ctrl+C" in second.look())
        assert not KEY.search(second.shown)
        [port] = re.findall(r"answers on http://127\.0\.0\.1:(\d+)", second.shown)
        assert (await get(int(port), introduced, "/v1/models")).status == 200


# --- keys while it runs


async def test_a_new_key_works_at_once_and_a_revoked_one_ends_within_two_seconds(tmp_path, upstream):
    providers = {"up": {"base_url": upstream.url, "models": ["up"], "api_key": ""}}
    async with running_gateway(tmp_path, {"providers": providers}) as gateway:
        await best_within(2.0, lambda: seconds_until_revoked(gateway))


async def seconds_until_revoked(gateway: GatewayProcess) -> float:
    """From the end of the command to the first refusal of a key that it has revoked."""
    name = f"laptop {secrets.token_hex(4)}"
    created = await gateway.run("keys", "create", name)
    key = created.output.strip()
    assert KEY.fullmatch(key)
    assert (await post(gateway.port, key, hello())).status == 200
    listed = await gateway.run("keys", "list", "--json")
    assert key not in listed.output
    [entry] = [entry for entry in json.loads(listed.output) if entry["name"] == name]
    assert (await gateway.run("keys", "revoke", entry["id"])).code == 0
    begun = time.monotonic()

    async def is_refused() -> Answer | None:
        answer = await post(gateway.port, key, hello())
        return answer if answer.status != 200 else None

    answer = await wait_until(is_refused)
    assert (answer.status, answer.error["code"]) == (401, "revoked_api_key")
    return time.monotonic() - begun


# --- what it finds by itself


def ollama_script(names: tuple[str, ...]):
    async def script(talk: Talk) -> None:
        request = talk.request
        if request.path == "/api/tags":
            details = {"quantization_level": "Q4_K_M"}
            models = [{"name": name, "digest": f"sha-{name}", "size": 1, "details": details} for name in names]
            await talk.answer({"models": models})
        elif request.path == "/api/show":
            kind = "embedding" if "embed" in request.json["model"] else "completion"
            info = {"general.architecture": "llama", "llama.context_length": 8192}
            await talk.answer({"capabilities": [kind], "model_info": info})
        elif request.path == "/v1/embeddings":
            row = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
            await talk.answer({"object": "list", "data": [row], "model": "x", "usage": {"prompt_tokens": 3}})
        elif request.path == "/v1/chat/completions":
            await chat(talk)
        else:
            await talk.answer({"error": "not found"}, status=404)

    return script


async def test_an_ollama_is_found_and_chats_and_embeds(tmp_path, upstream: ScriptedUpstream):
    upstream.script = ollama_script(("llama3.2:3b", "nomic-embed-text:latest"))
    discovery = {"ollama": True, "ollama_url": f"http://127.0.0.1:{upstream.port}"}
    async with running_gateway(tmp_path, {"discovery": discovery}) as gateway:
        await offers(gateway, "ollama/llama3.2:3b")
        model = (await get(gateway.port, gateway.key, "/v1/models/ollama/llama3.2:3b")).json
        assert (model["context_length"], model["x_stellwerk"]["local"]) == (8192, True)
        assert (await post(gateway.port, gateway.key, hello("llama3.2:3b"))).status == 200
        streamed = await post(gateway.port, gateway.key, hello("ollama/llama3.2:3b", stream=True))
        assert contents(streamed.body.decode()) == "Hello!"
        body = {"model": "nomic-embed-text:latest", "input": "text"}
        embedded = await post(gateway.port, gateway.key, body, "/v1/embeddings")
        assert embedded.json["data"][0]["embedding"] == [0.5, -0.25]
        assert {request.json["model"] for request in upstream.requests if request.path.startswith("/v1/")} == {
            "llama3.2:3b",
            "nomic-embed-text:latest",
        }


async def test_an_ollama_is_found_by_its_own_variable(tmp_path, upstream: ScriptedUpstream):
    upstream.script = ollama_script(("qwen3:8b",))
    environment = {"OLLAMA_HOST": f"127.0.0.1:{upstream.port}"}
    async with running_gateway(tmp_path, {"discovery": {"ollama": True}}, environment=environment) as gateway:
        await offers(gateway, "ollama/qwen3:8b")


async def test_a_file_put_into_the_models_folder_appears_without_restart(tmp_path, models):
    made = write_tiny_chat_model(tmp_path / "mine.gguf")
    async with running_gateway(tmp_path, with_engine(demo=False)) as gateway:
        assert "mine" not in await model_ids(gateway)
        shutil.copy(made, models / "mine.gguf")
        await offers(gateway, "mine")
        assert (await post(gateway.port, gateway.key, hello("mine", max_tokens=3))).status == 200


async def test_a_file_that_is_no_model_is_told_and_disturbs_nobody(tmp_path, models):
    write_tiny_chat_model(models / "mine.gguf")
    (models / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    async with running_gateway(tmp_path, with_engine(demo=False)) as gateway:
        assert "broken" not in await model_ids(gateway)
        assert "mine" in await model_ids(gateway)
        details = (await get(gateway.port, gateway.key, "/health/details")).json
        assert "broken" in details["broken_models"]


async def test_a_vendor_whose_key_is_in_the_environment_appears(tmp_path, upstream: ScriptedUpstream):
    async def script(talk: Talk) -> None:
        if talk.request.method == "GET":
            await talk.answer({"object": "list", "data": [{"id": "gpt-5-mini", "object": "model", "created": 5}]})
        else:
            await talk.answer(completion(model="gpt-5-mini"))

    upstream.script = script
    environment = {"OPENAI_API_KEY": "sk-canary-provider-key", "OPENAI_BASE_URL": upstream.url}
    async with running_gateway(tmp_path, {"discovery": {"environment": True}}, environment=environment) as gateway:
        await offers(gateway, "openai/gpt-5-mini")
        answer = await post(gateway.port, gateway.key, hello("gpt-5-mini"), x_request_id="priced")
        assert answer.status == 200
        sent = upstream.requests[-1]
        assert sent.headers["authorization"] == "Bearer sk-canary-provider-key"
        assert sent.json["model"] == "gpt-5-mini"
        assert "sk-canary-provider-key" not in gateway.output + gateway.log
        row = await gateway.call("priced")
        assert row["cost"] is not None
        assert row["cost"] > 0


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("openai", {"OPENAI_API_KEY": "sk-canary…"}),
        ("ollama", {"OLLAMA_HOST": "tcp://canary:11434"}),
    ],
    ids=["key", "address"],
)
async def test_a_variable_that_cannot_be_used_is_told_and_keeps_nothing_from_starting(tmp_path, name, variables):
    config = {"discovery": {"environment": True, "ollama": True}}
    async with running_gateway(tmp_path, config, environment=variables) as gateway:
        await wait_until(lambda: "is left out" in gateway.log)
        [line] = [line for line in gateway.log.splitlines() if "is left out" in line]
        assert f"the provider {name} is left out" in line
        assert "canary" not in line
        assert (await get(gateway.port, None, "/health/readiness")).status == 200


async def test_a_gateway_told_of_itself_as_openai_does_not_ask_itself(tmp_path):
    port = free_ports(1)
    environment = {"OPENAI_API_KEY": "sk-anything", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    config = {"discovery": {"environment": True}}
    async with running_gateway(tmp_path, config, environment=environment, port=port) as gateway:
        assert (await post(gateway.port, gateway.key, hello("openai/gpt-5-mini"))).status == 404
        assert await model_ids(gateway) == set()
