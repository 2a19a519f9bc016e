"""Taking the place of a Go Ollama API and an Ollama Cloud Proxy: their data are imported beside a running gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway_process import GatewayProcess, running_gateway, wait_until
from tests.old_databases import API_KEYS, USAGE, make
from tests.raw_http import Answer, get, hello, post
from tests.scripted_upstream import ScriptedUpstream
from tests.sigorest_process import listeners_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, OFF = "5f0c1d7be2" * 4, "0b9f3c77de" * 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstream) -> AsyncIterator[GatewayProcess]:
    config = {
        "compat": ["go-ollama-api"],
        "go_ollama": {"ports": [0]},
        "providers": {"up": {"base_url": upstream.url, "models": ["up"], "api_key": ""}},
    }
    async with running_gateway(tmp_path_factory.mktemp("import"), config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(gateway) -> int:
    (port,) = [int(name.rpartition(" ")[2]) for name in await listeners_of(gateway) if name != "main"]
    return port


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    keys = [{"key": KEY, "rate_limit": 3, "description": "bot"}, {"key": OFF, "active": 0}]
    return make(tmp_path_factory.mktemp("old") / "apiKeys.db", API_KEYS, apiKeys=keys, apiUsage=[{"key": KEY}])


async def health(port: int, key: str) -> Answer:
    return await get(port, None, f"/health?apikey={key}")


async def generate(port: int) -> Answer:
    return await post(port, None, {"apikey": KEY, "model": "up/up", "prompt": "Hello"}, "/generate")


async def test_clients_go_on_with_the_keys_that_they_have(gateway, port, old):
    assert (await health(port, KEY)).json == {"error": "Invalid API key"}
    done = await gateway.run("import", "api-keys", str(old))
    assert (done.code, "apiKeys: 2 imported" in done.errors) == (0, True), done.errors

    async def is_known() -> bool:
        return (await health(port, KEY)).status == 200

    await wait_until(is_known)
    assert (await health(port, OFF)).json == {"error": "API key is deactivated"}
    assert (await generate(port)).json["response"] == "Hello"
    assert (await post(gateway.port, KEY, hello())).status == 200
    assert (await get(gateway.port, KEY, "/v1/models")).status == 200
    assert (await generate(port)).status == 200
    refused = await generate(port)
    assert (refused.status, refused.json) == (429, {"error": "Rate limit exceeded. Try again later."})
    shown = gateway.log + gateway.output + done.output + done.errors
    assert KEY not in shown
    assert OFF not in shown


async def test_a_key_from_elsewhere_is_managed_like_any_other(gateway, port, old):
    await gateway.run("import", "api-keys", str(old))
    listed = await gateway.run("keys", "list")
    assert "…7be2" in listed.output
    assert "sk-sw-…7be2" not in listed.output
    assert (await gateway.run("keys", "revoke", "bot")).code == 0

    async def is_ended() -> bool:
        return (await health(port, KEY)).status == 403

    await wait_until(is_ended)
    assert "1 imported" not in (await gateway.run("import", "api-keys", str(old))).errors
    assert (await health(port, KEY)).status == 403


async def test_the_statistics_of_the_proxy_go_on(gateway, tmp_path):
    rows = [{"key_index": index, "model": "m", "prompt_tokens": 4, "completion_tokens": 1} for index in (0, 1, 1)]
    file = make(tmp_path / "usage.db", USAGE, usage=rows)
    for words in ("3 imported, 0 already there", "0 imported, 3 already there"):
        done = await gateway.run("import", "usage", str(file))
        assert words in done.errors
