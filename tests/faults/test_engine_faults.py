"""Engines that die, hang or lose their gateway."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path

import msgspec
import pytest

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.slots import Slots
from tests.real_engines import (
    DEADLINE,
    QUICK,
    ask,
    chat,
    ends,
    free_ports,
    running_slots,
    small,
    soon,
    until,
    write_fake_server,
)

GATEWAY = """
import asyncio, json, os, sys, time
from pathlib import Path
from stellwerk.core.clock import SystemClock
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.options import EngineDefaults
from stellwerk.engines.slot_settings import SlotSettings
from stellwerk.engines.slots import Slots

async def main():
    settings = SlotSettings(
        folder=Path(sys.argv[1]), bundled=(), preload=(), first_port=int(sys.argv[2]), count=2,
        defaults=EngineDefaults(engine=sys.argv[4]), programs=EnginePrograms(llama_server=sys.argv[5]),
    )
    slots = Slots(settings, SystemClock(), os.environ)
    await slots.start()
    for model in ("chat", "embedding"):
        await slots.acquire(model, deadline=time.monotonic() + 20)
    print(json.dumps([status.pid for status in slots.status()]), flush=True)
    await asyncio.Event().wait()

if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def pid_of(slots: Slots, model: str) -> int:
    pid = next(status.pid for status in slots.status() if status.model == model)
    assert pid is not None
    return pid


async def test_the_request_after_a_kill_is_answered(models: Path):
    async with running_slots(models) as slots:
        lease = await slots.acquire("chat", deadline=soon())
        lease.release()
        os.kill(pid_of(slots, "chat"), signal.SIGKILL)
        lease.doubt()
        again = await slots.acquire("chat", deadline=soon())
        assert await chat(again.address) == 200
        assert again.address.key != lease.address.key
        assert slots.status()[1].restarts == 1


async def test_an_engine_killed_again_and_again_is_given_up_with_a_reason(models: Path):
    async with running_slots(models) as slots:
        for _ in range(5):
            await slots.acquire("chat", deadline=soon())
            pid = pid_of(slots, "chat")
            os.kill(pid, signal.SIGKILL)
            assert ends(pid, 30.0)
        await until(lambda: slots.status()[1].state == "failed")
        assert slots.status()[1].error == "it was ended by SIGKILL"


async def test_a_stopped_process_is_found_and_replaced(models: Path):
    async with running_slots(models) as slots:
        await slots.acquire("chat", deadline=soon())
        pid = pid_of(slots, "chat")
        os.kill(pid, signal.SIGSTOP)
        assert await asyncio.to_thread(ends, pid, DEADLINE)
        assert await chat((await slots.acquire("chat", deadline=soon())).address) == 200


async def test_a_busy_engine_is_not_taken_for_a_stopped_one(models: Path):
    async with running_slots(models, **small(max_requests=16, context=2048)) as slots:
        leases = [await slots.acquire("chat", deadline=soon()) for _ in range(16)]
        pid = pid_of(slots, "chat")
        body = {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 400, "ignore_eos": True}
        answers = await asyncio.gather(*(ask(lease.address, "/v1/chat/completions", body) for lease in leases))
        assert {status for status, _ in answers} == {200}
        assert pid_of(slots, "chat") == pid
        assert slots.status()[1].restarts == 0


async def all_slots_busy(address: EngineAddress) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            status, slots = await ask(address, "/slots")
            if status == 200 and all(slot["is_processing"] for slot in slots):
                return


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_an_engine_lost_under_load_is_replaced_and_nobody_waits_for_the_old_one(
    models: Path, blow: signal.Signals
):
    async with running_slots(models, **small(max_requests=16, context=2048)) as slots:
        leases = [await slots.acquire("chat", deadline=soon()) for _ in range(8)]
        # Long enough for every slot to be at work when it happens.
        body = {"prompt": "go on", "max_tokens": 1900, "ignore_eos": True}
        asked = [asyncio.create_task(ask(lease.address, "/v1/completions", body)) for lease in leases]
        await all_slots_busy(leases[0].address)
        pid = pid_of(slots, "chat")
        os.kill(pid, blow)
        async with asyncio.timeout(DEADLINE):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, OSError | HTTPException) for answer in answers) >= 4
        for lease in leases:
            lease.doubt()
            lease.release()
        again = await slots.acquire("chat", deadline=soon())
        assert await chat(again.address) == 200
        assert pid_of(slots, "chat") != pid
        assert slots.status()[1].restarts == 1


async def test_the_polite_signal_ends_an_engine_at_once_whatever_it_is_doing(models: Path):
    async with running_slots(models, **small(context=2048)) as slots:
        leases = [await slots.acquire("chat", deadline=soon()) for _ in range(4)]
        body = {"prompt": "go on", "max_tokens": 1900, "ignore_eos": True}
        asked = [asyncio.create_task(ask(lease.address, "/v1/completions", body)) for lease in leases]
        await all_slots_busy(leases[0].address)
        pid = pid_of(slots, "chat")
        os.kill(pid, signal.SIGTERM)
        assert await asyncio.to_thread(ends, pid, DEADLINE)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        # It did not finish its work first, however long that would have taken on this machine.
        assert any(isinstance(answer, OSError | HTTPException) for answer in answers)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("backend", ["xllamacpp", "llama-server"])
def test_no_engine_outlives_a_killed_gateway(models: Path, tmp_path: Path, loop: str, backend: str):
    server = write_fake_server(tmp_path / "llama-server")
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY)
    command = [sys.executable, str(script), str(models), str(free_ports(2)), loop, backend, str(server)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        pids = json.loads(gateway.stdout.readline())
        assert len(pids) == 2
        assert not any(ends(pid, 0.0) for pid in pids)
        gateway.kill()
        assert all(ends(pid, DEADLINE) for pid in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", ["xllamacpp", "llama-server"])
async def test_an_engine_knows_no_secret_and_shows_none(models: Path, tmp_path: Path, backend: str):
    server = write_fake_server(tmp_path / "llama-server")
    environment = {**os.environ, "OPENAI_API_KEY": "sk-do-not-pass-on", "STELLWERK_ADMIN_KEY": "nor-this"}
    engine = small(server if backend == "llama-server" else None)
    async with running_slots(models, environment=environment, **engine) as slots:
        lease = await slots.acquire("chat", deadline=soon())
        process = Path("/proc") / str(pid_of(slots, "chat"))
        assert b"sk-do-not-pass-on" not in (process / "environ").read_bytes()
        assert b"nor-this" not in (process / "environ").read_bytes()
        assert lease.address.key.encode() not in (process / "cmdline").read_bytes()


async def test_a_port_that_is_lost_while_the_engine_is_down_sends_the_model_elsewhere(models: Path, tmp_path: Path):
    # The second start finds the port taken by a program that came first.
    first = free_ports(2)
    squatter = (
        "import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        f"s.bind(('127.0.0.1', {first + 1})); s.listen(); print('here', flush=True); sys.stdin.read()"
    )
    restarts = msgspec.structs.replace(QUICK.restarts, first_delay=0.5)
    supervisor = msgspec.structs.replace(QUICK, restarts=restarts)
    async with running_slots(models, first_port=first, supervisor=supervisor) as slots:
        for _ in range(2):
            # Twice, for the first repair is immediate.
            lease = await slots.acquire("chat", deadline=soon())
            assert lease.address.port == first + 1
            lease.release()
            pid = pid_of(slots, "chat")
            os.kill(pid, signal.SIGKILL)
            assert ends(pid, 30.0)
        command = [sys.executable, "-c", squatter]
        # Blocking on purpose: the port has to be taken before the event loop restarts the engine.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # noqa: ASYNC220
            assert other.stdout is not None
            assert other.stdout.readline() == b"here\n"
            lease = await slots.acquire("chat", deadline=soon())
            assert lease.address.port == first
            assert await chat(lease.address) == 200
            other.kill()
