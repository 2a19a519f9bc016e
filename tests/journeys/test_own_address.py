"""A gateway whose port only `serve --port` knows is found by the other commands, and nobody else is taken for it."""

import asyncio
import signal

import pytest
import pytest_asyncio

from stellwerk.storage.address_note import NOTE_NAME, noted_address
from tests.gateway_process import running_gateway, wait_until
from tests.raw_http import begin, hello
from tests.real_engines import free_ports
from tests.scripted_upstream import ScriptedUpstream, chat
from tests.terminal_process import on_a_terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")


class SlowUpstream(ScriptedUpstream):
    """Answers what it is asked when the test says so."""

    def __init__(self):
        super().__init__(script=self._answer_late)
        self.may_answer = asyncio.Event()

    async def _answer_late(self, talk):
        if talk.request.method == "POST":
            await self.may_answer.wait()
        await chat(talk)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream():
    upstream = SlowUpstream()
    await upstream.start()
    yield upstream
    upstream.may_answer.set()
    await upstream.stop()


@pytest.fixture
def config(upstream):
    return {
        "providers": {"up": {"base_url": upstream.url, "api_key": ""}},
        "engines": {"enabled": True, "demo": False, "first_port": free_ports(1), "slots": 1},
    }


async def test_every_command_finds_a_gateway_on_a_port_that_nobody_has_configured(tmp_path, config, upstream):
    upstream.may_answer.set()
    async with running_gateway(tmp_path, config) as gateway:
        assert noted_address(gateway.data) == ("127.0.0.1", gateway.port)
        for arguments in (
            ("models", "list"),
            ("models", "load", "nothing"),
            ("jobs", "list"),
            ("upstream-keys",),
            ("chat", "up/up", "--once", "Hi"),
            ("ask", "--list"),
            ("ask", "--model", "up/up", "Hi"),
        ):
            done = await gateway.run(*arguments)
            expected = 1 if "load" in arguments else 0
            assert (done.code, "answers at" in done.errors) == (expected, False), (arguments, done.errors)
        with on_a_terminal("console", environment=gateway.environment, folder=tmp_path) as terminal:
            await asyncio.to_thread(terminal.wait_to_see, "connected")
            terminal.type("q")
            assert await asyncio.to_thread(terminal.wait_for_end) == 0
        elsewhere = await gateway.run("jobs", "list", more={"STELLWERK_LISTEN__PORT": "1"})
        assert (elsewhere.code, "http://127.0.0.1:1" in elsewhere.errors) == (1, True)
        await gateway.stop()
        assert not (gateway.data / NOTE_NAME).exists()


async def test_whoever_listens_where_a_killed_gateway_did_gets_no_key(tmp_path, config):
    async with running_gateway(tmp_path, config) as gateway:
        gateway.signal(signal.SIGKILL)
        await gateway.wait()
        assert (gateway.data / NOTE_NAME).exists()
        stranger = ScriptedUpstream(port=gateway.port)
        await stranger.start()
        # Port 1 of the config: nobody listens there.
        gateway.write_config({"listen": {"port": 1}})
        for arguments in (("jobs", "list"), ("models", "list"), ("chat", "--once", "Hi"), ("upstream-keys",)):
            await gateway.run(*arguments, more={"STELLWERK_CONFIG": str(gateway.config)})
        assert stranger.requests == []
        await stranger.stop()


async def test_the_note_is_gone_before_the_port_is_given_back(tmp_path, config, upstream):
    upstream.may_answer.clear()
    async with running_gateway(tmp_path, config) as gateway:
        before = len(upstream.requests)
        asked = await begin(gateway.port, gateway.key, hello())
        await wait_until(lambda: any(each.method == "POST" for each in upstream.requests[before:]))
        gateway.signal(signal.SIGTERM)
        await wait_until(lambda: not (gateway.data / NOTE_NAME).exists())
        assert not gateway.ended
        upstream.may_answer.set()
        assert (await asked.read()).status == 200
        assert await gateway.wait() == 0
