import os

from stellwerk.telemetry.process import open_files, resident_bytes


def test_the_resident_memory_is_that_of_a_python_process():
    assert 1_000_000 < resident_bytes() < 100_000_000_000


def test_an_opened_file_is_counted():
    before = open_files()
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        assert open_files() == before + 1
    finally:
        os.close(descriptor)
