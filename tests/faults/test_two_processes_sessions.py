"""Sessions under several processes on one folder or one database, one of which is killed in the middle."""

import json
import select
import subprocess
import sys
import threading

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.sessions.history import MOST_MESSAGES
from stellwerk.sessions.sql_store import SqlSessions
from stellwerk.sessions.store import FileSessions
from stellwerk.storage.database import open_database

DEADLINE = 60.0
TURNS = 200

WRITER = """
import sys
from pathlib import Path
from stellwerk.core.clock import SystemClock
from stellwerk.sessions.sql_store import SqlSessions
from stellwerk.sessions.store import FileSessions
from stellwerk.storage.database import open_database

folder, kind, name, turns = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
if kind == "files":
    store = FileSessions(folder / ".sessions")
else:
    database = open_database(folder)
    store = SqlSessions(database.read, database.write, SystemClock())
print("ready", flush=True)
sys.stdin.readline()
for turn in range(turns):
    store.append("", "m", "x", f"{name} {turn}", f"answer to {name} {turn}")
    print(turn, flush=True)
"""


class Writer:
    """A process that adds to one session and says after each exchange that it is in."""

    def __init__(self, folder, kind, name, turns=TURNS):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), kind, name, str(turns)],
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

    def wait(self):
        said = self.process.communicate(timeout=DEADLINE)[0].decode().split()
        assert self.process.returncode == 0
        return said

    def kill(self):
        self.process.kill()
        return self.process.communicate(timeout=DEADLINE)[0].decode().split()


@pytest.fixture
def store(request, folder):
    if request.param == "files":
        yield FileSessions(folder / ".sessions")
    else:
        database = open_database(folder)
        yield SqlSessions(database.read, database.write, SystemClock())
        database.close()


@pytest.fixture
def writers(folder):
    """Starts processes; whoever still runs at the end of the test is stopped."""
    made = []

    def make(kind, *names, turns=TURNS):
        new = [Writer(folder, kind, name, turns) for name in names]
        made.extend(new)
        return new

    yield make
    for writer in made:
        if writer.process.poll() is None:
            writer.process.kill()
        writer.process.communicate()


class Reader:
    """Reads a file as somebody with `cat` does, again and again, and remembers every version of it."""

    def __init__(self, path):
        self.path = path
        self.versions = []
        self.broken = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join(DEADLINE)

    def _read(self):
        last = None
        while not self._end.is_set():
            try:
                content = self.path.read_bytes()
            except FileNotFoundError:
                continue
            if content == last:
                continue
            last = content
            try:
                self.versions.append([message["content"] for message in json.loads(content)["history"]])
            except ValueError:
                self.broken.append(content)


def check_pairs(history):
    assert len(history) <= MOST_MESSAGES
    assert history[1::2] == [f"answer to {question}" for question in history[::2]]


def check_order(history):
    """Of each writer the exchanges that are left follow each other without a gap."""
    turns = {}
    for question in history[::2]:
        name, turn = question.split()
        turns.setdefault(name, []).append(int(turn))
    for ours in turns.values():
        assert ours == list(range(ours[0], ours[0] + len(ours)))


@pytest.mark.parametrize(("store", "kind"), [("files", "files"), ("database", "database")], indirect=["store"])
def test_two_processes_that_add_to_one_session_lose_nothing(store, kind, writers):
    both = writers(kind, "one", "two")
    for writer in both:
        writer.start()
    for writer in both:
        assert len(writer.wait()) == TURNS
    history = [message.content for message in store.read("", "m", "x")]
    assert len(history) == MOST_MESSAGES
    check_pairs(history)
    check_order(history)
    # Who was last stands last.
    assert history[-2].split()[1] == f"{TURNS - 1}"


@pytest.mark.parametrize("turns", [5])
@pytest.mark.parametrize(("store", "kind"), [("files", "files"), ("database", "database")], indirect=["store"])
def test_as_long_as_they_fit_all_exchanges_are_there(store, kind, writers, turns):
    both = writers(kind, "one", "two", turns=turns)
    for writer in both:
        writer.start()
    for writer in both:
        writer.wait()
    history = [message.content for message in store.read("", "m", "x")]
    check_pairs(history)
    assert sorted(history[::2]) == sorted(f"{name} {turn}" for name in ("one", "two") for turn in range(turns))


def test_the_file_is_whole_whenever_somebody_reads_it(folder, writers):
    both = writers("files", "one", "two")
    with Reader(folder / ".sessions" / "m-x.json") as reader:
        for writer in both:
            writer.start()
        for writer in both:
            writer.wait()
    assert reader.broken == []
    assert len(reader.versions) > 3
    for history in reader.versions:
        check_pairs(history)
        check_order(history)
    assert sorted(path.name for path in (folder / ".sessions").iterdir()) == ["m-x.json"]


@pytest.mark.parametrize("killed_after", [1, 7, 30])
def test_a_killed_process_leaves_a_history_that_can_be_read_and_continued(folder, writers, killed_after):
    doomed, other = writers("files", "doomed", "other", turns=100_000)
    for writer in (doomed, other):
        writer.start()
    for _ in range(killed_after):
        doomed.line()
    doomed.kill()
    # The lock went with the process: the other one goes on.
    for _ in range(30):
        other.line()
    other.kill()
    store = FileSessions(folder / ".sessions")
    path = folder / ".sessions" / "m-x.json"
    before = [message["content"] for message in json.loads(path.read_bytes())["history"]]
    check_pairs(before)
    store.append("", "m", "x", "after it", "answer to after it")
    history = [message.content for message in store.read("", "m", "x")]
    check_pairs(history)
    assert history == [*before, "after it", "answer to after it"][-MOST_MESSAGES:]
    # What the killed ones began is gone with the next write.
    assert list(path.parent.iterdir()) == [path]


def test_what_a_process_has_reported_is_in_the_file_when_it_is_killed(folder, writers):
    (doomed,) = writers("files", "doomed", turns=100_000)
    doomed.start()
    reported = [doomed.line() for _ in range(25)]
    reported += doomed.kill()
    last = max(map(int, reported))
    history = [message.content for message in FileSessions(folder / ".sessions").read("", "m", "x")]
    check_pairs(history)
    # The last one may have been written and not yet reported.
    assert history[-2] in (f"doomed {last}", f"doomed {last + 1}")
