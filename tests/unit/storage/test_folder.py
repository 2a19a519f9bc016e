import os
import stat
import subprocess
import sys

import pytest

from stellwerk.storage.failures import FolderInUse, StorageRefused
from stellwerk.storage.folder import FolderLock, prepare_folder, write_private_file


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_for_its_owner_only(tmp_path):
    prepare_folder(tmp_path / "a" / "data")
    assert mode(tmp_path / "a" / "data") == 0o700


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    prepare_folder(tmp_path)
    assert mode(tmp_path) == 0o755


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageRefused, match="file/data cannot be created"):
        prepare_folder(tmp_path / "file" / "data")


def test_a_second_owner_is_refused_and_told_the_first(tmp_path):
    with FolderLock(tmp_path), pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}"):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_releasing_twice_does_no_harm(tmp_path):
    lock = FolderLock(tmp_path)
    lock.release()
    lock.release()


def test_a_lock_ends_with_its_process_and_not_with_its_children(tmp_path):
    program = f"""
import subprocess, sys
from pathlib import Path
from stellwerk.storage.folder import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, stdout=subprocess.DEVNULL, close_fds=False)
print("locked", flush=True)
child.wait()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(FolderInUse, match=f"process {process.pid}"):
            FolderLock(tmp_path)
        process.kill()
        process.wait()
        FolderLock(tmp_path).release()


def test_a_private_file_is_written_whole_for_its_owner_only(tmp_path):
    path = tmp_path / "secret"
    path.write_text("an older and longer secret")
    path.chmod(0o644)
    write_private_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_of_two_writers_wins_when_asked_to(tmp_path):
    path = tmp_path / "secret"
    write_private_file(path, b"first", keep_existing=True)
    write_private_file(path, b"second", keep_existing=True)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
