"""What a supervisor finds and tells of engines that misbehave; how it starts and stops them: test_supervisor.py."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.engines.crashes import Crash
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.liveness import LivenessSettings
from stellwerk.engines.orphans import PidFiles
from stellwerk.engines.process import EngineProcess
from stellwerk.engines.process_table import MARK, find_process
from stellwerk.engines.supervisor import EngineState, Supervisor, SupervisorSettings
from tests.real_engines import DEADLINE, QUICK, ends, free_ports, until
from tests.scripted_engine import ScriptedEngine

CURIOUS = msgspec.structs.replace(QUICK, liveness=LivenessSettings(interval=0.05, timeout=DEADLINE))
IMPATIENT = msgspec.structs.replace(QUICK, liveness=LivenessSettings(interval=0.05, timeout=0.3))
INCURIOUS = msgspec.structs.replace(QUICK, liveness=LivenessSettings(interval=600.0, timeout=0.3, patience=0.3))


class Use:
    """Who uses the engine of a test."""

    def __init__(self) -> None:
        self.requests: Sequence[str] = ()


@asynccontextmanager
async def supervised(
    engine: ScriptedEngine, settings: SupervisorSettings = CURIOUS, use: Use | None = None, **options: Any
) -> AsyncIterator[tuple[Supervisor, list[Crash]]]:
    crashes: list[Crash] = []
    use = use or Use()
    supervisor = Supervisor(
        "model",
        launch=engine.launch,
        on_failure=lambda _failure, _served: None,
        settings=settings,
        clock=SystemClock(),
        **{
            "on_crash": crashes.append,
            "running": lambda: use.requests,
            "idle": lambda: not use.requests,
            **options,
        },
    )
    supervisor.start()
    try:
        async with asyncio.timeout(DEADLINE):
            yield supervisor, crashes
    finally:
        await supervisor.stop()


@pytest.fixture
def port() -> int:
    return free_ports(1)


async def test_an_idle_engine_is_asked_for_a_token(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port)
    async with supervised(engine) as (supervisor, crashes):
        await supervisor.ready()
        await until(lambda: len(engine.asked) > 1)
        assert set(engine.asked) == {'{"model":"model","prompt":"a","max_tokens":1}'}
        assert not crashes
        assert supervisor.state is EngineState.READY


async def test_an_engine_in_use_is_not_asked(tmp_path: Path, port: int):
    engine, use = ScriptedEngine(tmp_path / "engine", port), Use()
    use.requests = ["req-1"]
    engine.tell("no-tokens")
    async with supervised(engine, use=use) as (supervisor, crashes):
        first = await supervisor.ready()
        await until(lambda: engine.looks > 5)
        assert await supervisor.ready() == first
        assert not crashes
        assert not engine.asked


async def test_an_engine_that_says_it_is_well_but_gives_no_token_is_replaced(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port)
    engine.tell("no-tokens")
    async with supervised(engine, IMPATIENT) as (supervisor, crashes):
        await supervisor.ready()
        await until(lambda: crashes)
        engine.take_back("no-tokens")
        await until(lambda: supervisor.state is EngineState.READY)
        assert crashes[0].reason == "it answers, but computes nothing"
        assert (crashes[0].exit_code, crashes[0].signal) == (None, None)
        assert crashes[0].had_served


async def test_a_probe_that_meets_a_request_proves_nothing_until_the_engine_is_idle_again(tmp_path: Path, port: int):
    engine, use = ScriptedEngine(tmp_path / "engine", port), Use()
    engine.tell("no-tokens")
    # Long enough for a request to meet it.
    slower = msgspec.structs.replace(IMPATIENT, liveness=LivenessSettings(interval=0.05, timeout=2.0))
    async with supervised(engine, slower, use) as (supervisor, crashes):
        await supervisor.ready()
        await until(lambda: engine.asked)
        use.requests = ["req-1"]
        looks = engine.looks
        await until(lambda: engine.looks > looks + 2)
        engine.take_back("no-tokens")
        asked = len(engine.asked)
        assert asked == 1
        use.requests = []
        await until(lambda: len(engine.asked) > asked)
        assert not crashes


async def test_an_engine_under_suspicion_is_asked_at_once(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port)
    async with supervised(engine, INCURIOUS) as (supervisor, _):
        await supervisor.ready()
        supervisor.suspect()
        await until(lambda: engine.asked)


async def test_an_engine_that_hangs_under_load_without_an_end_is_replaced(tmp_path: Path, port: int):
    engine, use = ScriptedEngine(tmp_path / "engine", port), Use()
    use.requests = ["req-1", "req-2"]
    async with supervised(engine, INCURIOUS, use) as (supervisor, crashes):
        await supervisor.ready()
        supervisor.suspect()
        await until(lambda: crashes)
        assert crashes[0].reason == "it answers, but computes nothing"
        assert crashes[0].request_ids == ("req-1", "req-2")


async def test_an_engine_without_such_a_probe_has_only_to_say_that_it_is_well(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port, token_probe=None)
    engine.tell("no-tokens")
    async with supervised(engine) as (supervisor, crashes):
        await supervisor.ready()
        await until(lambda: engine.looks > 5)
        assert not crashes
        assert not engine.asked


async def test_an_engine_that_knows_no_keys_is_trusted_for_its_health(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port, checks_key=False, health_path="/v1/models")
    # Of this one, that path answers 401 to who shows no key: it never becomes ready.
    async with supervised(engine, msgspec.structs.replace(CURIOUS, load_timeout=0.5)) as (supervisor, _):
        with pytest.raises(EngineFailed, match="not ready"):
            await supervisor.ready()
    engine = ScriptedEngine(tmp_path / "engine", port, checks_key=False, health_path="/health")
    async with supervised(engine) as (supervisor, _):
        assert (await supervisor.ready()).key == "key-1"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere health is all the proof there is")
async def test_health_told_by_a_stranger_proves_nothing(tmp_path: Path, port: int):
    # The engine hangs before it listens; somebody else answers at its port.
    engine = ScriptedEngine(tmp_path / "engine", port, "never.wait()", checks_key=False)
    stranger = await EngineProcess.start(await ScriptedEngine(tmp_path / "stranger", port).launch())
    try:
        await until(lambda: stranger.output)
        async with supervised(engine, msgspec.structs.replace(CURIOUS, load_timeout=1.0)) as (supervisor, _):
            with pytest.raises(EngineFailed, match="not ready"):
                await supervisor.ready()
    finally:
        await stranger.stop(1.0)


async def test_a_killed_engine_leaves_a_record_of_what_it_did(tmp_path: Path, port: int):
    engine, use = ScriptedEngine(tmp_path / "engine", port), Use()
    use.requests = [f"req-{number}" for number in range(100)]
    async with supervised(engine, use=use) as (supervisor, crashes):
        await supervisor.ready()
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        await until(lambda: crashes)
    crash = crashes[0]
    assert (crash.model, crash.engine, crash.reason) == ("model", "scripted", "it was ended by SIGKILL")
    assert (crash.exit_code, crash.signal) == (None, "SIGKILL")
    assert crash.last_lines == ("engine serves with [hidden] from the file",)
    assert crash.memory_mib is not None
    assert 1 < crash.memory_mib < 200
    assert crash.request_ids == tuple(use.requests[:64])
    assert crash.at == pytest.approx(SystemClock().now(), abs=DEADLINE)
    assert 0 < crash.uptime < DEADLINE
    assert len(crashes) == 1


async def test_an_end_while_it_loads_is_recorded_with_its_code(tmp_path: Path, port: int):
    lines = "[print(f'line {n}', '/secret/path', 'x' * 1000, file=sys.stderr) for n in range(300)]; sys.exit(3)"
    engine = ScriptedEngine(tmp_path / "engine", port, lines)
    async with supervised(engine) as (supervisor, crashes):
        with pytest.raises(EngineFailed):
            await supervisor.ready()
    assert [(crash.exit_code, crash.signal, crash.had_served) for crash in crashes] == [(3, None, False)]
    assert len(crashes[0].last_lines) == 20
    assert crashes[0].last_lines[-1].startswith("line 299 the file xxx")
    assert max(map(len, crashes[0].last_lines)) < 300


async def test_an_end_while_it_loads_is_recorded_with_the_memory_that_it_had_taken(tmp_path: Path, port: int):
    trouble = (
        "held = b'x' * (64 << 20)\n"
        "while not told('enough'): pass\n"
        "os.abort()"
    )  # fmt: skip
    engine = ScriptedEngine(tmp_path / "engine", port, trouble)
    async with supervised(engine) as (supervisor, crashes):
        await until(lambda: (supervisor.memory_mib or 0) > 64)
        engine.tell("enough")
        with pytest.raises(EngineFailed):
            await supervisor.ready()
        assert crashes[0].signal == "SIGABRT"
        assert (crashes[0].memory_mib or 0) > 64


async def test_an_engine_that_never_becomes_ready_is_recorded(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port)
    engine.tell("loading")
    settings = msgspec.structs.replace(CURIOUS, load_timeout=0.5)
    engine_without_key = ScriptedEngine(tmp_path / "engine", port, checks_key=False)
    async with supervised(engine_without_key, settings) as (supervisor, crashes):
        with pytest.raises(EngineFailed, match=r"not ready after 0\.5 s"):
            await supervisor.ready()
        assert [crash.reason for crash in crashes] == ["it was not ready after 0.5 s"]
        assert supervisor.memory_mib is None


async def test_an_engine_that_we_stop_has_not_crashed(tmp_path: Path, port: int):
    async with supervised(ScriptedEngine(tmp_path / "engine", port)) as (supervisor, crashes):
        await supervisor.ready()
    assert not crashes


async def test_a_crash_that_nobody_can_be_told_of_is_repaired_all_the_same(tmp_path: Path, port: int):
    def refuse(_crash: Crash) -> None:
        raise OSError

    async with supervised(ScriptedEngine(tmp_path / "engine", port), on_crash=refuse) as (supervisor, _):
        assert (await supervisor.ready()).key == "key-1"
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.doubt()
        assert (await supervisor.ready()).key == "key-2"


async def test_memory_is_known_when_an_engine_is_ready_and_measured_on_demand(tmp_path: Path, port: int):
    engine = ScriptedEngine(tmp_path / "engine", port, "held = b'x' * (64 << 20)")
    async with supervised(engine) as (supervisor, _):
        assert supervisor.memory_mib is None
        await supervisor.ready()
        assert supervisor.memory_mib is not None
        assert supervisor.memory_mib > 64
        assert await supervisor.measure_memory() == pytest.approx(supervisor.memory_mib)


async def test_a_running_engine_is_written_down_and_no_longer_when_it_has_ended(tmp_path: Path, port: int):
    pids = tmp_path / "pids"
    async with supervised(ScriptedEngine(tmp_path / "engine", port), pids=PidFiles(pids)) as (supervisor, _):
        await supervisor.ready()
        record = msgspec.json.decode((pids / f"{port}.json").read_bytes())
        assert record["pid"] == supervisor.pid
    assert not list(pids.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="needs the mark of processes")
async def test_what_a_killed_engine_had_started_does_not_outlive_it(tmp_path: Path, port: int):
    trouble = (
        "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
        "start_new_session=True); print(child.pid, file=sys.stderr)"
    )
    async with supervised(ScriptedEngine(tmp_path / "engine", port, trouble)) as (supervisor, crashes):
        await supervisor.ready()
        child = int(supervisor.output[0])
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        await until(lambda: crashes)
        assert await asyncio.to_thread(ends, child, DEADLINE)


async def test_a_flood_of_words_neither_blocks_the_engine_nor_us(tmp_path: Path, port: int):
    trouble = (
        "threading.Thread(target=lambda: [sys.stderr.write(f'{n} ' + 'noise ' * 20 + chr(10)) for n in range(10**9)], "
        "daemon=True).start()"
    )
    async with supervised(ScriptedEngine(tmp_path / "engine", port, trouble)) as (supervisor, crashes):
        await supervisor.ready()
        entry = find_process(os.getpid())
        assert entry is not None
        # Ten megabytes later.
        await until(
            lambda: "noise" in (said := supervisor.output or [""])[-1] and int(said[-1].split()[0]) > 80_000,
        )
        later = find_process(os.getpid())
        assert later is not None
        assert later.rss_kib - entry.rss_kib < 20 << 10
        assert len(supervisor.output) == 200
        assert not crashes


async def test_an_engine_knows_its_mark_and_nothing_else_of_us(tmp_path: Path, port: int):
    trouble = "print(sorted(os.environ), file=sys.stderr)"
    engine = ScriptedEngine(tmp_path / "engine", port, trouble, environment={"PATH": "/bin", "LC_ALL": "C"})
    async with supervised(engine) as (supervisor, _):
        await supervisor.ready()
        assert supervisor.output[0] == str(sorted(["LC_ALL", MARK, "PATH"]))
    gc.collect()
