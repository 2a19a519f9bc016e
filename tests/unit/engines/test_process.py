import os
import signal
import sys

import pytest

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.process import EngineProcess, Launch
from tests.real_engines import ends, until

ADDRESS = EngineAddress(host="127.0.0.1", port=9, key="key")


def python(code: str, *, announces: bool = True) -> Launch:
    return Launch(
        command=(sys.executable, "-c", code),
        environment={},
        orders=b"orders\n",
        announces=announces,
        address=ADDRESS,
        hidden=("hidden text",),
    )


async def test_a_child_that_ends_before_it_serves_says_why():
    process = await EngineProcess.start(python("raise SystemExit('error: hidden text is missing')"))
    with pytest.raises(EngineFailed, match=r"error: \[hidden\] is missing"):
        await process.wait_ready()
    assert not process.is_alive()
    await process.stop(1.0)


async def test_a_program_that_does_not_exist_is_a_failure():
    launch = Launch(command=("/nowhere/x",), environment={}, orders=b"", announces=True, address=ADDRESS)
    with pytest.raises(EngineFailed, match="cannot be run"):
        await EngineProcess.start(launch)


async def test_only_the_last_lines_are_kept_and_long_ones_are_cut():
    code = "import sys\nfor n in range(1000): print('line', n, 'x' * 2000, file=sys.stderr)\nprint('noise')"
    process = await EngineProcess.start(python(code))
    await process.wait()
    assert len(process.output) == 200
    assert max(map(len, process.output)) <= 500
    assert any(line.startswith("line 999 ") for line in process.output)
    assert not any(line.startswith("line 700 ") for line in process.output)
    await process.stop(1.0)


async def test_an_endless_line_takes_no_memory_and_does_not_block_the_child():
    code = "import sys\nfor n in range(100): sys.stderr.write('y' * 100_000)\nsys.stderr.write('\\nend\\n')"
    process = await EngineProcess.start(python(code))
    await process.wait()
    assert process.output[-1] == "end"
    assert sum(map(len, process.output)) < 1_000
    await process.stop(1.0)


async def test_a_child_that_ignores_the_polite_signal_is_killed():
    code = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nsys.stdin.read()"
    )
    process = await EngineProcess.start(python(code))
    await until(lambda: "deaf" in process.output)
    await process.stop(0.05)
    assert await process.wait() == "it was ended by SIGKILL"


async def test_what_the_child_started_ends_with_it():
    code = (
        "import subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(other.pid, flush=True)\n"
        "time.sleep(600)"
    )
    process = await EngineProcess.start(python(code))
    await until(lambda: process.output)
    await process.stop(1.0)
    assert ends(int(process.output[0]), 30.0)


async def test_a_death_is_known_before_the_event_loop_has_heard_of_it():
    process = await EngineProcess.start(python("import sys; sys.stdin.read()"))
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    assert ends(process.pid, 30.0)
    assert not process.is_alive()
    await process.stop(1.0)


@pytest.mark.parametrize("prefix", [0, 485, 4085, 40_000])
async def test_no_secret_stands_in_what_a_child_printed_and_paths_do(prefix: int):
    code = f"import sys; print('x' * {prefix} + 'hidden text', '/bin', file=sys.stderr)"
    process = await EngineProcess.start(
        Launch(
            command=(sys.executable, "-c", code),
            environment={},
            orders=b"",
            announces=False,
            address=ADDRESS,
            hidden=("hidden text", "/bin", ""),
        )
    )
    await process.wait()
    assert "hidden t" not in process.output[-1]
    assert prefix or process.output[-1] == "[hidden] /bin"
    await process.stop(1.0)
