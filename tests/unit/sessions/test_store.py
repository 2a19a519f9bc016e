import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from stellwerk.core.errors import Unavailable
from stellwerk.sessions.history import LARGEST_FILE
from stellwerk.sessions.store import FileSessions


@pytest.fixture
def sessions(tmp_path):
    return tmp_path / ".sessions"


@pytest.fixture
def store(sessions):
    return FileSessions(sessions)


@pytest.fixture
def file(sessions):
    sessions.mkdir()
    return sessions / "m-x.json"


def add(store, text="q", owner="", model="m", session_id="x"):
    store.append(owner, model, session_id, text, "a")


def questions(store, owner="", model="m", session_id="x"):
    return [message.content for message in store.read(owner, model, session_id) if message.role == "user"]


def test_files_and_folders_are_private(store, sessions):
    add(store)
    add(store, owner="7")
    assert sessions.stat().st_mode & 0o777 == 0o700
    assert (sessions / "7").stat().st_mode & 0o777 == 0o700
    assert (sessions / "7" / "m-x.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in sessions.rglob("*")) == ["7", "m-x.json", "m-x.json"]


def test_reading_makes_no_folder(store, sessions):
    assert store.read("7", "m", "x") == []
    assert not sessions.exists()


def test_a_removed_file_is_an_empty_history(store, sessions):
    add(store, "old")
    (sessions / "m-x.json").unlink()
    assert questions(store) == []
    add(store, "new")
    assert questions(store) == ["new"]


def test_a_removed_folder_comes_back(store, sessions):
    add(store)
    (sessions / "m-x.json").unlink()
    sessions.rmdir()
    add(store, "new")
    assert questions(store) == ["new"]


def test_a_file_that_somebody_edited_is_taken_as_it_is(store, file):
    file.write_text('{"history":[{"role":"user","content":"by hand"},{"role":"assistant","content":"so"}]}')
    add(store, "next")
    assert questions(store) == ["by hand", "next"]


def test_a_file_that_somebody_emptied_is_an_empty_history(store, file):
    file.touch()
    assert questions(store) == []
    assert list(file.parent.iterdir()) == [file]


BROKEN = {
    "not JSON": b"hello",
    "cut off": b'{"history":[{"role":"user","content":"q"',
    "another shape": b'{"messages":[]}',
    "not UTF-8": b'{"history":[{"role":"user","content":"\xff"}]}',
    "too large": b'{"history":[]}' + b" " * LARGEST_FILE,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_history_is_put_aside(store, file, content, caplog):
    file.write_bytes(content)
    assert questions(store) == []
    aside = file.with_name("m-x.json.broken")
    assert list(file.parent.iterdir()) == [aside]
    assert aside.read_bytes() == content
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    add(store)
    assert questions(store) == ["q"]


def test_a_file_that_breaks_during_a_call_is_put_aside_when_the_answer_is_kept(store, file):
    file.write_bytes(b"hello")
    add(store)
    assert questions(store) == ["q"]
    assert file.with_name("m-x.json.broken").read_bytes() == b"hello"


def make_link(file):
    target = file.with_name("elsewhere")
    target.write_text('{"history":[{"role":"user","content":"secret"}]}')
    file.symlink_to(target)


def make_socket(file):
    # The path of a socket is short by rule, and that of a test may be long.
    with contextlib.chdir(file.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(file.name)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, make_link, make_socket])
def test_what_is_no_file_is_put_aside_too(store, file, make):
    make(file)
    assert questions(store) == []
    assert os.path.lexists(file.with_name("m-x.json.broken"))
    add(store)
    assert questions(store) == ["q"]


def test_what_a_killed_process_left_is_in_nobodys_way(store, file):
    file.with_name(".new").write_bytes(b"half")
    add(store)
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_cannot_be_used_is_a_failure_of_the_storage(store, sessions, caplog):
    sessions.write_bytes(b"")
    for use in (add, questions):
        with pytest.raises(Unavailable) as caught:
            use(store)
        assert caught.value.code == "storage_unavailable"
        assert str(sessions) not in caught.value.message
    assert len(caplog.records) == 2


@pytest.mark.parametrize("owner", ["..", "a", "1/2", "/", "1 ", "٣", "-1", "."])
def test_only_the_id_of_a_user_is_an_owner(store, owner):
    with pytest.raises(ValueError, match="not the id"):
        store.read(owner, "m", "x")
    with pytest.raises(ValueError, match="not the id"):
        add(store, owner=owner)


def test_the_documented_ambiguity_of_names_loses_nothing(store):
    """`a-b` with `c` and `a` with `b-c` are one file: both stand in it."""
    add(store, "one", model="a-b", session_id="c")
    add(store, "two", model="a", session_id="b-c")
    assert questions(store, model="a-b", session_id="c") == ["one", "two"]


@contextlib.contextmanager
def locked(folder):
    """Holds a folder as another process would while it writes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def until_opened_by_two(folder):
    """Returns when somebody besides the test waits for the folder."""
    wanted = folder.stat()
    deadline = time.monotonic() + 5
    opened = 0
    while opened < 2:
        assert time.monotonic() < deadline
        opened = 0
        for descriptor in Path("/dev/fd").iterdir():
            with contextlib.suppress(OSError):
                opened += os.path.samestat(os.fstat(int(descriptor.name)), wanted)


def test_a_process_that_was_stopped_in_the_middle_holds_nobody_up_for_ever(sessions, file):
    store = FileSessions(sessions, lock_seconds=0.02)
    with locked(sessions), pytest.raises(Unavailable) as caught:
        add(store)
    assert caught.value.code == "storage_unavailable"
    add(store)
    assert questions(store) == ["q"]


def test_reading_waits_for_nobody(store, sessions):
    add(store)
    with locked(sessions):
        assert questions(store) == ["q"]


def test_who_waited_for_a_folder_that_went_away_waits_for_the_new_one(store, sessions, file):
    writer = threading.Thread(target=add, args=(store, "of the writer"))
    with contextlib.ExitStack() as new:
        with locked(sessions):
            writer.start()
            until_opened_by_two(sessions)
            sessions.rename(sessions.with_name("gone"))
            sessions.mkdir()
            new.enter_context(locked(sessions))
        writer.join(0.05)
        assert writer.is_alive()
        file.write_text('{"history":[{"role":"user","content":"of another"},{"role":"assistant","content":"a"}]}')
    writer.join(60)
    assert questions(store) == ["of another", "of the writer"]


def test_many_threads_lose_nothing(store, sessions):
    threads = [threading.Thread(target=add, args=(store, f"{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(questions(store)) == [f"{n}" for n in range(8)]
    assert len(json.loads((sessions / "m-x.json").read_text())["history"]) == 16
