"""No engine outlives the gateway: ties a child process to its parent, also when the parent is killed outright.

Run as a module it does so for a program that knows nothing of it:
`python -m stellwerk.engines.parent_death PARENT_PID PROGRAM ARGUMENT…`. Imports only the standard library.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_POLL_SECONDS = 1.0
_FIRST_TO_GO = "500"
"""How much likelier than others (−1000 to 1000) the kernel ends an engine when memory runs out: a model that is loaded
anew costs seconds, the gateway's end cuts every call."""


def die_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when `parent` dies, and ends it at once if that has already happened.

    Only Linux can be asked; elsewhere `wait_for_parent` has to be awake. No core dump is ever written: it would
    hold prompts and the key.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # SIGKILL and not SIGTERM: a handler would wait for the interpreter, which loading a model holds for minutes.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    # The parent may have died before the request was made.
    if os.getppid() != parent:
        os._exit(0)


def wait_for_parent(parent: int) -> None:
    """Blocks until `parent` closes our standard input or dies."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if readable and not os.read(0, 4096):
            return


def run_beside(parent: int, command: list[str]) -> int:
    """Runs `command` and kills it when `parent` goes; for systems whose kernel cannot be asked to."""
    child = subprocess.Popen(command)  # noqa: S603 — the command line is built from settings of the operator
    signal.signal(signal.SIGTERM, lambda *_: child.kill())
    while child.poll() is None and os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
    child.kill()
    status = child.wait()
    if os.getpgrp() == os.getpid() and os.getppid() != parent:
        # What the program started is in our group and nobody is left to end it.
        os.killpg(0, signal.SIGKILL)
    return status


def guard_group() -> None:
    """Leaves a process behind that kills our group once we end, whatever we have become by then: the kernel ends us
    with the gateway, but not what we start. Does nothing where we lead no group, and with kernels older than 5.3."""
    if sys.platform != "linux" or os.getpgrp() != os.getpid():
        return
    try:
        leader = os.pidfd_open(os.getpid())
    except OSError:
        return
    if os.fork():
        os.wait()
    elif os.fork():
        # The program that we become must not find a child that it does not know.
        os._exit(0)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The pipes to the gateway must end with the program.
        os.closerange(0, leader)
        os.closerange(leader + 1, 256)
        poll = select.poll()
        poll.register(leader, select.POLLIN)
        poll.poll()
        # Ours too, so that the number cannot belong to another group by now.
        os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    die_with_parent(parent)
    if sys.platform == "linux":
        guard_group()
        os.execv(command[0], command)  # noqa: S606 — replaces this process, so that the kernel's promise covers it
    sys.exit(run_beside(parent, command))


if __name__ == "__main__":
    main(sys.argv[1:])
