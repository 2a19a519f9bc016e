"""A gateway, one upstream behind it and OpenAI's client before it, for all tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.gateway_process import GatewayProcess, running_gateway
from tests.openai_client import client_of
from tests.scripted_upstream import ScriptedUpstream, chat


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server) -> AsyncIterator[GatewayProcess]:
    models = ["up", "vendor/family:large", "text-embedding-up"]
    provider = {"base_url": server.url, "models": models, "api_key": ""}
    # One that is not waited for for long: on a busy machine it may be too late at any time.
    hasty = {"base_url": server.url, "models": ["silent"], "api_key": "", "first_byte_seconds": 0.5}
    # Every failure is to reach the client: neither retries nor a breaker after the failures of other tests.
    config = {"providers": {"up": provider, "hasty": hasty}, "upstream": {"attempts": 1, "breaker_failures": 0}}
    async with running_gateway(tmp_path_factory.mktemp("openai"), config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(gateway) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(gateway) as made:
        yield made


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server
