import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stellwerk.engines.process_table import (
    MARK,
    ProcessEntry,
    boot_id,
    find_process,
    listens,
    marked_processes,
    members,
    memory_mib,
    parse_ps,
    read_table,
)

WAITS = "import sys; print('here', flush=True); sys.stdin.read()"
FORKS = f"""
import subprocess, sys
held = "held = b'x' * (64 << 20); " + {WAITS!r}
with subprocess.Popen([sys.executable, "-c", held]) as child:
    child.wait()
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.fixture
def start():
    started = []

    def start(code=WAITS, **options):
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        started.append(process)
        assert process.stdout.readline() == b"here\n"
        return process

    yield start
    for process in started:
        # Its end is the end of their input, also for what they started.
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def test_a_process_is_found_with_the_group_that_it_leads(start):
    process = start(start_new_session=True)
    entry = find_process(process.pid)
    assert (entry.pid, entry.group, entry.session) == (process.pid,) * 3
    assert entry in read_table()
    assert entry.started


def test_a_process_that_has_ended_is_not_found(start):
    process = start()
    process.stdin.close()
    while find_process(process.pid) is not None:
        pass
    # Not waited for yet: it still has a number, but it is no process any more.
    assert process.returncode is None
    assert process.pid not in {entry.pid for entry in read_table()}


def test_memory_is_that_of_the_whole_group(start):
    leader = start(start_new_session=True)
    alone = memory_mib(leader.pid)
    assert alone is not None
    assert 1 < alone < 100
    # A child in the group, with 64 MiB of its own.
    parent = start(code=FORKS, start_new_session=True)
    together = memory_mib(parent.pid)
    assert together is not None
    assert together > alone + 60
    assert memory_mib(2**30) is None


def test_members_are_found_by_group_and_by_session():
    def entry(pid, group, session):
        return ProcessEntry(pid=pid, group=group, session=session, started="then", rss_kib=1)

    table = [entry(7, 7, 7), entry(8, 7, 7), entry(9, 9, 7), entry(10, 10, 10)]
    assert [one.pid for one in members(7, table)] == [7, 8, 9]


def test_what_ps_says_is_read_like_the_kernels_own_table(start):
    process = start(start_new_session=True)
    command = ["ps", "-p", str(process.pid), "-o", "pid=,pgid=,stat=,rss=,lstart="]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"})
    (entry,) = parse_ps(said.stdout)
    own = find_process(process.pid)
    assert (entry.pid, entry.group) == (own.pid, own.group)
    # The kernel counts roughly.
    assert abs(entry.rss_kib - own.rss_kib) < 2048
    assert len(entry.started.split()) == 5


def test_ps_lines_of_processes_that_have_ended_are_passed_over():
    lines = "  7   7 Ss  1024 Sat Nov 21 20:10:40 2026\n  8   7 Z+  0 Sat Nov  1 20:10:41 2026\n"
    assert list(parse_ps(lines)) == [
        ProcessEntry(pid=7, group=7, session=7, started="Sat Nov 21 20:10:40 2026", rss_kib=1024)
    ]
    assert list(parse_ps("")) == []


@linux
def test_a_mark_is_found_wherever_the_process_has_gone(start):
    process = start(env={MARK: "abc"}, start_new_session=True)
    start(env={MARK: "abcd"})
    assert marked_processes("abc") == [process.pid]


@linux
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_whose_port_it_is_the_kernel_knows(start, family, host):
    if family is socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        other = start(start_new_session=True, env={MARK: "other"})
        assert not listens(os.getsid(0), "none", port)
        listener.listen()
        assert listens(os.getpgrp(), "none", port)
        assert not listens(other.pid, "other", port)


@linux
def test_a_start_of_the_machine_has_a_name():
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
