import errno
import hashlib

import pytest

from stellwerk.core.errors import Conflict
from stellwerk.engines.download_part import PartFile, trouble


def test_what_was_there_already_counts_in_the_checksum(tmp_path):
    path = tmp_path / "x.part"
    path.write_bytes(b"a" * 5_000_000)
    part = PartFile(path, 1 << 20)
    part.open()
    while not part.hash_some():
        pass
    part.write(b"bc")
    part.keep()
    part.close()
    assert part.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert part.size == path.stat().st_size == 5_000_002


def test_two_processes_never_write_into_one_file(tmp_path):
    first, second = PartFile(tmp_path / "x.part", 1), PartFile(tmp_path / "x.part", 1)
    first.open()
    with pytest.raises(Conflict):
        second.open()
    first.close()
    second.close()
    second.open()
    second.close()


def test_the_errors_of_the_disk_are_told_without_a_path():
    assert trouble(OSError(errno.ENOSPC, "No space", "/secret/path")).code == "disk_full"
    assert "secret" not in trouble(OSError(errno.EACCES, "Permission denied", "/secret/path")).message
