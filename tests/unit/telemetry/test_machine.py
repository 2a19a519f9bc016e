import sys

import pytest

from stellwerk.telemetry.machine import Memory, Processor, read_memory

STAT = "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n"


@pytest.fixture
def stat(tmp_path):
    path = tmp_path / "stat"
    path.write_text(STAT.format(busy=100, idle=100))
    return path


def test_a_processor_is_as_busy_as_between_the_last_two_looks(stat):
    processor = Processor(stat)
    stat.write_text(STAT.format(busy=130, idle=170))
    assert processor.busy() == 30.0
    stat.write_text(STAT.format(busy=230, idle=170))
    assert processor.busy() == 100.0


def test_two_looks_at_the_same_moment_say_the_same(stat):
    processor = Processor(stat)
    assert processor.busy() is None
    stat.write_text(STAT.format(busy=130, idle=170))
    assert processor.busy() == processor.busy() == 30.0


def test_figures_that_run_backwards_stay_within_bounds(stat):
    processor = Processor(stat)
    stat.write_text(STAT.format(busy=300, idle=50))
    assert processor.busy() == 100.0


@pytest.mark.parametrize("text", [None, "", "cpu", "cpu x y", "cpu 1 2 3"])
def test_a_system_that_does_not_tell_says_nothing(tmp_path, text):
    path = tmp_path / "stat"
    if text is not None:
        path.write_text(text)
    assert Processor(path).busy() is None


def test_memory_that_would_be_given_back_is_free(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\nHugePages_Total: 0\n")
    assert read_memory(path) == Memory(used=600 * 1024, total=1000 * 1024)


@pytest.mark.parametrize("text", [None, "", "MemTotal: 5 kB", "MemTotal: many kB\nMemAvailable: 1 kB", "\n\n"])
def test_memory_of_a_system_that_does_not_tell_is_not_known(tmp_path, text):
    path = tmp_path / "meminfo"
    if text is not None:
        path.write_text(text)
    assert read_memory(path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_this_machine_has_memory_and_a_processor():
    memory = read_memory()
    assert 0 < memory.used < memory.total
    busy = Processor().busy()
    assert busy is None or 0 <= busy <= 100
