"""The tree against the types of the settings: every value on its own, so that every mistake is found with its place."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from msgspec import inspect

from stellwerk.config.document import scalar
from stellwerk.config.tree import Entry, Problems, shorten, under

_WORDS: Mapping[type, str] = {
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "text",
    inspect.LiteralType: "text",
    inspect.CustomType: "text",
    inspect.VarTupleType: "list",
    inspect.DictType: "section",
    inspect.StructType: "section",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "text",
    list: "list",
    dict: "section",
    type(None): "null",
}
_BROKEN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def plain_type(kind: inspect.Type) -> inspect.Type:
    """The type without its description and without the `null` beside it."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        return plain_type(next(member for member in kind.types if not isinstance(member, inspect.NoneType)))
    return kind


class Checker:
    """Turns entries into plain values for `msgspec.convert` and records what does not fit.

    Where a problem has been added, the value that comes back means nothing.
    """

    def __init__(self, root: inspect.Type, problems: Problems) -> None:
        self._problems = problems
        self._homes: dict[str, str] = {}
        for name, home in _homes(root, ""):
            # Of several, the one that stands first is likelier meant.
            self._homes.setdefault(name, home)

    def check(self, entry: Entry, kind: inspect.Type, key: str) -> Any:
        plain = plain_type(kind)
        value = entry.value
        if value is None and isinstance(plain, inspect.StructType | inspect.DictType):
            value = {}  # a section of which every key is commented out
        if value is None and _takes_null(kind):
            return None
        match plain, value:
            case inspect.StructType(), dict():
                return self._section(value, plain, entry, key)
            case inspect.DictType(), dict():
                return self._map(value, plain, entry, key)
            case inspect.VarTupleType(), list():
                self._size(len(value), plain, entry, key)
                return [self.check(item, plain.item_type, under(key, index)) for index, item in enumerate(value)]
            case _:
                return self._leaf(entry, kind, plain, key)

    def _section(self, children: Mapping[str, Entry], kind: inspect.StructType, entry: Entry, key: str) -> Any:
        fields = {field.name: field.type for field in kind.fields}
        for field in kind.fields:
            if field.required and field.name not in children:
                self._problems.add(entry.named, key, "missing_key", name=field.name)
        values = {}
        for name, child in children.items():
            if name in fields:
                values[name] = self.check(child, fields[name], under(key, name))
            else:
                self._unknown(child, name, key, list(fields))
        return values

    def _unknown(self, child: Entry, name: str, key: str, known: list[str]) -> None:
        near = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6) or [self._homes.get(name, "")]
        code = "unknown_key_near" if near[0] else "unknown_key"
        self._problems.add(child.named, under(key, name), code, name=shorten(name), near=near[0])

    def _map(self, children: Mapping[str, Entry], kind: inspect.DictType, entry: Entry, key: str) -> Any:
        self._size(len(children), kind, entry, key)
        values = {}
        for name, child in children.items():
            form = _form(kind.key_type, name)
            if form:
                self._problems.add(child.named, under(key, name), "bad_name", form=(form,))
            values[name] = self.check(child, kind.value_type, under(key, name))
        return values

    def _size(self, count: int, kind: inspect.VarTupleType | inspect.DictType, entry: Entry, key: str) -> None:
        if kind.min_length is not None and count < kind.min_length:
            self._problems.add(entry.place, key, "too_few", limit=kind.min_length, count=count)
        if kind.max_length is not None and count > kind.max_length:
            self._problems.add(entry.place, key, "too_much", limit=kind.max_length, count=count)

    def _leaf(self, entry: Entry, kind: inspect.Type, plain: inspect.Type, key: str) -> Any:
        value = entry.value
        if entry.open and isinstance(value, str) and not isinstance(plain, inspect.StrType | inspect.CustomType):
            value = scalar(value)
        match plain, value:
            case inspect.IntType() | inspect.FloatType(), bool():
                pass
            case inspect.IntType(), int():
                return self._bounded(value, plain, entry, key)
            case inspect.FloatType(), int() | float():
                return self._bounded(value, plain, entry, key)
            case (inspect.BoolType(), bool()) | (inspect.CustomType(), str()):
                return value
            case inspect.LiteralType(), str():
                return self._choice(value, plain, entry, key)
            case inspect.StrType(), str():
                return self._text(value, kind, entry, key)
        expected = (_WORDS[type(plain)], "null") if _takes_null(kind) else (_WORDS[type(plain)],)
        self._problems.add(entry.place, key, "wrong_type", expected=expected, found=(_WORDS[type(value)],))
        return None

    def _bounded(self, value: float, kind: inspect.IntType | inspect.FloatType, entry: Entry, key: str) -> float:
        if kind.ge is not None and value < kind.ge:
            self._problems.add(entry.place, key, "too_small", value=value, limit=kind.ge)
        if kind.gt is not None and value <= kind.gt:
            self._problems.add(entry.place, key, "not_above", value=value, limit=kind.gt)
        if kind.le is not None and value > kind.le:
            self._problems.add(entry.place, key, "too_big", value=value, limit=kind.le)
        return value

    def _choice(self, value: str, kind: inspect.LiteralType, entry: Entry, key: str) -> str:
        choices = [str(choice) for choice in kind.values]
        if value not in choices:
            near = get_close_matches(value.lower(), choices, n=1, cutoff=0.6)
            values = {"value": f'"{entry.text}"', "choices": ", ".join(choices), "near": (near or [""])[0]}
            self._problems.add(entry.place, key, "not_a_choice_near" if near else "not_a_choice", **values)
        return value

    def _text(self, value: str, kind: inspect.Type, entry: Entry, key: str) -> str:
        form = _form(kind, value)
        plain = plain_type(kind)
        limit = plain.max_length if isinstance(plain, inspect.StrType) else None
        if _BROKEN_TEXT.search(value):
            self._problems.add(entry.place, key, "text_characters")
        elif form:
            self._problems.add(entry.place, key, "bad_form", value=f'"{entry.text}"', form=(form,))
        elif limit is not None and len(value) > limit:
            self._problems.add(entry.place, key, "too_long", limit=limit, count=len(value))
        return value


def _takes_null(kind: inspect.Type) -> bool:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return isinstance(kind, inspect.UnionType) and kind.includes_none


def _form(kind: inspect.Type, value: str) -> str | None:
    """Key of the wording for what `value` should look like, None when it does."""
    if isinstance(kind, inspect.UnionType):
        return _form(next(member for member in kind.types if not isinstance(member, inspect.NoneType)), value)
    if not isinstance(kind, inspect.Metadata):
        return None
    plain = kind.type
    if isinstance(plain, inspect.StrType) and plain.pattern and not re.fullmatch(plain.pattern, value):
        return str((kind.extra or {})["form"])
    return _form(plain, value)


def _homes(kind: inspect.Type, key: str) -> Iterator[tuple[str, str]]:
    """Every key below the sections and where it belongs, for a key that was written one level too high or too low."""
    kind = plain_type(kind)
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield field.name, under(key, field.name)
            yield from _homes(field.type, under(key, field.name))
