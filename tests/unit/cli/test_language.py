import string

import pytest

from stellwerk.cli.language import PROBLEMS, TEXTS, WORDS, describe, language, text
from stellwerk.config import problems
from stellwerk.config.problems import ConfigProblem


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("key", TEXTS)
def test_both_languages_have_the_same_placeholders(key: str):
    assert set(TEXTS[key]) == {"en", "de"}
    assert placeholders(TEXTS[key]["en"]) == placeholders(TEXTS[key]["de"])


def test_every_config_problem_has_its_german():
    assert PROBLEMS.keys() == problems.MESSAGES.keys()
    assert WORDS.keys() == problems.WORDS.keys()


@pytest.mark.parametrize("code", PROBLEMS)
def test_german_problems_have_the_placeholders_of_the_english(code: str):
    assert placeholders(PROBLEMS[code]) == placeholders(problems.MESSAGES[code])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "de"),
        ({"LANG": "de"}, "de"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "de_AT.UTF-8"}, "de"),
        ({"LANG": "de_CH", "LC_ALL": ""}, "de"),
    ],
)
def test_the_language_is_that_of_the_locale(environ: dict[str, str], expected: str):
    assert language(environ) == expected


def test_texts_and_problems_follow_the_environment(monkeypatch: pytest.MonkeyPatch):
    problem = ConfigProblem(
        file="a.yaml",
        line=1,
        column=2,
        key="k",
        code="wrong_type",
        values={"expected": ("text", "null"), "found": ("list",)},
    )
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert text("config.right", file="a.yaml") == "a.yaml ist in Ordnung."
    assert describe(problem) == "a.yaml:1:2: k: erwartet: Text oder null; gefunden: eine Liste"
    monkeypatch.setenv("LC_ALL", "C")
    assert text("config.right", file="a.yaml") == "a.yaml is right."
    assert describe(problem) == "a.yaml:1:2: k: expected text or null, found a list"


def test_a_reason_of_the_system_is_german_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    problem = ConfigProblem(
        file="a.yaml", line=0, column=0, key="", code="cannot_read", values={"reason": "Permission denied"}
    )
    assert describe(problem).endswith("die Datei lässt sich nicht lesen: keine Berechtigung")
