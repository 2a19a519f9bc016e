import pytest

from stellwerk.config.problems import ConfigError
from stellwerk.config.tree import PROBLEMS, Place, Problems, shorten, under


def test_keys_are_dotted_and_indexed():
    assert under("", "listen") == "listen"
    assert under("listen", "port") == "listen.port"
    assert under("models.fast.targets", 0) == "models.fast.targets[0]"
    assert under("models", "gpt-4.1") == 'models["gpt-4.1"]'


def test_long_and_unprintable_texts_become_one_short_line():
    assert shorten("a\nb\x00") == "a?b?"
    assert len(shorten("x" * 1000)) == 60


def test_problems_stop_in_the_order_of_the_file_with_variables_last():
    problems = Problems()
    problems.add(Place("STELLWERK_X"), "", "unknown_setting")
    problems.add(Place("f", 9, 1), "b", "bad_key")
    problems.add(Place("f", 2, 4), "a", "bad_key")
    with pytest.raises(ConfigError) as caught:
        problems.stop_if_any()
    assert [problem.where for problem in caught.value.problems] == ["f:2:4", "f:9:1", "STELLWERK_X"]


def test_problems_are_bounded():
    problems = Problems()
    for line in range(PROBLEMS * 2):
        problems.add(Place("f", line + 1, 1), "", "bad_key")
    with pytest.raises(ConfigError) as caught:
        problems.stop_if_any()
    assert len(caught.value.problems) == PROBLEMS


def test_without_problems_nothing_stops():
    Problems().stop_if_any()
