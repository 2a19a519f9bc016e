import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines import launching
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.model_files import ModelFiles
from stellwerk.engines.options import EngineDefaults, resolve_options
from stellwerk.engines.process import Launch
from stellwerk.engines.restarts import RestartSettings
from stellwerk.engines.supervisor import EngineState, Supervisor, SupervisorSettings
from tests.real_engines import DEADLINE, QUICK, ends, free_ports, until, write_fake_server

Launcher = Callable[[], Awaitable[Launch]]


@pytest.fixture
def launcher(tiny_models: Path, tmp_path: Path) -> Callable[[str], Launcher]:
    """Launches a fake llama-server; the argument is a line of Python that it runs before it listens."""
    file = ModelFiles(tiny_models).scan().files["chat"]
    port = free_ports(1)

    def build(trouble: str = "") -> Launcher:
        server = write_fake_server(tmp_path / "llama-server", trouble)
        programs = EnginePrograms(llama_server=str(server))
        options = resolve_options(file, EngineDefaults(engine="llama-server"))
        starts = iter(range(1000))

        async def launch() -> Launch:
            address = EngineAddress(host="127.0.0.1", port=port, key=f"key {next(starts)}")
            return launching.launch(file, options, address, os.environ, programs)

        return launch

    return build


@asynccontextmanager
async def supervised(launch: Launcher, settings: SupervisorSettings = QUICK) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        "test", launch=launch, on_failure=lambda _failure, _served: None, settings=settings, clock=SystemClock()
    )
    supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def test_a_server_of_any_make_is_used_once_it_takes_our_key(launcher: Callable[[str], Launcher]):
    async with asyncio.timeout(DEADLINE), supervised(launcher("")) as supervisor:
        assert (await supervisor.ready()).key == "key 0"
        assert supervisor.state is EngineState.READY
        assert "fake server starts" in supervisor.output
        pid = supervisor.pid
    assert pid is not None
    assert ends(pid, 0.0)


async def test_a_killed_engine_is_replaced_at_once_with_a_new_key(launcher: Callable[[str], Launcher]):
    settings = msgspec.structs.replace(QUICK, restarts=RestartSettings(first_delay=600.0))
    async with asyncio.timeout(DEADLINE), supervised(launcher(""), settings) as supervisor:
        await supervisor.ready()
        killed = supervisor.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert ends(killed, 30.0)
        assert (await supervisor.ready()).key == "key 1"
        assert supervisor.restarts == 1
        assert "SIGKILL" in str(supervisor.failure)


async def test_an_engine_that_keeps_crashing_is_given_up(launcher: Callable[[str], Launcher]):
    settings = msgspec.structs.replace(QUICK, restarts=RestartSettings(first_delay=0.01, max_crashes=3))
    async with asyncio.timeout(DEADLINE), supervised(launcher(""), settings) as supervisor:
        for _ in range(3):
            await supervisor.ready()
            assert supervisor.pid is not None
            os.kill(supervisor.pid, signal.SIGKILL)
            supervisor.doubt()
        with pytest.raises(EngineFailed, match="SIGKILL"):
            await supervisor.ready()
        assert supervisor.restarts == 2
        assert supervisor.state is EngineState.FAILED


async def test_an_engine_that_cannot_load_is_not_tried_again(launcher: Callable[[str], Launcher]):
    trouble = "sys.exit('error loading model: out of luck')"
    async with asyncio.timeout(DEADLINE), supervised(launcher(trouble)) as supervisor:
        with pytest.raises(EngineFailed, match="out of luck"):
            await supervisor.ready()
        assert supervisor.restarts == 0


async def test_loading_has_an_end(launcher: Callable[[str], Launcher]):
    settings = msgspec.structs.replace(QUICK, load_timeout=0.3)
    async with asyncio.timeout(DEADLINE), supervised(launcher("import time; time.sleep(600)"), settings) as supervisor:
        with pytest.raises(EngineFailed, match=r"not ready after 0\.3 s"):
            await supervisor.ready()
        assert supervisor.pid is None


async def test_an_engine_that_hangs_is_found_and_replaced(launcher: Callable[[str], Launcher]):
    async with asyncio.timeout(DEADLINE), supervised(launcher("")) as supervisor:
        await supervisor.ready()
        stopped = supervisor.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        assert await asyncio.to_thread(ends, stopped, DEADLINE)
        assert (await supervisor.ready()).key == "key 1"
        assert str(supervisor.failure) == "it stopped answering"


async def test_a_doubted_engine_is_probed_before_it_is_used_again(launcher: Callable[[str], Launcher]):
    settings = msgspec.structs.replace(QUICK, probe_interval=600.0)
    async with asyncio.timeout(DEADLINE), supervised(launcher(""), settings) as supervisor:
        await supervisor.ready()
        supervisor.doubt()
        assert (await supervisor.ready()).key == "key 0"
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.doubt()
        assert (await supervisor.ready()).key == "key 1"


async def test_stopping_in_the_middle_of_a_start_leaves_no_process(launcher: Callable[[str], Launcher]):
    launched = asyncio.Event()
    build = launcher("import time; time.sleep(600)")

    async def launch() -> Launch:
        launched.set()
        return await build()

    async with asyncio.timeout(DEADLINE), supervised(launch) as supervisor:
        await launched.wait()
        await supervisor.stop()
        assert supervisor.pid is None
    # Warnings are errors: a child that was not waited for would fail this test.
    gc.collect()


async def test_stopping_in_the_middle_of_loading_leaves_no_process(launcher: Callable[[str], Launcher]):
    async with asyncio.timeout(DEADLINE), supervised(launcher("import time; time.sleep(600)")) as supervisor:
        await until(lambda: "fake server starts" in supervisor.output)
        pid = supervisor.pid
        assert pid is not None
        await supervisor.stop()
        assert ends(pid, 0.0)
        with pytest.raises(EngineFailed, match="being stopped"):
            await supervisor.ready()
