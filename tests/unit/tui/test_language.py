import string

import pytest

from stellwerk.routing.auto_switch import Loaded, SwitchRules, Use, recommend
from stellwerk.tui.language import TEXTS, Words, language
from stellwerk.tui.trouble import ConsoleTrouble


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


ONE, OTHER = Use(model="a", requests=30), Use(model="b", requests=5)
BUSY, PINNED = Loaded(model="b", busy=True), Loaded(model="b", pinned=True)


@pytest.mark.parametrize(
    ("uses", "loaded", "last_switch"),
    [
        ((), (), None), ((ONE, OTHER), (Loaded(model="a"),), None), ((OTHER,), (), None),
        ((ONE, Use(model="b", requests=29)), (), None), ((ONE, OTHER), (BUSY,), 95.0), ((ONE, OTHER), (PINNED,), None),
    ],
)  # fmt: skip
def test_every_reason_that_a_gateway_gives_is_known(uses, loaded, last_switch):
    found = recommend(uses, loaded, free_places=0, now=100.0, last_switch=last_switch, rules=SwitchRules())
    for reason in found.reasons:
        assert Words("en").reason(reason) == reason
        assert Words("de").reason(reason) != reason


def test_a_reason_that_nobody_knows_stays_as_it_is():
    assert Words("de").reason("The moon is full.") == "The moon is full."
    assert Words("de").reason("a had 1 of 2 requests (50%).") == "a hatte 1 von 2 Anfragen (50%)."


def test_a_state_without_a_word_is_shown_as_it_is():
    assert Words("de").state("hibernating") == "hibernating"
    assert Words("de").state("crashed") == "abgestürzt"


def test_what_a_gateway_refuses_is_said_in_the_language_of_the_console():
    trouble = ConsoleTrouble("trouble.answer", 409, code=409, message="Port 4801 is used by another program.")
    trouble.code = "port_taken"
    assert Words("de").trouble(trouble) == "409: Diesen Port benutzt ein anderes Programm."
    assert Words("en").trouble(trouble) == "409: Port 4801 is used by another program."
