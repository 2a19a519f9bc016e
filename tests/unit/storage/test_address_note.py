import os
import stat
import subprocess
import sys

import msgspec
import pytest

from stellwerk.storage.address_note import NOTE_NAME, AddressNote, noted_address
from stellwerk.storage.folder import FolderLock


@pytest.fixture
def note(tmp_path):
    note = AddressNote(tmp_path)
    yield note
    note.remove()


def test_what_is_noted_is_found_and_private(note, tmp_path):
    note.write("127.0.0.1", 6200)
    assert noted_address(tmp_path) == ("127.0.0.1", 6200)
    assert [path.name for path in tmp_path.iterdir()] == [NOTE_NAME]
    assert stat.S_IMODE((tmp_path / NOTE_NAME).stat().st_mode) == 0o600


def test_looking_at_a_note_does_not_make_it_worthless(note, tmp_path):
    note.write("::1", 6200)
    assert [noted_address(tmp_path) for _ in range(3)] == [("::1", 6200)] * 3


def test_a_removed_note_is_gone_and_removing_twice_does_no_harm(note, tmp_path):
    note.write("127.0.0.1", 6200)
    note.remove()
    note.remove()
    assert noted_address(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_has_noted_anything_nothing_is_found(tmp_path):
    assert noted_address(tmp_path) is None
    assert noted_address(tmp_path / "missing") is None


def test_a_note_ends_with_its_process(tmp_path):
    program = f"""
from pathlib import Path
from stellwerk.storage.address_note import AddressNote
note = AddressNote(Path({str(tmp_path)!r}))
note.write("127.0.0.1", 6201)
print("noted", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "noted\n"
        assert noted_address(tmp_path) == ("127.0.0.1", 6201)
        process.kill()
        process.wait()
    assert (tmp_path / NOTE_NAME).exists()
    assert noted_address(tmp_path) is None
    # Whoever locks the folder afterwards, as `models pull` does, is not the gateway of the note.
    with FolderLock(tmp_path):
        assert noted_address(tmp_path) is None


def test_a_note_that_a_killed_gateway_left_is_replaced(note, tmp_path):
    (tmp_path / NOTE_NAME).write_bytes(b"left")
    (tmp_path / f"{NOTE_NAME}.new").write_bytes(b"half")
    note.write("127.0.0.1", 6200)
    assert noted_address(tmp_path) == ("127.0.0.1", 6200)
    assert [path.name for path in tmp_path.iterdir()] == [NOTE_NAME]


@pytest.mark.parametrize(
    "changed",
    [
        {"port": 0},
        {"port": 65536},
        {"host": "evil.example/x"},
        {"host": "127.0.0.1:1@evil.example"},
        {"network": "another"},
        {"network": None},
    ],
)
def test_a_note_with_something_else_in_it_is_not_believed(note, tmp_path, changed):
    note.write("127.0.0.1", 6200)
    path = tmp_path / NOTE_NAME
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **changed}))
    assert noted_address(tmp_path) is None


def test_what_is_no_file_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / NOTE_NAME)
    assert noted_address(tmp_path) is None


def test_a_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    note = AddressNote(elsewhere)
    note.write("127.0.0.1", 6200)
    (tmp_path / NOTE_NAME).symlink_to(elsewhere / NOTE_NAME)
    assert noted_address(tmp_path) is None
    note.remove()
