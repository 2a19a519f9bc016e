"""Durable limits under several processes on one database, one of which is killed in the middle."""

import os
import select
import signal
import subprocess
import sys

from sqlalchemy import func
from sqlalchemy import select as query

from stellwerk.limits.attempts import Rule, attempts, try_all
from stellwerk.storage.database import open_database

DEADLINE = 60.0
LIMIT = 60

HAMMER = f"""
import sys
from pathlib import Path
from stellwerk.limits.attempts import Rule, try_all
from stellwerk.storage.database import open_database

database = open_database(Path(sys.argv[1]))
rules = [Rule("shared", {LIMIT}, 900.0), Rule("own:" + sys.argv[3], 1000, 900.0)]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    allowed = database.write(lambda connection: try_all(connection, rules, now=float(sys.argv[4]))) == 0.0
    print("allowed" if allowed else "refused", flush=True)
"""

NOW = 1_790_000_000.0


class Hammer:
    """A process that tries as often as it is told, and says after each commit what came out."""

    def __init__(self, folder, tries, name):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(folder), str(tries), name, str(NOW)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Nothing may wait in a buffer of ours, where neither `select` nor `communicate` sees it.
            bufsize=0,
        )
        assert self.line() == "ready"

    def start(self):
        self.process.stdin.write(b"\n")

    def line(self):
        readable, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        assert readable, "the process says nothing"
        return self.process.stdout.readline().decode().strip()

    def rest(self):
        output, _ = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0
        return output.decode().split()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        output, _ = self.process.communicate(timeout=DEADLINE)
        return output.decode().split()


def recorded(folder, subject):
    database = open_database(folder)
    count = query(func.count()).select_from(attempts).where(attempts.c.subject == subject)
    found = database.read(lambda connection: connection.execute(count).scalar_one())
    database.close()
    return found


def test_two_processes_are_together_allowed_exactly_the_limit(folder):
    hammers = [Hammer(folder, 250, name) for name in ("one", "two")]
    for hammer in hammers:
        hammer.start()
    said = [hammer.rest() for hammer in hammers]
    assert sum(len(lines) for lines in said) == 500
    assert sum(lines.count("allowed") for lines in said) == LIMIT
    assert recorded(folder, "shared") == LIMIT
    # All or nothing: the rule of each one's own has counted what the shared one has allowed, and nothing else.
    assert [recorded(folder, f"own:{name}") for name in ("one", "two")] == [lines.count("allowed") for lines in said]


def test_a_killed_process_gives_nobody_more_than_the_limit(folder):
    killed, other = Hammer(folder, 250, "killed"), Hammer(folder, 100, "other")
    killed.start()
    before = [killed.line() for _ in range(10)]
    other.start()
    before += killed.kill()
    third = Hammer(folder, 150, "third")
    third.start()
    allowed = before.count("allowed") + other.rest().count("allowed") + third.rest().count("allowed")
    # One more may have been committed than it could tell before it died.
    assert LIMIT - 1 <= allowed <= LIMIT
    assert recorded(folder, "shared") == LIMIT


def test_the_database_is_free_at_once_when_its_writer_is_killed(folder):
    killed = Hammer(folder, 100_000, "killed")
    killed.start()
    assert killed.line() == "allowed"
    killed.kill()
    database = open_database(folder)
    # A lock that somebody still had would be an error.
    database.write(lambda connection: try_all(connection, [Rule("other", 1, 60.0)], now=NOW))
    database.close()
