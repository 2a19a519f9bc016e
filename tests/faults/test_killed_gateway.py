"""Engines that outlive a gateway that was killed outright, and what the next one does about them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stellwerk.engines.orphans import reap_orphans
from stellwerk.engines.process_table import find_process
from tests.real_engines import DEADLINE, ends, free_ports

ROOT = Path(__file__).parents[2]
GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from stellwerk.core.clock import SystemClock
from stellwerk.engines.orphans import PidFiles
from stellwerk.engines.supervisor import Supervisor, SupervisorSettings
from tests.scripted_engine import ScriptedEngine

TROUBLE = '''
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, file=sys.stderr, flush=True)
'''

async def main():
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    supervisor = Supervisor(
        "model", launch=ScriptedEngine(folder / "engine", port, TROUBLE).launch, on_failure=print,
        settings=SupervisorSettings(), clock=SystemClock(), pids=PidFiles(folder / "engines"),
    )
    supervisor.start()
    await supervisor.ready()
    print(json.dumps([supervisor.pid, int(supervisor.output[0])]), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what left the group is not found")
def test_the_next_gateway_ends_an_engine_that_outlived_its_own(tmp_path: Path):
    # A program that nothing ties to its gateway and that hears no polite signal, with a child that left its session.
    command = [sys.executable, "-c", GATEWAY, str(tmp_path), str(free_ports(1))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as gateway:
        assert gateway.stdout is not None
        engine, child = json.loads(gateway.stdout.readline())
        gateway.kill()
        gateway.wait(DEADLINE)
        assert find_process(engine) is not None
        assert find_process(child) is not None
    assert set(reap_orphans(tmp_path / "engines", grace=0.3)) == {engine, child}
    assert ends(engine, 30.0)
    assert ends(child, 30.0)
    assert reap_orphans(tmp_path / "engines") == ()


def test_an_engine_that_hears_the_polite_signal_is_not_killed(tmp_path: Path):
    quiet = GATEWAY.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", (
        "def leave(*_):\n    open(folder + '/left politely', 'w').close(); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)"
    ))  # fmt: skip
    command = [sys.executable, "-c", quiet, str(tmp_path), str(free_ports(1))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as gateway:
        assert gateway.stdout is not None
        engine, _ = json.loads(gateway.stdout.readline())
        gateway.send_signal(signal.SIGKILL)
        gateway.wait(DEADLINE)
    assert engine in reap_orphans(tmp_path / "engines", grace=DEADLINE)
    assert (tmp_path / "engine" / "left politely").exists()
