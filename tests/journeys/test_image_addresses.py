"""Images that clients name by their address reach models that must not fetch them: the gateway does, and sends data."""

import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import BadRequestError

from tests.customers import ask
from tests.gateway_process import GatewayProcess, running_gateway, wait_until
from tests.openai_client import client_of, new_key
from tests.raw_http import Answer, post
from tests.real_engines import free_ports
from tests.scripted_engine import PROGRAM
from tests.scripted_upstream import AskedUpstream, ScriptedUpstream, Talk, chat

pytestmark = pytest.mark.asyncio(loop_scope="module")
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55")
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
SLOT, SERVER, OLLAMA, VENDOR = "seer", "house/seer", "box/seer", "up/seer"


async def pictures(talk: Talk) -> None:
    if talk.request.path == "/cat.png":
        await talk.answer(PNG, content_type="image/png")
    elif talk.request.path == "/moved":
        await talk.answer(b"", 302, [("location", "http://127.0.0.1:1/cat.png")])
    else:
        await talk.answer(b"<html>", 404, content_type="text/html")


async def broken(talk: Talk) -> None:
    await talk.answer({"error": {"message": "Down."}}, 500)


@dataclass
class Site:
    """A gateway with a model of each kind, and a server of images beside it."""

    gateway: GatewayProcess
    shop: ScriptedUpstream
    upstreams: dict[str, AskedUpstream]
    engine: Path

    def picture(self, path: str = "/cat.png") -> str:
        return f"http://127.0.0.1:{self.shop.port}{path}"

    def arrived(self, model: str) -> list[Any]:
        """The bodies that a model's upstream was sent, oldest first."""
        if model != SLOT:
            return [request.json for request in self.upstreams[model.partition("/")[0]].requests]
        path = self.engine / "asked"
        bodies = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        # The gateway itself asks an engine for a token now and then.
        return [body for body in bodies if "image_url" in json.dumps(body)]

    async def ask(self, model: str, url: str, path: str = "/v1/chat/completions", **more: Any) -> Answer:
        return await post(self.gateway.port, self.gateway.key, question(model, url, **more), path)


def question(model: str, url: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "messages": [{"role": "user", "content": parts}], **more}


def urls_in(body: Any) -> list[str]:
    parts = [part for message in body["messages"] for part in message["content"] if isinstance(part, dict)]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory, tiny_models) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("images")
    engine = folder / "engine"
    engine.mkdir()
    (engine / "engine.py").write_text(PROGRAM.replace("TROUBLE", ""))
    command = (sys.executable, "-IS", str(engine / "engine.py"), "{port}", "{key}", str(engine))
    models = folder / "models"
    models.mkdir()
    (models / f"{SLOT}.gguf").write_bytes((tiny_models / "chat.gguf").read_bytes())
    shop = ScriptedUpstream(pictures)
    upstreams = {name: AskedUpstream(chat) for name in ("house", "box", "up")}
    async with AsyncExitStack() as stack:
        for server in (shop, *upstreams.values()):
            await server.start()
            stack.push_async_callback(server.stop)
        config = {
            "egress": {"allowed_origins": [f"http://127.0.0.1:{shop.port}"]},
            "engines": {
                "enabled": True,
                "demo": False,
                "models_folder": str(models),
                "first_port": free_ports(1),
                "slots": 1,
                "commands": {"eyes": {"command": command, "checks_key": True}},
                "models": {SLOT: {"engine": "eyes", "type": "vision"}},
            },
            "providers": {
                "house": {"vendor": "vllm", "base_url": upstreams["house"].url, "models": ["seer"]},
                "box": {"vendor": "ollama", "base_url": upstreams["box"].url},
                "up": {"base_url": upstreams["up"].url, "models": ["seer"], "api_key": ""},
            },
            "upstream": {"breaker_failures": 1000},
        }
        gateway = await stack.enter_async_context(running_gateway(folder / "gateway", config))
        yield Site(gateway, shop, upstreams, engine)


@pytest.fixture(autouse=True)
def forget(site):
    yield
    for server in (site.shop, *site.upstreams.values()):
        server.requests.clear()
    for server in site.upstreams.values():
        server.script = chat
    (site.engine / "asked").unlink(missing_ok=True)


@pytest.mark.parametrize("model", [SLOT, SERVER, OLLAMA])
async def test_a_model_of_ones_own_is_sent_the_image_itself(site, model):
    answer = await site.ask(model, site.picture())
    assert answer.status == 200, answer.body
    assert [urls_in(body) for body in site.arrived(model)] == [[DATA_URL]]
    assert [request.path for request in site.shop.requests] == ["/cat.png"]
    assert "authorization" not in site.shop.requests[0].headers


async def test_a_vendor_is_sent_the_address(site):
    assert (await site.ask(VENDOR, "https://10.0.0.1/x.png")).status == 200
    assert [urls_in(body) for body in site.arrived(VENDOR)] == [["https://10.0.0.1/x.png"]]


async def test_openais_client_streams_an_answer_about_an_image_at_an_address(site):
    async with client_of(site.gateway) as client:
        asking = question(SERVER, site.picture(), stream=True)
        parts = [part async for part in await client.chat.completions.create(**asking)]
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "Hello!"
    assert [urls_in(body) for body in site.arrived(SERVER)] == [[DATA_URL]]


async def test_the_fallback_of_a_vendor_is_sent_the_image_and_that_of_a_local_model_the_address(site):
    site.upstreams["up"].script = broken
    answer = await site.ask(VENDOR, site.picture(), fallbacks=[SLOT], retries=0)
    assert answer.status == 200, answer.body
    assert {urls_in(body)[0] for body in site.arrived(VENDOR)} == {site.picture()}
    assert [urls_in(body) for body in site.arrived(SLOT)] == [[DATA_URL]]
    site.upstreams["up"].script, site.upstreams["house"].script = chat, broken
    answer = await site.ask(SERVER, site.picture(), fallbacks=[VENDOR])
    assert answer.status == 200, answer.body
    assert {urls_in(body)[0] for body in site.arrived(SERVER)} == {DATA_URL}
    assert urls_in(site.arrived(VENDOR)[-1]) == [site.picture()]


def input_of(url: str) -> list[dict[str, Any]]:
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": url}]
    return [{"role": "user", "content": parts}]


async def test_a_response_is_given_about_an_image_at_an_address(site):
    async with client_of(site.gateway) as client:
        response = await client.responses.create(model=SERVER, input=input_of(site.picture()))
        assert response.output_text
        with pytest.raises(BadRequestError) as caught:
            await client.responses.create(model=SERVER, input=input_of(site.picture("/none")), instructions="Be kind.")
    assert [urls_in(body) for body in site.arrived(SERVER)] == [[DATA_URL]]
    assert (caught.value.param, caught.value.code) == ("input", "invalid_image_format")
    assert "Image 1 of the request" in str(caught.value)


async def end_of(gateway: GatewayProcess, job_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        answer = await ask(gateway.port, "GET", f"/api/requests/{job_id}?wait=10", key=gateway.key)
        found: dict[str, Any] = answer.json
        return found if found["finished_at"] is not None else None

    found: dict[str, Any] = await wait_until(look, 60)
    return found


async def test_a_job_fetches_its_image_when_it_runs(site):
    for url, status in ((site.picture(), "completed"), (site.picture("/none"), "failed")):
        job = await post(site.gateway.port, site.gateway.key, question(SERVER, url), prefer="respond-async")
        assert job.status == 202, job.body
        done = await end_of(site.gateway, job.json["id"])
        assert (done["status"], done["attempts"]) == (status, 1)
    assert [urls_in(body) for body in site.arrived(SERVER)] == [[DATA_URL]]


@pytest.mark.parametrize("model", [SLOT, SERVER, OLLAMA])
async def test_what_cannot_be_fetched_is_refused_and_no_model_is_asked(site, model):
    said = []
    for url in ("http://127.0.0.1:1/cat.png", "http://localhost/cat.png", site.picture("/moved"), "http://[::1]/x"):
        answer = await site.ask(model, url)
        assert answer.status == 400, answer.body
        said.append(answer.error)
    assert said == [said[0]] * 4
    assert said[0]["param"] == "messages[0].content[1].image_url"
    assert (said[0]["code"], said[0]["type"]) == ("invalid_image_url", "invalid_request_error")
    assert (await site.ask(model, site.picture("/none"))).error["code"] == "invalid_image_format"
    assert site.arrived(model) == []


@pytest.mark.parametrize("model", [SLOT, SERVER])
async def test_nothing_but_images_is_fetched(site, model):
    parts = [
        {"type": "video_url", "video_url": {"url": site.picture()}},
        {"type": "audio_url", "audio_url": {"url": site.picture()}},
        {"type": "input_audio", "input_audio": {"data": site.picture(), "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
    ]
    for part in parts:
        body = {"model": model, "messages": [{"role": "user", "content": [part]}]}
        answer = await post(site.gateway.port, site.gateway.key, body)
        assert (answer.status, answer.error["code"]) == (400, "unsupported_value")
    assert (site.shop.requests, site.arrived(model)) == ([], [])


async def test_nothing_is_fetched_for_who_may_not_ask(site):
    port, asking = site.gateway.port, question(SERVER, site.picture())
    for key in (None, "sk-not-a-key"):
        assert (await post(port, key, asking)).status == 401
    other = await new_key(site.gateway, "--models", VENDOR)
    assert (await post(port, other, asking)).status in (403, 404)
    assert (await site.gateway.run("users", "create", "poor@example.org")).code == 0
    assert (await site.gateway.run("ledger", "prices", "add", SERVER, "--input-per-1k", "1")).code == 0
    poor = await new_key(site.gateway, "--user", "poor@example.org")

    async def refused() -> bool:
        return (await post(port, poor, asking)).status == 402

    await wait_until(refused)
    site.shop.requests.clear()
    assert await refused()
    assert site.shop.requests == []
