import string

import pytest

from stellwerk.tui.language import TEXTS, Words, language


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("key", TEXTS)
def test_both_languages_have_the_same_placeholders(key: str):
    assert set(TEXTS[key]) == {"en", "de"}
    assert placeholders(TEXTS[key]["en"]) == placeholders(TEXTS[key]["de"])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "de"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "de_AT.UTF-8"}, "de"),
    ],
)
def test_the_language_is_that_of_the_locale(environ: dict[str, str], expected: str):
    assert language(environ) == expected


def test_a_state_without_a_word_is_shown_as_it_is():
    assert Words("de").state("hibernating") == "hibernating"
    assert Words("de").state("crashed") == "abgestürzt"
