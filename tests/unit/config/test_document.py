from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.config.document import DEPTH, ENTRIES, parse, scalar
from stellwerk.config.problems import ConfigError, ConfigProblem
from stellwerk.config.tree import Entry, Place, Problems


def plain(entry: Entry | None) -> Any:
    value = entry.value if entry else None
    if isinstance(value, dict):
        return {name: plain(child) for name, child in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def read(text: str, environ: Mapping[str, str] | None = None) -> Any:
    problems = Problems()
    entry = parse(text, "f", problems, environ or {})
    problems.stop_if_any()
    return plain(entry)


def problems_of(text: str) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None), ("", None), ("null", None), ("true", True), ("FALSE", False), ("12", 12), ("-3", -3), ("012", 12),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("0x10", "0x10"),
        ("2026-11-21", "2026-11-21"), (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("1_000", "1_000"),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_quotes_make_a_text():
    assert read("a: '12'\nb: \"true\"") == {"a": "12", "b": "true"}


def test_every_value_knows_its_place():
    tree = parse("a:\n  b: [1,\n    2]\n", "f", Problems(), {})
    assert tree is not None
    b = tree.value["a"].value["b"]
    assert (b.named, b.place) == (Place("f", 2, 3), Place("f", 2, 6))
    assert b.value[1].place == Place("f", 3, 5)


def test_nothing_in_a_file_is_an_empty_tree():
    assert read("") is None
    assert read("# only a comment\n") is None


def test_anchors_aliases_and_merges_are_understood():
    text = "a: &base {x: 1, y: 2}\nb: {<<: *base, y: 3}\nc: {<<: [{x: 5}, *base]}\nd: *base\n"
    assert read(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 5, "y": 2}, "d": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: [1, 2", "not_yaml", 1, 9),
        ("a: 1\nb: 2\nb:\n  - *nowhere", "not_yaml", 4, 5),
        ("a: 1\n--- \nb: 2", "not_yaml", 2, 1),
        ("a: 1\n\tb: 2", "not_yaml", 2, 1),
        ("a: 1\nb: \x01", "not_yaml", 2, 4),
        ('a: "\\U00110000"', "not_yaml", 1, 7),
        ("a: 1\nb: 2\na: 3", "duplicate_key", 3, 1),
        ("a: !!python/name:os.system x", "bad_tag", 1, 4),
        ("a: !!int abc", "bad_tag", 1, 4),
        ("a: !!float .nan", "bad_tag", 1, 4),
        ("a: !!set {b}", "bad_tag", 1, 4),
        ("? [a]\n: 1", "bad_key", 1, 3),
        ("a: {<<: 3}", "bad_merge", 1, 9),
        ("a: &a [*a]", "too_deep", 1, 4),
        ("a: &a {<<: *a}", "too_deep", 1, 4),
        ("[" * 100_000, "too_deep", 1, DEPTH + 2),
        ("a: " + "x" * 70_000, "too_long", 1, 4),
        ("a: ${NOPE}", "missing_variable", 1, 4),
        ("a: '${NOPE NO}'", "bad_variable", 1, 4),
        ("a: '${'", "bad_variable", 1, 4),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, code: str, line: int, column: int):
    problem = problems_of(text)[0]
    assert (problem.code, problem.line, problem.column) == (code, line, column)


def test_aliases_of_aliases_do_not_explode():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert problems_of("\n".join(lines))[0].code == "too_many"


def test_duplicate_keys_behind_aliases_do_not_explode():
    text = "a: &a {" + ", ".join(["k: 1"] * 50) + "}\nb: [" + ", ".join(["*a"] * ENTRIES) + "]"
    assert problems_of(text)


def test_variables_are_replaced_in_values_but_not_in_keys():
    assert read("${A}: x${A}y${A}", {"A": "1"}) == {"${A}": "x1y1"}


def test_a_doubled_dollar_keeps_the_characters():
    assert read("a: $${A} $${ $ $$ {A}", {"A": "1"}) == {"a": "${A} ${ $ $$ {A}"}


def test_a_replaced_text_is_not_replaced_again():
    assert read("a: ${A}", {"A": "${B}", "B": "no"}) == {"a": "${B}"}


def test_the_value_of_a_variable_has_no_line_and_nothing_is_replaced_in_it():
    problems = Problems()
    tree = parse("[1, '${A}']", "STELLWERK_X", problems)
    problems.stop_if_any()
    assert plain(tree) == [1, "${A}"]
    assert tree is not None
    assert tree.value[0].place == Place("STELLWERK_X")


@given(st.text(alphabet=st.sampled_from("ab:-?[]{}#&*!|>'\"%@`\\,\n\t $<~1.eE\x00\x85\ufeffü\U0001f600"), max_size=60))
def test_no_text_makes_the_reader_fail_otherwise(text: str):
    problems = Problems()
    parse(text, "f", problems, {})
    with suppress(ConfigError):
        problems.stop_if_any()
