import json
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from stellwerk.config.document import scalar
from stellwerk.config.example import SCHEMA_NAME, effective, example, schema, written
from stellwerk.config.reading import load, read
from stellwerk.config.settings import Config

Write = Callable[[str], Path]


def opened(text: str) -> str:
    """The example with its sample entries taken into use."""
    text = re.sub(
        r"^( *)(providers|models|commands|gates): \{\}\n *# An entry.*\n", r"\1\2:\n", text, flags=re.MULTILINE
    )
    return re.sub(r"^( *)#(   +)", r"\1 \2", text, flags=re.MULTILINE)


def valid(text: str) -> None:
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(text))


def test_the_example_is_the_defaults(write: Write):
    assert load(write(example()), {}) == Config()


def test_the_example_holds_every_key():
    tree = yaml.safe_load(example())
    assert set(tree) == set(Config.__struct_fields__)
    for name in set(tree) - {"providers", "models", "gates", "drain_seconds", "compat"}:
        assert set(tree[name]) == set(getattr(Config(), name).__struct_fields__)


def test_the_sample_entries_work_when_they_are_uncommented(write: Write):
    config = load(write(opened(example())), {"MY_VLLM_KEY": "k"}, vendors={"vllm"})
    assert config.providers["my-vllm"].models == ("my-model",)
    assert config.models["fast"].targets == ("my-vllm/my-model", "demo")


def test_the_example_points_editors_to_the_schema_and_has_short_lines():
    lines = example().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={SCHEMA_NAME}"
    assert max(map(len, lines)) <= 120


def test_the_schema_is_a_schema_that_the_example_holds_against():
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema())))
    valid(example())
    valid(opened(example()))


@pytest.mark.parametrize(
    "text",
    [
        "listen: {prot: 1}",
        "x: 1",
        "listen: {port: 70000}",
        "log: {level: loud}",
        "providers: {A B: {}}",
        "models: {a: {}}",
    ],
)
def test_the_schema_refuses_what_loading_refuses(text: str):
    with pytest.raises(jsonschema.ValidationError):
        valid(text)


def test_the_effective_config_is_yaml_without_secrets_that_names_its_sources(write: Write):
    path = write(
        "listen: {port: 1}\nproviders:\n  a: {api_key: sk-one, headers: {X-A: sk-two}}\n"
        "models: {gpt-4.1: {targets: [b], description: 'a: \"b\"'}}\n"
    )
    reading = read(path, {"STELLWERK_LOG__LEVEL": "debug"})
    text = effective(reading.config, reading.origins)
    assert "sk-" not in text
    assert f"  port: 1  # {path}:1\n" in text
    assert "  level: debug  # STELLWERK_LOG__LEVEL\n" in text
    assert "  host: 127.0.0.1\n" in text
    assert f"    targets: [b]  # {path}:4\n" in text
    tree = yaml.safe_load(text)
    assert tree["providers"]["a"]["headers"] == {"X-A": "***"}
    assert tree["models"]["gpt-4.1"]["description"] == 'a: "b"'


@pytest.mark.parametrize(
    "value", ["", "no", "null", "12", "a: b", "a #b", "- a", "http://a:1", "a:", "ü\n", "[", "~", "-x"]
)
def test_written_texts_are_read_back_as_they_were(value: str):
    tree = yaml.safe_load(f"key: {written(value)}")
    assert tree["key"] in (value, False)  # PyYAML alone takes a bare `no` for false
    if not written(value).startswith('"'):
        assert scalar(written(value)) == value
