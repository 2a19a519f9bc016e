from concurrent.futures import Future

import pytest

from stellwerk.engines import crashes
from stellwerk.engines.crashes import Crash, add_crash, crash_recorder, list_crashes, split_status
from stellwerk.storage.writer import Writer

CRASH = Crash(
    at=1_800_000_000.5,
    model="chat",
    engine="xllamacpp",
    reason="it was ended by SIGSEGV",
    signal="SIGSEGV",
    memory_mib=36.5,
    uptime=12.25,
    had_served=True,
    last_lines=("one", "two «ü»"),
    request_ids=("req-1",),
)


def crash(number):
    return Crash(at=float(number), model=f"model {number % 2}", engine="e", reason="r", uptime=1.0, had_served=False)


def test_a_crash_is_read_as_it_was_written(database):
    database.write(lambda connection: add_crash(connection, CRASH))
    assert database.read(list_crashes) == [CRASH]


def test_the_newest_come_first_and_may_be_those_of_one_model(database):
    for number in range(4):
        database.write(lambda connection, number=number: add_crash(connection, crash(number)))
    assert [one.at for one in database.read(list_crashes)] == [3, 2, 1, 0]
    assert [one.at for one in database.read(lambda c: list_crashes(c, model="model 0"))] == [2, 0]
    assert [one.at for one in database.read(lambda c: list_crashes(c, limit=1))] == [3]


def test_only_the_newest_are_kept(database):
    def add_many(connection):
        for number in range(crashes.MOST_CRASHES + 5):
            add_crash(connection, crash(number))

    database.write(add_many)
    kept = database.read(lambda c: list_crashes(c, limit=10_000))
    assert [kept[0].at, kept[-1].at, len(kept)] == [1004, 5, 1000]


def test_a_recorder_stores_through_the_writer(database):
    writer = Writer(database.writing)
    crash_recorder(writer.submit)(CRASH)
    writer.close()
    assert database.read(list_crashes) == [CRASH]


def test_a_crash_that_cannot_be_stored_is_logged(caplog):
    failed: Future[object] = Future()
    failed.set_exception(OSError("disk full"))
    crash_recorder(lambda _work: failed)(CRASH)
    assert "disk full" in caplog.text


@pytest.mark.parametrize(
    ("status", "told"),
    [(None, (None, None)), (0, (0, None)), (3, (3, None)), (-9, (None, "SIGKILL")), (-200, (None, "signal 200"))],
)
def test_a_status_is_an_exit_code_or_a_signal(status, told):
    assert split_status(status) == told
