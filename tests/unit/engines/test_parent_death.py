import os
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
        assert ends(pid, 5.0)


def test_a_program_whose_parent_died_before_it_began_does_not_begin():
    done = subprocess.run(guarded(os.getpid() + 1), capture_output=True, timeout=20, check=True)
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
