"""An engine that says it is well and computes nothing, while people wait for it."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import UpstreamTimeout
from stellwerk.core.plan import Target
from stellwerk.engines.command_engine import EngineCommand
from stellwerk.engines.crashes import Crash
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.liveness import LivenessSettings
from stellwerk.engines.options import EngineOverrides
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.providers.local import Local
from tests.port_fakes import make_call
from tests.real_engines import DEADLINE, QUICK, running_slots, soon, until
from tests.scripted_engine import PROGRAM

TARGET = Target(provider="local", model="chat")
CURIOUS = msgspec.structs.replace(QUICK, liveness=LivenessSettings(interval=600.0, patience=0.7))
IMPATIENT = UpstreamSettings(first_byte_seconds=0.5)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """The folder whose files tell the engine what to do; it is silent from the beginning."""
    folder = tmp_path / "told"
    folder.mkdir()
    (folder / "no-tokens").touch()
    return folder


def program(folder: Path) -> EngineCommand:
    code = PROGRAM.replace("TROUBLE", "")
    return EngineCommand(command=(sys.executable, "-IS", "-c", code, "{port}", "{key}", str(folder)), checks_key=True)


async def sweep(pools: Pools) -> None:
    """What the application does about twice a second."""
    while True:
        pools.sweep()
        await asyncio.sleep(0.05)


async def test_an_engine_that_hangs_under_load_is_replaced_and_those_who_still_wait_are_answered(
    models: Path, told: Path, pools: Pools
):
    crashes: list[Crash] = []
    programs = EnginePrograms(commands={"hangs": program(told)})
    said = {"chat": EngineOverrides(engine="hangs")}
    seams = {"on_crash": crashes.append}
    sweeping = asyncio.create_task(sweep(pools))
    async with running_slots(models, overrides=said, programs=programs, supervisor=CURIOUS, seams=seams) as slots:
        local = Local(slots, lambda origin: pools.pool(origin, IMPATIENT), SystemClock())

        async def ask() -> int:
            call = make_call(deadline=soon(10 * DEADLINE))
            while True:
                try:
                    answer = await local.send(call, TARGET, local.wire(call.operation, call.wire), call.fields)
                except UpstreamTimeout:
                    continue
                await answer.read()
                return answer.status

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: crashes)
        (told / "no-tokens").unlink()
        async with asyncio.timeout(DEADLINE):
            assert await asyncio.gather(*asking) == [200, 200, 200]
        assert crashes[0].reason == "it answers, but computes nothing"
        assert crashes[0].request_ids
        assert sum(status.restarts for status in slots.status()) == len(crashes)
    sweeping.cancel()
