"""The SDK examples of sigoREST's users, as they stand in their programs: another port is all that was changed.

Tests have no Go. What its SDK sends is sent by hand, in each of the forms that its versions have had.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from openai import BadRequestError, OpenAI

from tests.gateway_process import GatewayProcess, running_gateway
from tests.raw_http import send
from tests.scripted_upstream import ScriptedUpstream, chat
from tests.sigorest_process import HTTP, asked_of, history_of, port_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

HAIKU = "claude-3-5-haiku-20241022"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server) -> AsyncIterator[GatewayProcess]:
    config = {"compat": ["sigorest"], "sigorest": {"http_port": 0}, "discovery": {"environment": True}}
    environment = {"MAMMOUTH_BASE_URL": server.url, "MAMMOUTH_API_KEY": "x-canary"}
    async with running_gateway(tmp_path_factory.mktemp("clients"), config, environment=environment) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(gateway) -> int:
    return await port_of(gateway, HTTP)


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


# --- Python


def chat_from_python(port: int) -> str | None:
    with OpenAI(base_url=f"http://localhost:{port}/v1", api_key="dummy") as client:
        resp = client.chat.completions.create(
            model="claude-h",
            messages=[{"role": "user", "content": "Hallo"}],
            extra_body={"session_id": "mein-projekt"},
        )
        return resp.choices[0].message.content


async def test_the_python_example_prints_the_answer_and_goes_on_with_its_session(gateway, port, upstream):
    for _ in range(2):
        assert await asyncio.to_thread(chat_from_python, port) == "Hello"
    first, second = asked_of(upstream)
    assert first["messages"] == [{"role": "user", "content": "Hallo"}]
    assert [message["content"] for message in second["messages"]] == ["Hallo", "Hello", "Hallo"]
    assert "session_id" not in first
    history = history_of(gateway.data / ".sessions" / "claude-h-mein-projekt.json")
    assert history == [("user", "Hallo"), ("assistant", "Hello")] * 2


async def test_the_python_client_streams_lists_and_understands_a_refusal(port, upstream):
    def use() -> None:
        with OpenAI(base_url=f"http://localhost:{port}/v1", api_key="dummy", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="gpt41", messages=[{"role": "user", "content": "Hallo"}], stream=True
            )
            assert "".join(part.choices[0].delta.content or "" for part in stream) == "Hello!"
            assert {"claude-h", HAIKU} <= {model.id for model in client.models.list()}
            with pytest.raises(BadRequestError) as refusal:
                client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hallo"}])
            assert refusal.value.code == "model_not_found"

    await asyncio.to_thread(use)


# --- Go

TEXT = '"Hallo"'
PARTS = '[{"text":"Hallo","type":"text"}]'
GO_FORMS = {
    # The API of the example is that of the alphas. They lost the last part of a base URL without a slash at its end,
    # and the later ones of them wrote every text as a list of parts.
    "the first alphas": ("/chat/completions", TEXT, "0.1.0-alpha.8"),
    "the later alphas": ("/chat/completions", PARTS, "0.1.0-alpha.59"),
    "the last alphas": ("/v1/chat/completions", PARTS, "0.1.0-alpha.66"),
    "what came after them": ("/v1/chat/completions", TEXT, "1.12.0"),
}


def go_request(port: int, path: str, content: str, version: str) -> bytes:
    """As net/http writes it: its own fields first, the others sorted."""
    body = f'{{"messages":[{{"content":{content},"role":"user"}}],"model":"claude-h"}}'
    fields = {
        "Host": f"localhost:{port}",
        "User-Agent": f"OpenAI/Go {version}",
        "Content-Length": str(len(body)),
        "Accept": "application/json",
        "Authorization": "Bearer dummy",
        "Content-Type": "application/json",
        "X-Stainless-Arch": "x64",
        "X-Stainless-Lang": "go",
        "X-Stainless-Os": "Linux",
        "X-Stainless-Package-Version": version,
        "X-Stainless-Retry-Count": "0",
        "X-Stainless-Runtime": "go",
        "X-Stainless-Runtime-Version": "go1.22.5",
        "Accept-Encoding": "gzip",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()


@pytest.mark.parametrize("form", GO_FORMS)
async def test_what_the_go_example_sends_is_answered(port, upstream, form):
    path, content, version = GO_FORMS[form]
    answer = await (await send(port, go_request(port, path, content, version), "localhost")).read()
    assert answer.status == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    (sent,) = asked_of(upstream)
    assert (sent["model"], sent["messages"]) == (HAIKU, [{"content": json.loads(content), "role": "user"}])
