"""The ledger under two processes, and under processes that are killed."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from stellwerk.ledger.accounts import balance, top_up
from stellwerk.ledger.check import check
from stellwerk.ledger.holds import OPEN, holds, recover

PAYING_PROCESS = Path(__file__).parents[1] / "paying_process.py"
DETAILS = {"note": "", "actor": "admin", "now": 1.0, "currency": "EUR"}


@contextmanager
def paying_process(*arguments):
    command = [sys.executable, str(PAYING_PROCESS), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()
            process.kill()


def begin(process):
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.fixture
def balance_of(database):
    def balance_of(user_id):
        assert database.read(check).problems == []
        found = database.read(lambda c: balance(c, user_id))
        return found.available, found.held

    return balance_of


def test_of_200_calls_to_two_processes_exactly_as_many_are_served_as_the_balance_pays(folder, database, balance_of):
    database.write(lambda c: top_up(c, 7, 10_000, **DETAILS))
    with paying_process("spend", folder, 100) as one, paying_process("spend", folder, 100) as other:
        begin(one)
        begin(other)
        served = [int(process.stdout.readline().removeprefix("served ")) for process in (one, other)]
    assert sum(served) == 10
    assert balance_of(7) == (0, 0)


def kill_many_times(folder, database, balance_of, times):
    chance = random.Random(20261121)
    for user_id in (7, 8):
        database.write(lambda c, user_id=user_id: top_up(c, user_id, 10**9, **DETAILS))
    acknowledged, recovered = set(), 0
    with paying_process("forks", folder) as process:
        for _ in range(times):
            begin(process)
            child = int(process.stdout.readline().removeprefix("process "))
            acknowledged.add(process.stdout.readline().split()[1])
            # Killed in the middle of whatever it does then.
            time.sleep(chance.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            while (line := process.stdout.readline()) != "gone\n":
                acknowledged.add(line.split()[1])
            recovered += len(database.write(lambda c: recover(c, "the next", 2.0)))
            assert balance_of(7)[1] == balance_of(8)[1] == 0
    known = dict(database.read(lambda c: c.execute(select(holds.c.call_id, holds.c.state)).all()))
    assert acknowledged <= known.keys()
    assert OPEN not in known.values()
    assert recovered > 0
    assert {"settled", "released", "estimated"} == set(known.values())


def test_a_process_that_is_killed_leaves_nothing_on_hold_and_nothing_wrong(folder, database, balance_of):
    kill_many_times(folder, database, balance_of, 20)


@pytest.mark.slow
def test_a_hundred_killed_processes_leave_nothing_on_hold_and_nothing_wrong(folder, database, balance_of):
    kill_many_times(folder, database, balance_of, 100)
