import os
import subprocess
import sys

import msgspec
import pytest

from stellwerk.engines.orphans import EngineRecord, PidFiles, end_marked, reap_orphans
from stellwerk.engines.process_table import MARK, boot_id, find_process
from tests.real_engines import ends

WAITS = "import time; print('here', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
LEAVES_A_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WAITS!r}], stdout=subprocess.PIPE, start_new_session=NEW)
child.stdout.readline()
print(child.pid, flush=True)
child.stdout.read() if STAYS else None
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.fixture
def start():
    """Starts a program as a gateway starts its engines; the first line that it prints is returned too."""
    started = []

    def start(code, mark="mark"):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, env={MARK: mark}
        )
        started.append((process, mark))
        return process, process.stdout.readline().decode().strip()

    yield start
    for process, mark in started:
        process.kill()
        end_marked(mark)
        process.wait(60)
        process.stdout.close()


@pytest.fixture
def files(tmp_path):
    return PidFiles(tmp_path / "engines")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_running_engine_is_written_down_for_its_owner_only(start, files, tmp_path):
    process, _ = start(WAITS)
    files.write(4801, process.pid, "mark")
    folder = tmp_path / "engines"
    assert names(folder) == ["4801.json"]
    assert folder.stat().st_mode & 0o077 == 0
    record = msgspec.json.decode((folder / "4801.json").read_bytes(), type=EngineRecord)
    entry = find_process(process.pid)
    assert record == EngineRecord(pid=process.pid, started=entry.started, boot=boot_id(), mark="mark")
    files.remove(4801)
    files.remove(4801)
    assert names(folder) == []


@pytest.mark.parametrize("code", [WAITS, DEAF])
def test_an_orphan_is_ended_also_one_that_ignores_the_polite_signal(start, files, tmp_path, code):
    process, _ = start(code)
    files.write(4801, process.pid, "mark")
    assert reap_orphans(tmp_path / "engines", grace=0.2) == (process.pid,)
    assert ends(process.pid, 0.0)
    assert names(tmp_path / "engines") == []


def test_what_the_orphan_started_ends_with_it(start, files, tmp_path):
    process, child = start(LEAVES_A_CHILD.replace("NEW", "False").replace("STAYS", "True"))
    files.write(4801, process.pid, "mark")
    assert set(reap_orphans(tmp_path / "engines")) == {process.pid, int(child)}
    assert ends(int(child), 0.0)


@linux
@pytest.mark.parametrize("new_session", ["False", "True"])
def test_what_a_dead_engine_left_behind_is_ended_wherever_it_has_moved(start, files, tmp_path, new_session):
    process, child = start(LEAVES_A_CHILD.replace("NEW", new_session).replace("STAYS", "True"))
    files.write(4801, process.pid, "mark")
    process.kill()
    process.wait(60)
    assert reap_orphans(tmp_path / "engines") == (int(child),)
    assert ends(int(child), 0.0)


@pytest.mark.parametrize("change", [{"started": "1"}, {"boot": "another"}])
def test_a_number_that_belongs_to_another_process_by_now_is_left_alone(start, files, tmp_path, change):
    process, _ = start(WAITS, mark="of another program")
    files.write(4801, process.pid, "mark")
    path = tmp_path / "engines" / "4801.json"
    record = msgspec.json.decode(path.read_bytes(), type=EngineRecord)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, **change)))
    assert reap_orphans(tmp_path / "engines") == ()
    assert process.poll() is None
    assert names(tmp_path / "engines") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff" * 10_000, b'{"pid":"1","started":""}'])
def test_a_file_that_makes_no_sense_ends_nobody(tmp_path, content):
    (tmp_path / "4801.json").write_bytes(content)
    assert reap_orphans(tmp_path) == ()
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_holds_no_orphans(tmp_path):
    assert reap_orphans(tmp_path / "nothing") == ()


def test_a_folder_that_cannot_be_written_keeps_no_engine_from_running(tmp_path, caplog):
    (tmp_path / "engines").write_text("a file")
    PidFiles(tmp_path / "engines").write(4801, os.getpid(), "mark")
    assert "cannot be written down" in caplog.text


@linux
def test_marked_processes_are_ended(start):
    process, _ = start(DEAF, mark="this one")
    other, _ = start(WAITS, mark="that one")
    end_marked("this one")
    assert ends(process.pid, 30.0)
    assert other.poll() is None
