import string

import pytest

from stellwerk.config.problems import MESSAGES, WORDS, ConfigError, ConfigProblem


def test_a_problem_reads_as_place_key_and_message():
    problem = ConfigProblem(
        file="stellwerk.yaml", line=3, column=5, key="listen.prot", code="unknown_key", values={"name": "prot"}
    )
    assert str(problem) == "stellwerk.yaml:3:5: listen.prot: unknown key prot"


def test_a_problem_without_a_line_names_its_file_only():
    problem = ConfigProblem(
        file="gone.yaml", line=0, column=0, key="", code="cannot_read", values={"reason": "no file"}
    )
    assert str(problem) == "gone.yaml: the file cannot be read: no file"


def test_words_are_joined_and_numbers_have_no_tail():
    found = ConfigProblem(
        file="f",
        line=1,
        column=1,
        key="k",
        code="wrong_type",
        values={"expected": ("text", "null"), "found": ("list",)},
    )
    assert found.message == "expected text or null, found a list"
    small = ConfigProblem(file="f", line=1, column=1, key="k", code="too_small", values={"value": 1.0, "limit": 2.0})
    assert small.message == "1 is too small: the least is 2"


def test_an_error_says_all_of_its_problems():
    problems = [ConfigProblem(file="f", line=line, column=1, key="k", code="bad_key") for line in (1, 2)]
    assert str(ConfigError(problems)).count("a key must be text") == 2


@pytest.mark.parametrize("code", MESSAGES)
def test_every_message_can_be_filled(code: str):
    names = {name for _, name, _, _ in string.Formatter().parse(MESSAGES[code]) if name}
    problem = ConfigProblem(file="f", line=1, column=1, key="k", code=code, values=dict.fromkeys(names, 7))
    assert problem.message
    assert WORDS["or"] == "or"
