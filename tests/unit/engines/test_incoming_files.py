import struct

import pytest

from stellwerk.engines.download_list import StoredFile
from stellwerk.engines.incoming_files import IncomingFiles, InvalidModel


def entry(name):
    return StoredFile(name=name, local=name, size=1, sha256=None, kind="model")


def test_a_later_part_needs_a_sound_header_and_no_architecture(tmp_path):
    key = b"split.no"
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<IH", 2, 1)
    (tmp_path / "m-00002-of-00002.gguf.part").write_bytes(header)
    (tmp_path / "m-00001-of-00002.gguf.part").write_bytes(header)
    files = IncomingFiles(tmp_path)
    files.check(entry("m-00002-of-00002.gguf"))
    with pytest.raises(InvalidModel, match="architecture"):
        files.check(entry("m-00001-of-00002.gguf"))
    (tmp_path / "m-00002-of-00002.gguf.part").write_bytes(header[:-1])
    with pytest.raises(InvalidModel):
        files.check(entry("m-00002-of-00002.gguf"))
