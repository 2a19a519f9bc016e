import asyncio
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from stellwerk.core.errors import Unavailable
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.failures import DatabaseCorrupt
from stellwerk.storage.folder import FolderLock


def test_everything_in_a_fresh_folder_is_for_its_owner_only(tmp_path):
    folder = tmp_path / "data"
    database = open_database(folder)
    database.read(lambda connection: None)
    database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (a)"))
    names = {path.name for path in folder.iterdir()}
    assert {FILE_NAME, f"{FILE_NAME}-wal"} <= names
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    database.close()


def test_what_was_written_is_there_after_opening_again(folder):
    database = open_database(folder)
    database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (a)"))
    database.close()
    database = open_database(folder)
    assert database.read(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM t").scalar()) == 0
    database.close()


def test_a_write_that_fails_leaves_nothing(database, notes, texts):
    def work(connection):
        connection.execute(insert(notes).values(text="half"))
        raise RuntimeError("the other half")

    with pytest.raises(RuntimeError):
        database.write(work)
    assert texts() == []


def test_a_mistake_of_the_caller_is_not_called_a_storage_failure(database, notes):
    database.write(lambda connection: connection.execute(insert(notes).values(text="a")))
    with pytest.raises(IntegrityError):
        database.write(lambda connection: connection.execute(insert(notes).values(text="a")))


def test_a_locked_database_is_unavailable_for_writing_and_can_still_be_read(database, notes, locked):
    unlock = locked()
    with pytest.raises(Unavailable) as raised:
        database.write(lambda connection: connection.execute(insert(notes).values(text="a")))
    assert raised.value.code == "storage_unavailable"
    assert database.read(lambda connection: connection.execute(select(notes)).all()) == []
    unlock()
    database.write(lambda connection: connection.execute(insert(notes).values(text="a")))


async def test_reading_does_not_hold_up_the_event_loop(database):
    let_go = threading.Event()
    reading = asyncio.create_task(database.fetch(lambda connection: let_go.wait(30)))
    await asyncio.sleep(0)
    let_go.set()
    assert await reading


def test_a_folder_is_opened_beside_its_owner(folder):
    with FolderLock(folder) as lock:
        serving, beside = open_database(folder, lock=lock), open_database(folder)
        beside.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (a)"))
        assert serving.read(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM t").scalar()) == 0
        serving.close()
        beside.close()


def test_who_serves_notices_damage_in_the_middle_of_the_file(folder):
    path = folder / FILE_NAME
    database = open_database(folder)
    database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (a)"))
    database.close()
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(content)
    with FolderLock(folder) as lock, pytest.raises(DatabaseCorrupt, match=f"{FILE_NAME} is damaged"):
        open_database(folder, lock=lock)
    assert path.read_bytes() == content


def test_processes_that_come_first_at_the_same_time_make_one_database(tmp_path):
    program = "import sys; from pathlib import Path; from stellwerk.storage.database import open_database; "
    program += "open_database(Path(sys.argv[1])).close()"

    def run(_):
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, check=False
        )

    with ThreadPoolExecutor(3) as pool:
        assert [(done.returncode, done.stderr) for done in pool.map(run, range(3))] == [(0, "")] * 3
    assert {path.name for path in (tmp_path / "data").iterdir()} == {FILE_NAME, "schema.lock"}
