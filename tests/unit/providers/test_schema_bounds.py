import json

import msgspec
import pytest

from stellwerk.core.errors import BadRequest
from stellwerk.providers._engine_requests import check_fields
from stellwerk.providers._schema_bounds import count_choices


def answering(schema):
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"response_format": msgspec.Raw(json.dumps(wanted).encode())}


def refusal_of(fields):
    with pytest.raises(BadRequest) as caught:
        check_fields(fields)
    return caught.value.param, caught.value.code


@pytest.mark.parametrize(
    ("pattern", "choices"),
    [
        ("", 0),
        ("^[a-z]{3}[0-9]{2}$", 0),
        (r"^[\w.+-]+@([a-z-]+\.)+[a-z]{2,10}$", 4),
        (r"\?\*\+[?*+]", 0),
        (r"[]a?b?]", 2),
        ("a?b*c+d{2,3}e{4}f{,5}g{6,}", 6),
        ("(?:a?b?){20}", 40),
        ("((a?){10}){10}", 100),
        ("(a{0,100}){0,100}", 101),
        ("(a|b?)c?", 2),
        ("))(a?", 1),
        ("a{0,2000}", 1),
    ],
)
def test_choices_of_a_pattern_are_counted_as_often_as_their_group_repeats(pattern, choices):
    assert count_choices(pattern) == choices


@pytest.mark.parametrize("pattern", ["^" + "a?" * 65 + "z$", "^(a?b?c?d?){20}z$", "a" * 1_001, "(" * 600 + ")" * 600])
def test_a_pattern_that_would_keep_an_engine_busy_is_refused(pattern):
    assert refusal_of(answering({"type": "string", "pattern": pattern})) == ("response_format", "unsupported_value")


def test_a_pattern_is_found_wherever_it_stands():
    costly = {"anyOf": [{"type": "array", "items": {"type": "string", "pattern": "a?" * 100}}]}
    parameters = {"type": "object", "properties": {"x": costly}}
    tools = [{"type": "function", "function": {"name": "find", "parameters": parameters}}]
    assert refusal_of({"tools": msgspec.Raw(json.dumps(tools).encode())}) == ("tools", "unsupported_value")
    assert refusal_of({"json_schema": msgspec.Raw(json.dumps(costly).encode())}) == ("json_schema", "unsupported_value")


def test_a_schema_with_thousands_of_values_is_refused():
    alternatives = {"anyOf": [{"const": f"a{number}"} for number in range(3_000)]}
    assert refusal_of(answering(alternatives)) == ("response_format", "unsupported_value")


def test_schemas_as_people_write_them_pass():
    properties = {
        f"field{number}": {"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 200} for number in range(200)
    }
    check_fields(answering({"type": "object", "properties": properties, "required": list(properties)}))
    check_fields(answering({"enum": [f"value {number}" for number in range(1_000)]}))
    check_fields({"response_format": msgspec.Raw(b'{"type":"text"}'), "tools": msgspec.Raw(b"null")})


def test_a_property_may_be_called_pattern():
    check_fields(answering({"type": "object", "properties": {"pattern": {"type": "string"}}}))
