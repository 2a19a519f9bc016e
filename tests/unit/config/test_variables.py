from collections.abc import Callable
from pathlib import Path

import pytest

from stellwerk.config.problems import ConfigError, ConfigProblem
from stellwerk.config.reading import load
from stellwerk.config.variables import SPECIAL

Write = Callable[[str], Path]
Wrong = Callable[..., list[ConfigProblem]]


def test_a_variable_goes_before_the_file(write: Write):
    config = load(write("listen: {port: 4000, host: localhost}"), {"STELLWERK_LISTEN__PORT": "4100"})
    assert (config.listen.port, config.listen.host) == (4100, "localhost")


def test_variables_need_no_file():
    environ = {
        "STELLWERK_DRAIN_SECONDS": "2.5",
        "STELLWERK_ENGINES__ENABLED": "false",
        "STELLWERK_LOG__LEVEL": "debug",
        "STELLWERK_LISTEN__ALLOWED_HOSTS": "[a.example, b.example]",
        "STELLWERK_MODELS": "{fast: {targets: [demo]}}",
        "PATH": "/bin",
    }
    config = load(None, environ)
    assert config.drain_seconds == 2.5
    assert config.engines.enabled is False
    assert config.log.level == "debug"
    assert config.listen.allowed_hosts == ("a.example", "b.example")
    assert config.models["fast"].targets == ("demo",)


@pytest.mark.parametrize("key", ["12345", "true", "a:b", "*star", "${HOME}", "{", "'quoted'"])
def test_a_text_is_taken_as_it_is(key: str):
    config = load(None, {"STELLWERK_PROVIDERS__OPENAI__API_KEY": key})
    secret = config.providers["openai"].api_key
    assert secret is not None
    assert secret.reveal() == key


def test_null_takes_a_value_of_the_file_away(write: Write):
    config = load(write("engines: {models_folder: /models}"), {"STELLWERK_ENGINES__MODELS_FOLDER": "null"})
    assert config.engines.models_folder is None


def test_a_key_is_added_to_the_sections_of_the_file(write: Write):
    file = write("providers:\n  mine: {base_url: 'http://a/v1'}\n")
    config = load(file, {"STELLWERK_PROVIDERS__MINE__API_KEY": "k", "STELLWERK_PROVIDERS__OPENAI__API_KEY": "l"})
    assert config.providers["mine"].base_url == "http://a/v1"
    assert set(config.providers) == {"mine", "openai"}


def test_a_variable_for_a_section_comes_before_those_for_its_keys():
    config = load(None, {"STELLWERK_LISTEN__PORT": "2", "STELLWERK_LISTEN": "{port: 1, behind_proxy: true}"})
    assert (config.listen.port, config.listen.behind_proxy) == (2, True)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("STELLWERK_LISTEN__PROT", "STELLWERK_LISTEN__PORT"),
        ("STELLWERK_LISTEN_PORT", "STELLWERK_LISTEN__PORT"),
        ("STELLWERK_CONFG", "STELLWERK_CONFIG"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_one_that_was_meant(name: str, near: str):
    with pytest.raises(ConfigError) as caught:
        load(None, {name: "1"})
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.code) == (name, 0, "unknown_setting_near")
    assert near in problem.message


@pytest.mark.parametrize("name", ["STELLWERK_", "STELLWERK___", "STELLWERK_QQQQQQ", "STELLWERK_LISTEN__PORT__DEEPER"])
def test_a_variable_without_a_setting_is_refused(name: str):
    with pytest.raises(ConfigError, match=name):
        load(None, {name: "1"})


def test_variables_that_are_no_settings_are_left_alone():
    special = dict.fromkeys([*SPECIAL, "STELLWERKS"], "x")
    assert load(None, special) == load(None, {})


def test_a_wrong_value_names_the_variable_and_the_key(wrong: Wrong):
    (problem,) = wrong("listen: {port: 1}", {"STELLWERK_LISTEN__PORT": "many"})
    assert str(problem) == "STELLWERK_LISTEN__PORT: listen.port: expected a whole number, found text"


def test_a_broken_value_names_the_variable():
    with pytest.raises(ConfigError, match="STELLWERK_MODELS: this is not valid YAML"):
        load(None, {"STELLWERK_MODELS": "{a: ["})


def test_a_section_that_is_none_is_reported_where_it_stands(wrong: Wrong):
    (problem,) = wrong("listen: 5", {"STELLWERK_LISTEN__PORT": "1"})
    assert (problem.line, problem.key, problem.code) == (1, "listen", "wrong_type")
