"""Requests that wait until their model is loaded see their place: in the header, or in their stream."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.core.call import Place
from stellwerk.core.clock import SystemClock
from stellwerk.core.plan import Plan, Target
from stellwerk.engines.command_engine import EngineCommand
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.options import EngineOverrides
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.gateway import Gateway
from stellwerk.pipeline.settle import Settle
from stellwerk.providers.local import Local
from stellwerk.routing.breaker import Breakers, BreakerSettings
from tests.gateway_process import ADMIN_KEY, running_gateway, wait_until
from tests.port_fakes import RecordedExchange, make_call
from tests.raw_http import get, hello, post
from tests.real_engines import free_ports, running_slots, soon
from tests.scripted_engine import PROGRAM


def loading(folder: Path) -> tuple[str, ...]:
    """The command line of an engine that loads until the file `loading` is taken away."""
    folder.mkdir()
    (folder / "loading").touch()
    program = folder / "engine.py"
    # Before it listens: one that takes our key is loaded, whatever it says of its health.
    program.write_text(PROGRAM.replace("TROUBLE", "import time\nwhile told('loading'): time.sleep(0.01)"))
    return (sys.executable, "-IS", str(program), "{port}", "{key}", str(folder))


async def test_a_request_that_waited_for_a_load_is_told_so_in_a_header(tiny_models, tmp_path):
    command = loading(tmp_path / "told")
    engines = {
        "enabled": True,
        "demo": False,
        "models_folder": str(tiny_models),
        "first_port": free_ports(1),
        "slots": 1,
        "commands": {"slow": {"command": command, "checks_key": True}},
        "models": {"chat": {"engine": "slow"}},
    }
    async with running_gateway(tmp_path / "gateway", {"engines": engines}) as gateway:
        going = asyncio.create_task(post(gateway.port, ADMIN_KEY, hello("chat")))

        async def waits():
            [slot] = (await get(gateway.port, ADMIN_KEY, "/admin/api/slots")).json
            return slot["status"] == "loading" and slot["waiting"]

        assert await wait_until(waits) == 1
        (tmp_path / "told" / "loading").unlink()
        answer = await going
        assert (answer.status, answer.headers["x-stellwerk-queue-position"]) == (200, "1")
        again = await post(gateway.port, ADMIN_KEY, hello("chat"))
        assert (again.status, "x-stellwerk-queue-position" in again.headers) == (200, False)


class Permit:
    headers = ()

    def release(self, tokens=None) -> None: ...

    refund = release


class Watch:
    def fell_back(self) -> None: ...

    def retried(self) -> None: ...


async def test_a_stream_that_waits_for_a_load_hears_its_place_until_it_is_answered(tiny_models, tmp_path, pools):
    command = EngineCommand(command=loading(tmp_path / "told"), checks_key=True)
    said = {"chat": EngineOverrides(engine="slow")}
    programs = EnginePrograms(commands={"slow": command})
    async with running_slots(tiny_models, overrides=said, programs=programs, place_interval=0.05) as slots:
        clock, outcomes, exchange = SystemClock(), [], RecordedExchange()
        local = Local(slots, pools.pool, clock)
        gateway = Gateway(
            plan=lambda call: Plan(name="chat", targets=(Target(provider="local", model="chat"),)),
            admit=lambda *_: Permit(),
            hold=None,
            dispatch=Dispatch({"local": local}, Watch(), 1, Breakers(BreakerSettings(), clock), clock),
            settle=Settle([outcomes.append], lambda *_: 0),
            clock=clock,
        )
        call = msgspec.structs.replace(make_call(stream=True, deadline=soon()), place=Place())
        going = asyncio.ensure_future(gateway.run(call, OpenAIReply(call, exchange, patience=0.0)))
        await wait_until(lambda: exchange.written)
        assert exchange.written == b": waiting, place 1\n\n"
        (tmp_path / "told" / "loading").unlink()
        async with asyncio.timeout(30):
            await going
        asked = [json.loads(line) for line in (tmp_path / "told" / "asked").read_text().splitlines()]
        assert [one["model"] for one in asked] == ["chat"]
        assert outcomes[0].status == 200
