import os
import signal
import subprocess
import sys

import pytest

from tests.real_engines import ends

SLEEP = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(600)"]


def guarded(parent: int) -> list[str]:
    return [sys.executable, "-P", "-m", "stellwerk.engines.parent_death", str(parent), *SLEEP]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked to kill a child with its parent")
def test_a_program_ends_when_its_parent_is_killed():
    code = (
        "import os, subprocess, sys\n"
        f"command = [word if word != '0' else str(os.getpid()) for word in {guarded(0)!r}]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not ends(pid, 0.0)
        parent.kill()
        assert ends(pid, 30.0)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels keep no such score")
def test_an_engine_goes_before_the_gateway_when_memory_runs_out():
    show = [sys.executable, "-c", "print(open('/proc/self/oom_score_adj').read())"]
    command = [sys.executable, "-P", "-m", "stellwerk.engines.parent_death", str(os.getpid()), *show]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert int(done.stdout) == 500


def test_a_program_whose_parent_died_before_it_began_does_not_begin():
    done = subprocess.run(guarded(os.getpid() + 1), capture_output=True, timeout=60, check=True)
    assert done.stdout == b""


def test_where_the_kernel_does_not_help_a_companion_watches():
    code = f"import os, sys\nfrom stellwerk.engines.parent_death import run_beside\nrun_beside(os.getppid(), {SLEEP!r})"
    starter = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, process_group=0) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"awake\n"
        parent.kill()
        # End of file: nobody holds the other end any more.
        assert parent.stdout.read() == b""


FORKS = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen({SLEEP!r}, stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "print(child.pid, flush=True)\n"
    "child.wait()"
)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the companion does it")
@pytest.mark.parametrize("killed", ["gateway", "engine"])
def test_what_a_program_started_ends_with_it(killed: str):
    code = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-P', '-m', 'stellwerk.engines.parent_death', str(os.getpid()), sys.executable, "
        f"'-c', {FORKS!r}]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)\n"
        "print(child.pid, child.stdout.readline().decode().strip(), flush=True)\n"
        "child.wait()\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        program, child = map(int, parent.stdout.readline().split())
        assert not ends(child, 0.0)
        os.kill(parent.pid if killed == "gateway" else program, signal.SIGKILL)
        assert ends(child, 30.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a guard")
def test_the_pipes_of_a_program_end_with_it():
    done = subprocess.run(
        [*guarded(os.getpid())[:5], sys.executable, "-c", "print('done')"],
        capture_output=True,
        timeout=60,
        check=True,
        start_new_session=True,
    )
    assert done.stdout == b"done\n"
