"""`stellwerk models` beside a running gateway and without one."""

import asyncio
import json
import re
import signal
import subprocess

import pytest
import pytest_asyncio

from tests.gateway_process import COMMAND, running_gateway, wait_until
from tests.raw_http import get
from tests.real_engines import free_ports
from tests.small_hub import Fault, SmallHub
from tests.small_registry import MODEL, SmallRegistry
from tests.tiny_gguf import write_tiny_chat_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPOSITORY = "someone/tiny-GGUF"
NO_GATEWAY = {"STELLWERK_LISTEN__PORT": "1"}
"""A port on which nobody listens."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models-command")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(folder):
    model = write_tiny_chat_model(folder / "model.gguf").read_bytes()
    hub = SmallHub()
    hub.add(REPOSITORY, {"tiny-Q4_K_M.gguf": model})
    hub.add("someone/other-GGUF", {"other-Q8_0.gguf": model + bytes(8 << 20)})
    await hub.start()
    yield hub
    await hub.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(folder):
    registry = SmallRegistry()
    content = write_tiny_chat_model(folder / "library.gguf").read_bytes()
    registry.add("library/small/1b", (MODEL, content))
    registry.add("library/other/latest", (MODEL, content))
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture(scope="module")
def first_port():
    return free_ports(2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder, hub, library, first_port):
    config = {
        "engines": {"enabled": True, "demo": False, "first_port": first_port, "slots": 2, "threads": 1},
        "hub": {"endpoint": hub.url, "ollama_registry": library.url},
    }
    async with running_gateway(folder / "gateway", config) as running:
        yield running


@pytest.fixture
def run(gateway):
    """Runs `stellwerk models …` without any key in the environment and expects it to end with a status."""

    async def run(*arguments, expect=0, offline=False, **more):
        variables = {"STELLWERK_ADMIN_KEY": "", "STELLWERK_CONFIG": str(gateway.config), **more}
        variables |= NO_GATEWAY if offline else {"STELLWERK_LISTEN__PORT": str(gateway.port)}
        done = await gateway.run("models", *arguments, more=variables)
        assert done.code == expect, (done.output, done.errors)
        return done

    return run


async def test_a_model_is_searched_pulled_loaded_and_removed(run, gateway, first_port):
    second = first_port + 1
    assert REPOSITORY in (await run("search", "tiny")).output
    assert "tiny-Q4_K_M is here." in (await run("pull", f"{REPOSITORY}:Q4_K_M")).errors
    await run("load", "tiny-Q4_K_M", "--slot", str(second), "--context", "512", "--pin")
    [model] = json.loads((await run("list", "--json")).output)
    assert (model["name"], model["loaded"], model["slot"]) == ("tiny-Q4_K_M", True, second)
    slots = (await get(gateway.port, gateway.key, "/admin/api/slots")).json
    assert [(slot["ctx_size"], slot["pinned"]) for slot in slots] == [(None, False), (512, True)]
    assert (
        "geladen; `stellwerk models unload`"
        in (await run("rm", "tiny-Q4_K_M", "--yes", expect=1, LC_ALL="de_DE.UTF-8")).errors
    )
    await run("pin", "tiny-Q4_K_M", "--off")
    await run("unload", "tiny-Q4_K_M")
    assert "is not loaded" in (await run("unload", str(second))).errors
    assert "general.architecture\tllama" in (await run("show", "tiny-Q4_K_M.gguf")).output
    await run("rm", "tiny-Q4_K_M", "--yes")
    assert "There are no local models" in (await run("list")).errors
    assert "no such local model" in (await run("show", "tiny-Q4_K_M", expect=1)).errors
    audited = (await get(gateway.port, gateway.key, "/admin/api/audit")).body.decode()
    actions = set(re.findall(r'"action":"([^"]+)"', audited))
    assert actions >= {"model.download", "slot.load", "slot.unload", "model.pin", "model.delete"}


async def test_a_name_of_ollamas_library_is_pulled(run, gateway):
    assert "small-1b is here." in (await run("pull", "small:1b")).errors
    await run("rm", "small-1b", "--yes")
    audited = (await get(gateway.port, gateway.key, "/admin/api/audit")).body.decode()
    assert "repository:library/small" in audited
    assert "file does not exist" in (await run("pull", "nobody", expect=1)).errors


async def test_an_interrupted_pull_is_paused_and_goes_on_when_it_is_pulled_again(run, gateway, hub):
    hub.faults.append(Fault(stop_after=1 << 20))
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "models",
        "pull",
        "someone/other-GGUF",
        "--url",
        gateway.url,
        env={**gateway.environment},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        await hub.stopped.wait()
        # What it has printed shows that it follows the download.
        await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert process.returncode == 130
    assert "stellwerk models pull someone/other-GGUF" in errors.decode()

    async def paused():
        [download] = json.loads((await run("downloads", "--json")).output)[:1]
        return download["status"] == "paused" and download

    download = await wait_until(paused)
    hub.go_on.set()
    assert "Download" in (await run("downloads", "cancel", download["id"])).errors
    await run("downloads", "explode", download["id"], expect=2)


async def test_a_gateway_that_does_not_answer_keeps_its_folder(run):
    refused = (await run("pull", REPOSITORY, expect=1, offline=True)).errors
    assert "in use by process" in refused
    assert "--url names its address" in refused
    await run("list", offline=True)
    assert "stellwerk serve" in (await run("load", "tiny", expect=1, offline=True)).errors


async def test_without_a_gateway_the_data_folder_is_worked_on_itself(run, gateway):
    await gateway.stop()
    assert "tiny-Q4_K_M is here." in (await run("pull", REPOSITORY, offline=True)).errors
    assert "tiny-Q4_K_M\ttext" in (await run("list", offline=True)).output
    assert "general.architecture\tllama" in (await run("show", "tiny-Q4_K_M", offline=True)).output
    assert "tiny-Q4_K_M\tdone" in (await run("downloads", offline=True)).output
    await run("rm", "tiny-Q4_K_M", "--yes", offline=True)
    assert "other is here." in (await run("pull", "other", offline=True)).errors
    await run("rm", "other", "--yes", offline=True)
    assert "There are no local models" in (await run("list", offline=True)).errors
    assert "Nobody has asked" in (await run("missing", offline=True)).errors
