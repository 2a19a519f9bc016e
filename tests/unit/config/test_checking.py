from collections.abc import Callable
from pathlib import Path

import pytest

from stellwerk.config.problems import ConfigProblem
from stellwerk.config.reading import load

Wrong = Callable[..., list[ConfigProblem]]


@pytest.mark.parametrize(
    ("text", "where", "key", "message"),
    [
        ("listen:\n  prot: 1", (2, 3), "listen.prot", "unknown key prot; did you mean port?"),
        ("Listen: {}", (1, 1), "Listen", "unknown key Listen; did you mean listen?"),
        ("a: 1\nport: 4000", (2, 1), "port", "unknown key port; did you mean listen.port?"),
        ("xyzzy: 1", (1, 1), "xyzzy", "unknown key xyzzy"),
        ("listen: {port: '4000'}", (1, 16), "listen.port", "expected a whole number, found text"),
        ("listen: {port: 4000.5}", (1, 16), "listen.port", "expected a whole number, found a number"),
        ("listen: {port: true}", (1, 16), "listen.port", "expected a whole number, found true or false"),
        ("listen: {port: null}", (1, 16), "listen.port", "expected a whole number, found null"),
        ("listen: {port: 70000}", (1, 16), "listen.port", "70000 is too large: the most is 65535"),
        ("engines: {slots: 0}", (1, 18), "engines.slots", "0 is too small: the least is 1"),
        ("guard: {head_seconds: 0}", (1, 23), "guard.head_seconds", "0 is too small: it must be more than 0"),
        ("engines: {demo: yes}", (1, 17), "engines.demo", "expected true or false, found text"),
        ("listen: [1]", (1, 9), "listen", "expected a section of keys, found a list"),
        ("[]", (1, 1), "", "expected a section of keys, found a list"),
        ("listen: {allowed_hosts: a.b}", (1, 25), "listen.allowed_hosts", "expected a list, found text"),
        ("engines: {models_folder: []}", (1, 26), "engines.models_folder", "expected text or null, found a list"),
        (
            "log: {level: inof}", (1, 14), "log.level",
            '"inof" is not one of debug, error, info, warning; did you mean info?',
        ),
        ("log: {level: 5}", (1, 14), "log.level", "expected text, found a whole number"),
        (
            "listen: {allowed_hosts: [ok, 'a:80']}", (1, 30), "listen.allowed_hosts[1]",
            '"a:80" is not a host name or an address, without port and path',
        ),
        ("models:\n  fast: {targets: []}", (2, 19), "models.fast.targets", "expected at least 1, found 0"),
        ("models:\n  fast: {}", (2, 3), "models.fast", "the key targets is missing"),
        ("models:\n  gpt-4.1: {}", (2, 3), 'models["gpt-4.1"]', "the key targets is missing"),
        ("providers: {a: {api_key: []}}", (1, 26), "providers.a.api_key", "expected text or null, found a list"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_key(
    wrong: Wrong, text: str, where: tuple[int, int], key: str, message: str
):
    problem = next(problem for problem in wrong(text) if problem.key == key)
    assert ((problem.line, problem.column), problem.message) == (where, message)


def test_every_mistake_is_found_at_once(wrong: Wrong):
    text = "listen: {port: x, hosst: y}\nlog: {calls: 3}\nproviders:\n  Bad Name: {models: [a, 1]}\n"
    assert [(problem.line, problem.code) for problem in wrong(text)] == [
        (1, "wrong_type"), (1, "unknown_key_near"), (2, "wrong_type"), (4, "bad_name"), (4, "wrong_type"),
    ]  # fmt: skip


def test_a_name_with_a_line_break_at_its_end_is_refused(wrong: Wrong):
    assert wrong('providers: {"abc\\n": {base_url: "http://a"}}')[0].code == "bad_name"


def test_control_characters_and_lone_surrogates_are_refused(wrong: Wrong):
    assert wrong('models: {a: {targets: [b], description: "x\\0"}}')[0].code == "text_characters"
    assert wrong('models: {a: {targets: [b], description: "\\ud800"}}')[0].code == "text_characters"


def test_an_empty_section_has_its_defaults(write: Callable[[str], Path]):
    assert load(write("listen:\n  # port: 1\nproviders:\nlog: {}\n"), {}) == load(None, {})


def test_a_replaced_variable_may_be_a_number_unless_it_is_quoted(write: Callable[[str], Path], wrong: Wrong):
    assert load(write("listen:\n  port: ${PORT}"), {"PORT": "4100"}).listen.port == 4100
    assert wrong("listen:\n  port: '${PORT}'", {"PORT": "4100"})[0].code == "wrong_type"


def test_a_replaced_variable_stays_a_text_where_a_text_is_meant(write: Callable[[str], Path]):
    config = load(write("providers:\n  openai:\n    api_key: ${KEY}"), {"KEY": "12345"})
    key = config.providers["openai"].api_key
    assert key is not None
    assert key.reveal() == "12345"


def test_the_message_shows_the_variable_and_not_its_value(wrong: Wrong):
    problem = wrong("log:\n  level: ${KEY}", {"KEY": "sk-very-secret"})[0]
    assert "${KEY}" in problem.message
    assert "secret" not in str(problem)
