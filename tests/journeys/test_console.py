"""The console on a terminal of its own, driven by keys, in front of a gateway with a real engine."""

import asyncio
import json
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, run_command, running_gateway, wait_until
from tests.raw_http import get
from tests.real_engines import free_ports
from tests.terminal_process import on_a_terminal
from tests.tiny_gguf import write_tiny_chat_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODULE = (sys.executable, "-m", "console.tui")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;[25])[;m]")
LEFT = "\x1b[?1049l"
"""What gives a terminal back as it was."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    (folder / "models").mkdir()
    write_tiny_chat_model(folder / "models" / "tiny.gguf")
    engines = {
        "enabled": True, "demo": False, "first_port": free_ports(2), "slots": 2, "threads": 1,
        "models_folder": str(folder / "models"),
    }  # fmt: skip
    async with running_gateway(folder / "gateway", {"engines": engines}) as running:
        yield running


@contextmanager
def console(gateway, *arguments, **variables):
    """`stellwerk console …` with the gateway's key in the environment."""
    environment = {**gateway.environment, "STELLWERK_ADMIN_KEY": "", "STELLWERK_API_KEY": ADMIN_KEY, **variables}
    with on_a_terminal("console", *arguments, environment=environment, folder=gateway.folder) as terminal:
        yield terminal


async def see(terminal, text):
    """Waits until that stands on the screen. What it says must not have stood there before."""
    await asyncio.to_thread(terminal.wait_to_see, text)


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


async def loaded(gateway):
    slots = (await get(gateway.port, ADMIN_KEY, "/admin/api/slots")).json
    return [slot["status"] for slot in slots if slot["model_name"] == "tiny"]


async def test_a_model_is_loaded_and_unloaded_by_keys(gateway):
    with console(gateway, gateway.url) as terminal:
        await see(terminal, "○ stopped")
        assert ADMIN_KEY not in command_line(terminal.process.pid)
        terminal.type("s")
        await see(terminal, "● running")
        assert await loaded(gateway) == ["running"]
        terminal.type("x")
        await see(terminal, "Unload tiny")
        terminal.type("y")
        await see(terminal, "tiny is unloaded.")
        await see(terminal, "○ stopped")
        assert await loaded(gateway) == []
        terminal.type("s")
        await see(terminal, "● running")
        terminal.type("X")
        await see(terminal, "at once?")
        terminal.type("y")
        await see(terminal, "○ stopped")
        terminal.type("4")
        await see(terminal, "Nothing has crashed.")
        terminal.type("q")
        assert await asyncio.to_thread(terminal.wait_for_end) == 0
        assert LEFT in terminal.shown
        assert terminal.is_echoing()
        assert "Traceback" not in terminal.shown
    audited = (await get(gateway.port, ADMIN_KEY, "/admin/api/audit")).body.decode()
    assert '"graceful":false' in audited


async def test_a_machine_s_own_gateway_needs_neither_url_nor_token(gateway):
    variables = {"STELLWERK_API_KEY": "", "STELLWERK_LISTEN__PORT": str(gateway.port), "LC_ALL": "de_DE.UTF-8"}
    with console(gateway, **variables) as terminal:
        await see(terminal, "verbunden")
        terminal.type("q")
        assert await asyncio.to_thread(terminal.wait_for_end) == 0


async def test_without_colours_none_are_printed(gateway):
    with console(gateway, gateway.url, NO_COLOR="1") as terminal:
        await see(terminal, "tiny")
        terminal.type("\t?")
        await see(terminal, "Any key closes this.")
        terminal.type(" ")
        await asyncio.to_thread(terminal.wait_to_see, "Any key closes this.", gone=True)
        await see(terminal, "There are no queues.")
        terminal.type("q")
        assert await asyncio.to_thread(terminal.wait_for_end) == 0
        assert COLOUR.findall(terminal.shown) == []


async def test_with_colours_some_are_printed(gateway):
    with console(gateway, gateway.url) as terminal:
        await see(terminal, "tiny")
        assert COLOUR.search(terminal.shown)


async def test_a_key_that_may_not_look_is_told_so(gateway):
    with console(gateway, gateway.url, "sk-nobody-has-this-key") as terminal:
        await see(terminal, "401: the token is wrong")
        terminal.type("q")
        assert await asyncio.to_thread(terminal.wait_for_end) == 0


async def test_nobody_who_answers_is_told_so(gateway):
    with console(gateway, "http://127.0.0.1:1") as terminal:
        await see(terminal, "Nobody answers at http://127.0.0.1:1")
        terminal.type("q")
        assert await asyncio.to_thread(terminal.wait_for_end) == 0


@pytest.mark.parametrize("arguments", [(), ("http://localhost:8080",), ("--help",), ("a", "b", "c")])
async def test_the_documented_module_shows_its_usage_without_a_token(gateway, arguments):
    done = await run_command(*arguments, environment=environment_without_key(gateway), program=MODULE)
    assert (done.code, done.output) == (1, "")
    assert done.errors.startswith("Usage: python -m console.tui URL TOKEN\n")


async def test_the_documented_module_needs_a_terminal(gateway):
    environment = environment_without_key(gateway)
    done = await run_command(gateway.url, "some-token", environment=environment, program=MODULE)
    assert (done.code, done.errors) == (1, "The console needs a terminal.\n")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://elsewhere.example:4000", "There is no token."),
        ("ftp://x", "no address"),
        ("http://a:b@c", "no address"),
    ],
)
async def test_what_cannot_be_asked_is_said_before_there_is_a_screen(gateway, url, said):
    token = () if "elsewhere" in url else ("token",)
    done = await run_command("console", url, *token, environment=environment_without_key(gateway))
    assert done.code == 1
    assert said in done.errors


def environment_without_key(gateway):
    return {name: value for name, value in gateway.environment.items() if name != "STELLWERK_ADMIN_KEY"}


async def test_it_sees_the_gateway_come_back(gateway, tmp_path):
    # None that the kernel gives away meanwhile.
    port = free_ports()
    async with running_gateway(tmp_path / "other", port=port) as other:
        with console(gateway, other.url) as terminal:
            await see(terminal, "connected")
            await other.stop()
            await see(terminal, "reconnecting")
            async with running_gateway(tmp_path / "other", port=port):
                await see(terminal, "connected")
                terminal.type("q")
                assert await asyncio.to_thread(terminal.wait_for_end) == 0
    await wait_until(lambda: other.ended)


async def documented_login(port):
    """A token as the documented curl line gets it."""
    line = f'curl -s -X POST "http://localhost:{port}/auth/token" -d "username=admin&password=admin"'
    process = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return json.loads(printed)["access_token"]


async def test_the_documented_line_shows_and_steers_an_ai_gateway(gateway, tmp_path):
    shutil.copytree(gateway.folder.parent / "models", tmp_path / "models")
    config = {
        "engines": {
            "enabled": True, "demo": False, "first_port": free_ports(1), "slots": 1, "threads": 1,
            "models_folder": str(tmp_path / "models"),
        },
        "compat": ["ai-gateway"],
        "ai_gateway": {"port": free_ports(1), "demo_login": True, "models": {"gemma": {"name": "tiny"}}},
    }  # fmt: skip
    port = config["ai_gateway"]["port"]
    async with running_gateway(tmp_path / "documented", config) as documented:
        token = await documented_login(port)
        with console(documented, f"http://localhost:{port}", token) as terminal:
            await see(terminal, "gemma")
            terminal.type("/gemma\r")
            await see(terminal, "only “gemma”")
            terminal.type("s")
            await see(terminal, "● running")
            terminal.type("r")
            await see(terminal, "gundam")
            terminal.type("\x1b[B\x1b[B\r")
            await see(terminal, "OCR mode is ")
            terminal.type("x")
            await see(terminal, "Unload gemma")
            terminal.type("y")
            await see(terminal, "gemma is unloaded.")
            terminal.type("2")
            await see(terminal, "0/")
            terminal.type("q")
            assert await asyncio.to_thread(terminal.wait_for_end) == 0
