"""The settings as text: the annotated example, the JSON Schema for editors, and the effective config."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from stellwerk.config.checking import plain_type
from stellwerk.config.document import scalar
from stellwerk.config.settings import Config
from stellwerk.config.tree import Place, under
from stellwerk.core.secrets import Secret

SCHEMA_NAME = "stellwerk.schema.json"
WIDTH = 110

_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_NAME}
#
# Settings of Stellwerk. Every key may be left out and then has the value that stands here; delete what you do not
# change, so that better defaults of later versions reach you. A changed file is taken over while the gateway runs.
# ${{NAME}} in a value is replaced from the environment, $${{ writes the two characters. Every key can also be set by a
# variable that goes before this file: STELLWERK_LISTEN__PORT=4100.
"""


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the config file."""
    made = msgspec.json.schema(Config, schema_hook=_schema_of)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "stellwerk.yaml", **made}


def example() -> str:
    """An annotated config file in which every key has its default."""
    root = inspect.type_info(Config)
    assert isinstance(root, inspect.StructType)
    lines = [_HEAD]
    for field in root.fields:
        lines += [*_comment(_description(field)), *_example_of(field), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def effective(config: Config, origins: Mapping[str, Place]) -> str:
    """The config in use, secrets as `***`; behind each value that was set stands the place that set it."""
    return "\n".join(_effective(config, "", 0, origins)) + "\n"


def _schema_of(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string"}
    raise NotImplementedError(kind)


def _example_of(field: inspect.Field, indent: str = "") -> Iterator[str]:
    kind = plain_type(field.type)
    if isinstance(kind, inspect.StructType):
        yield f"{indent}{field.name}:"
        for inner in kind.fields:
            yield from _comment(_description(inner), f"{indent}  ")
            yield from _example_of(inner, f"{indent}  ")
    elif isinstance(kind, inspect.DictType) and isinstance(kind.value_type, inspect.StructType):
        yield f"{indent}{field.name}: {{}}"
        yield f"{indent}# An entry; to use it, take away the {{}} above and the # below."
        yield f"{indent}#   {_examples(field)[0]}:"
        for inner in kind.value_type.fields:
            yield from _comment(_description(inner), f"{indent}#     ")
            yield f"{indent}#     {inner.name}: {written((_examples(inner) or [_default(inner)])[0])}"
    else:
        yield f"{indent}{field.name}: {written(_default(field))}"


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _metadata(field: inspect.Field) -> Mapping[str, Any]:
    return (field.type.extra_json_schema or {}) if isinstance(field.type, inspect.Metadata) else {}


def _description(field: inspect.Field) -> str:
    described = str(_metadata(field)["description"])
    kind = plain_type(field.type)
    if isinstance(kind, inspect.LiteralType):
        return f"{described} One of {', '.join(map(str, kind.values))}."
    return described


def _examples(field: inspect.Field) -> list[Any]:
    return list(_metadata(field).get("examples", ()))


def _default(field: inspect.Field) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def written(value: Any) -> str:
    """A value as it stands behind a key in YAML, in one line."""
    match value:
        case Secret():
            return '"***"'
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case int():
            return str(value)
        case str():
            plain = re.fullmatch(r"[A-Za-z0-9./_-][A-Za-z0-9./_:-]*(?<!:)|\$\{[A-Z_]+\}", value)
            return value if plain and isinstance(scalar(value), str) and value[0] != "-" else json.dumps(value)
        case Mapping():
            return "{" + ", ".join(f"{written(name)}: {written(item)}" for name, item in value.items()) + "}"
        case _:
            return "[" + ", ".join(map(written, value)) + "]"


def _effective(value: Any, key: str, depth: int, origins: Mapping[str, Place]) -> Iterator[str]:
    pairs = (
        value.items()
        if isinstance(value, Mapping)
        else ((name, getattr(value, name)) for name in value.__struct_fields__)
    )
    for name, item in pairs:
        path = under(key, name)
        head = f"{'  ' * depth}{written(name)}:"
        if isinstance(item, msgspec.Struct) or (isinstance(item, Mapping) and item):
            yield head
            yield from _effective(item, path, depth + 1, origins)
        else:
            yield f"{head} {written(item)}{_origin(path, origins)}"


def _origin(key: str, origins: Mapping[str, Place]) -> str:
    place = next((place for name, place in origins.items() if name == key or name.startswith(f"{key}[")), None)
    if place is None:
        return ""
    return f"  # {place.file}:{place.line}" if place.line else f"  # {place.file}"
