"""`STELLWERK_*` variables on top of the file: section and key joined by two underscores, values as in YAML."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

import msgspec

from stellwerk.config.checking import plain_type
from stellwerk.config.document import parse
from stellwerk.config.tree import Entry, Place, Problems, shorten

PREFIX = "STELLWERK_"
SPECIAL = frozenset({"STELLWERK_CONFIG", "STELLWERK_DATA", "STELLWERK_ADMIN_KEY", "STELLWERK_API_KEY"})
"""Variables that are no settings: where config and data are, the key of the first admin, and the key of `chat`."""


def overlay(tree: Entry, environ: Mapping[str, str], kind: msgspec.inspect.Type, problems: Problems) -> Entry:
    """The tree with the values of all `STELLWERK_*` variables in place of its own; unknown variables are problems."""
    # Sorted, so that a variable for a whole section comes before those for its keys.
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in SPECIAL:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        found = _kind_at(kind, path)
        if found is None:
            near = get_close_matches(name, [*_names(kind, PREFIX), *SPECIAL], n=1, cutoff=0.7)
            if near:
                problems.add(Place(name), "", "unknown_setting_near", near=near[0])
            else:
                problems.add(Place(name), "", "unknown_setting")
            continue
        value = _value(environ[name], name, found, problems)
        if value is not None:
            tree = _with(tree, path, value)
    return tree


def _kind_at(kind: msgspec.inspect.Type, path: list[str]) -> msgspec.inspect.Type | None:
    for name in path:
        kind = plain_type(kind)
        if isinstance(kind, msgspec.inspect.DictType) and name:
            kind = kind.value_type
        elif isinstance(kind, msgspec.inspect.StructType):
            field = next((field for field in kind.fields if field.name == name), None)
            if field is None:
                return None
            kind = field.type
        else:
            return None
    return kind


def _names(kind: msgspec.inspect.Type, prefix: str) -> Iterator[str]:
    kind = plain_type(kind)
    if isinstance(kind, msgspec.inspect.StructType):
        for field in kind.fields:
            name = prefix + field.name.upper()
            yield name
            yield from _names(field.type, name + "__")


def _value(text: str, name: str, kind: msgspec.inspect.Type, problems: Problems) -> Entry | None:
    """What a variable holds; a text is taken as it is, so that a key of digits or with a colon needs no quotes."""
    place = Place(name)
    kind = plain_type(kind)
    texts = (msgspec.inspect.StrType, msgspec.inspect.LiteralType, msgspec.inspect.CustomType)
    if not isinstance(kind, texts):
        return parse(text, name, problems) or Entry(value=None, place=place, named=place)
    return Entry(value=None if text == "null" else text, place=place, named=place, text=shorten(text))


def _with(tree: Entry, path: list[str], value: Entry) -> Entry:
    if not path:
        return value
    inner = tree.value
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        return tree  # not a section, which is reported when the types are checked
    name, *rest = path
    below = inner.get(name) or Entry(value=None, place=value.place, named=value.named)
    changed = {**inner, name: _with(below, rest, value)}
    return Entry(value=changed, place=tree.place, named=tree.named)
