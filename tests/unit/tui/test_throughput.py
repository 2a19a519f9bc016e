from stellwerk.tui.snapshot import Queue
from stellwerk.tui.throughput import Throughput
from stellwerk.tui.wording import bar, bar_colour, clock_time, count, duration, memory


def queue(processed, name="a", failed=0):
    return Queue(name=name, processed=processed, failed=failed)


def test_throughput_is_that_of_the_last_minute():
    throughput = Throughput()
    throughput.note(0, [queue(100)])
    assert throughput.per_minute("a") is None
    throughput.note(30, [queue(110, failed=5)])
    assert throughput.per_minute("a") == 30
    for at in range(60, 300, 30):
        throughput.note(at, [queue(110, failed=5)])
    assert throughput.per_minute("a") == 0


def test_a_counter_that_starts_anew_is_no_negative_throughput():
    throughput = Throughput()
    throughput.note(0, [queue(100)])
    throughput.note(10, [queue(3)])
    assert throughput.per_minute("a") is None
    throughput.note(20, [queue(4)])
    assert throughput.per_minute("a") == 6


def test_a_queue_that_is_gone_is_forgotten():
    throughput = Throughput()
    throughput.note(0, [queue(1), queue(1, "b")])
    throughput.note(1, [queue(1)])
    assert throughput._looks.keys() == {"a"}


def test_a_bar_has_ten_cells_and_three_colours():
    assert [bar(part) for part in (0, 0.5, 1, 7)] == ["░" * 10, "█" * 5 + "░" * 5, "█" * 10, "█" * 10]
    assert [bar_colour(part) for part in (0.69, 0.7, 0.89, 0.9)] == ["green", "yellow", "yellow", "red"]


def test_numbers_are_short():
    assert [duration(seconds) for seconds in (None, 5, 65, 3660, 90_000)] == ["–", "5s", "1m 05s", "1h 1m", "1d 1h"]
    assert [memory(mib) for mib in (None, 0, 812.4, 4210)] == ["–", "–", "812 MiB", "4.1 GiB"]
    assert [count(number) for number in (7, 9999, 12_345, 4_500_000)] == ["7", "9999", "12.3k", "4.5M"]
    assert (clock_time(None), clock_time(0)) == ("–", "01-01 00:00:00")
