import asyncio
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import event, insert
from sqlalchemy.exc import IntegrityError

from stellwerk.core.errors import Unavailable
from stellwerk.storage.writer import Writer, WriterSettings


@pytest.fixture
def note(notes):
    """Work that writes one note."""
    return lambda text: lambda connection: connection.execute(insert(notes).values(text=text)).rowcount


@pytest.fixture
def stream(writer, notes):
    return writer.stream(notes, ("text",), lambda text: (text,))


@pytest.fixture
def held(writer):
    """Keeps the writer's thread busy inside a transaction until the returned function is called."""
    entered, let_go = threading.Event(), threading.Event()

    def work(connection):
        entered.set()
        assert let_go.wait(30)

    future = writer.submit(work)
    assert entered.wait(30)
    yield let_go.set
    let_go.set()
    future.exception(30)


def test_threads_hear_of_their_write_only_after_its_commit(writer, note, texts):
    def write(name):
        assert writer.submit(note(name)).result(30) == 1
        return name in texts()

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(write, [f"note {n}" for n in range(128)]))
    assert len(texts()) == 128


async def test_tasks_hear_of_their_write_only_after_its_commit(writer, note, texts):
    async def write(name):
        await writer.run(note(name))
        return name in await asyncio.to_thread(texts)

    assert all(await asyncio.gather(*(write(f"note {n}") for n in range(32))))


def test_what_arrives_during_a_commit_shares_the_next(writer, held, note, database):
    commits = []
    event.listen(database.writing, "commit", commits.append)
    futures = [writer.submit(note(f"note {n}")) for n in range(40)]
    held()
    assert [future.result(30) for future in futures] == [1] * 40
    assert len(commits) == 2


def test_work_that_fails_is_undone_alone(writer, held, note, texts):
    def half(connection):
        note("half")(connection)
        raise RuntimeError("the other half")

    before, twin, broken, after = (writer.submit(work) for work in (note("a"), note("a"), half, note("b")))
    held()
    assert before.result(30) == after.result(30) == 1
    assert isinstance(twin.exception(30), IntegrityError)
    assert str(broken.exception(30)) == "the other half"
    assert texts() == ["a", "b"]


def test_work_that_was_cancelled_is_not_done(writer, held, note, texts):
    cancelled, kept = writer.submit(note("cancelled")), writer.submit(note("kept"))
    assert cancelled.cancel()
    held()
    assert kept.result(30) == 1
    assert texts() == ["kept"]


def test_streamed_rows_are_stored_in_order_without_anybody_waiting(stream, texts, until):
    for n in range(45):
        stream.append(f"row {n}")
    until(lambda: len(texts()) == 45)
    assert texts() == [f"row {n}" for n in range(45)]


def test_a_sleeping_writer_wakes_for_every_row(stream, texts, until):
    for n in range(20):
        stream.append(f"row {n}")
        until(lambda n=n: len(texts()) == n + 1)


def test_rows_beyond_the_bound_are_dropped_and_counted(writer, stream, held, texts, until):
    for n in range(57):
        stream.append(f"row {n}")
    # And the work that keeps it busy.
    assert (writer.backlog, writer.dropped) == (51, 7)
    held()
    until(lambda: len(texts()) == 50)
    until(lambda: writer.backlog == 0)
    assert writer.dropped == 7


def test_what_is_in_a_transaction_counts_as_backlog_until_its_end(writer, stream, held, until):
    assert writer.backlog == 1
    stream.append("row")
    assert writer.backlog == 2
    held()
    until(lambda: writer.backlog == 0)


def test_a_row_that_can_never_be_stored_does_not_hold_up_the_others(writer, stream, texts, until):
    for text in ("a", "\ud800", object(), "a", "b"):
        stream.append(text)
    until(lambda: writer.dropped == 3)
    until(lambda: texts() == ["a", "b"])
    assert writer.healthy


def test_closing_stores_everything_first(database, notes, note, texts):
    writer = Writer(database.writing, WriterSettings(gather_seconds=60, batch_rows=7))
    stream = writer.stream(notes, ("text",), lambda text: (text,))
    for n in range(30):
        stream.append(f"row {n}")
    writer.close()
    assert len(texts()) == 30


def test_a_closed_writer_refuses_work(writer, note):
    writer.close()
    error = writer.submit(note("late")).exception(30)
    assert isinstance(error, Unavailable)
    assert error.code == "storage_unavailable"


def test_more_work_than_may_wait_is_refused(database, note):
    writer = Writer(database.writing, WriterSettings(waiting_works=1))
    entered, let_go = threading.Event(), threading.Event()
    first = writer.submit(lambda connection: entered.set() or let_go.wait(30))
    assert entered.wait(30)
    second, third = writer.submit(note("second")), writer.submit(note("third"))
    let_go.set()
    assert isinstance(third.exception(30), Unavailable)
    assert (first.result(30), second.result(30)) == (True, 1)
    writer.close()


def test_a_locked_database_fails_work_and_keeps_rows(writer, stream, note, locked, texts, until):
    unlock = locked()
    stream.append("row")
    error = writer.submit(note("work")).exception(30)
    assert isinstance(error, Unavailable)
    assert (error.code, error.status) == ("storage_unavailable", 503)
    assert not writer.healthy
    unlock()
    until(lambda: texts() == ["row"])
    until(lambda: writer.healthy)
    assert writer.submit(note("work")).result(30) == 1


def test_a_failed_writer_finds_out_by_itself_that_the_storage_is_back(writer, note, locked, until):
    unlock = locked()
    assert isinstance(writer.submit(note("work")).exception(30), Unavailable)
    assert not writer.healthy
    unlock()
    until(lambda: writer.healthy)


def test_closing_gives_up_when_the_storage_stays_away(database, notes, locked, caplog):
    locked()
    writer = Writer(database.writing, WriterSettings(gather_seconds=0.001, retry_seconds=0.01))
    writer.stream(notes, ("text",), lambda text: (text,)).append("row")
    writer.close(within=1)
    assert "1 rows could not be stored" in caplog.text


def test_what_is_logged_of_a_failure_holds_no_values(writer, stream, note, locked, caplog, until):
    locked()
    stream.append("a secret row")
    assert writer.submit(note("a secret note")).exception(30)
    until(lambda: "the storage does not take writes" in caplog.text)
    assert "secret" not in caplog.text


BEGINNING = """
import sys, threading
from pathlib import Path
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from stellwerk.core.errors import Unavailable
from stellwerk.storage.sqlite import make_engine
from stellwerk.storage.writer import Writer, WriterSettings
path = Path(sys.argv[1])
notes = Table("notes", MetaData(), Column("number", Integer, primary_key=True), Column("text", String))
writer = Writer(make_engine(path, immediate=True), WriterSettings(retry_seconds=0.01, longest_retry_seconds=0.05))
stream = writer.stream(notes, ("text",), lambda text: (text,))
def note(text):
    return lambda connection: connection.execute(insert(notes).values(text=text)).rowcount
"""

UNTIL_KILLED = (
    BEGINNING
    + """
def load(thread):
    for n in range(1_000_000):
        name = f"{thread}-{n}"
        stream.append("streamed")
        writer.submit(note(name)).result()
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()
for thread in range(8):
    threading.Thread(target=load, args=(thread,)).start()
"""
)

UNTIL_FULL = (
    BEGINNING
    + """
import resource
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
stored = [note]
assert writer.submit(note("first")).result() == 1
limit(path.with_name(path.name + "-wal").stat().st_size + 100_000)
acknowledged = 1
try:
    for n in range(1000):
        writer.submit(note(f"{n} " + "x" * 2000)).result()
        acknowledged += 1
except Unavailable as error:
    assert error.code == "storage_unavailable"
assert 1 < acknowledged < 1000, acknowledged
limit(1000)
pause = threading.Event()
for n in range(100):
    stream.append(f"streamed {n}")
while writer.healthy:
    pause.wait(0.01)
pause.wait(0.2)
assert writer.backlog == 100 and not writer.healthy, (writer.backlog, writer.healthy)
limit(resource.RLIM_INFINITY)
while not (writer.healthy and not writer.backlog):
    pause.wait(0.01)
assert writer.submit(note("last")).result() == 1
writer.close()
print(acknowledged + 100 + 1, writer.dropped)
"""
)


def test_every_acknowledged_write_survives_a_kill(database, texts):
    program = [sys.executable, "-c", UNTIL_KILLED, str(database.path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        told = [process.stdout.readline().strip() for _ in range(400)]
        process.kill()
        told += process.stdout.read().splitlines(keepends=True)
    # The kill may have cut the last line in two.
    told = {name.strip() for name in told if name.endswith("\n") or name in told[:400]}
    assert told <= set(texts())
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_loses_nothing_and_recovers(database, texts):
    program = [sys.executable, "-c", UNTIL_FULL, str(database.path)]
    run = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(len(texts())), "0"]
    assert "Traceback" not in run.stderr
