"""YAML into a tree in which every value knows its file, line and column.

Scalars are read as in YAML 1.2: `no` is a text, `012` is twelve, dates are texts. Nothing is ever constructed from a
tag.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from stellwerk.config.tree import Entry, Place, Problems, Scalar, shorten, under

DEPTH = 24
ENTRIES = 40_000
TEXT = 65536
"""Together they bound what a file of aliases of aliases can cost."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]{1,18}")),
    ("float", re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,2})?")),
    ("merge", re.compile(r"<<")),
)
"""What a scalar without quotes is; the bounds keep numbers within what Python and the settings take."""
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*\})?")


def parse(text: str, file: str, problems: Problems, environ: Mapping[str, str] | None = None) -> Entry | None:
    """The tree of a YAML text, None when it is empty or broken.

    With `environ`, `${NAME}` in values is replaced; without it, `text` is the value of the environment variable `file`.
    """
    try:
        node = _compose(text)
    except _Wrong as wrong:
        problems.add(_place(file, wrong.mark, environ), "", wrong.code, reason=wrong.reason, limit=DEPTH)
        return None
    if node is None:
        return None
    try:
        return _Builder(file, problems, environ).build(node, None, "", 0)
    except _Full:
        return None


def scalar(text: str) -> Scalar:
    """What a text without quotes means in YAML."""
    return _converted(_kind(text), text)


def _compose(text: str) -> yaml.Node | None:
    """The nodes of the one document in `text`, None when it is empty. Raises _Wrong."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = yaml.Mark("", 0, before.count("\n"), len(before) - before.rfind("\n") - 1, None, 0)
        raise _Wrong("not_yaml", mark, f"character #x{ord(text[error.position]):04x} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        raise _Wrong("not_yaml", error.problem_mark, error.problem or "") from None
    except ValueError:
        # PyYAML leaves it to Python to refuse "\\U00110000" and version numbers of thousands of digits.
        raise _Wrong("not_yaml", loader.get_mark() if loader else None, "a number is out of range") from None
    finally:
        if loader is not None:
            loader.dispose()


def _place(file: str, mark: yaml.Mark | None, environ: Mapping[str, str] | None) -> Place:
    return Place(file) if mark is None or environ is None else Place(file, mark.line + 1, mark.column + 1)


class _Wrong(Exception):
    def __init__(self, code: str, mark: yaml.Mark | None, reason: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.mark = mark
        self.reason = shorten(reason)


class _Full(Exception):
    """A bound is reached and recorded; building on would only cost memory."""


class _Loader(yaml.SafeLoader):
    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _TAG + (_kind(value) if implicit[0] else "str")
        return _TAG + ("map" if kind is yaml.MappingNode else "seq")

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # The composer calls itself for every level: without a bound a line of brackets ends in a RecursionError.
        if self.depth > DEPTH:
            raise _Wrong("too_deep", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _short(tag: str) -> str:
    return shorten("!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag)


def _kind(text: str) -> str:
    return next((kind for kind, pattern in _SCALARS if pattern.fullmatch(text)), "str")


def _converted(kind: str, text: str) -> Scalar:
    """Raises ValueError when `text` is not what an explicit tag says."""
    match kind:
        case "str" | "merge":
            return text
        case "null":
            return None
        case "bool" if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float" if math.isfinite(number := float(text)):
            return number
        case _:
            raise ValueError(kind)


class _Builder:
    """Turns the nodes of one document into entries; aliases are expanded and counted."""

    def __init__(self, file: str, problems: Problems, environ: Mapping[str, str] | None) -> None:
        self._file = file
        self._problems = problems
        self._environ = environ
        self._left = ENTRIES

    def build(self, node: yaml.Node, named: Place | None, key: str, depth: int) -> Entry:
        place = self._place(node)
        self._count(place, key)
        if depth > DEPTH:
            self._problems.add(place, key, "too_deep", limit=DEPTH)
            raise _Full
        named = named or place
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place, named, key)
        if node.tag not in {_TAG + "map", _TAG + "seq"}:
            self._problems.add(place, key, "bad_tag", tag=_short(node.tag))
        if isinstance(node, yaml.MappingNode):
            return Entry(value=self._mapping(node, key, depth), place=place, named=named)
        items = [self.build(item, None, under(key, index), depth + 1) for index, item in enumerate(node.value)]
        return Entry(value=items, place=place, named=named)

    def _count(self, place: Place, key: str) -> None:
        self._left -= 1
        if self._left < 0:
            self._problems.add(place, key, "too_many", limit=ENTRIES)
            raise _Full

    def _place(self, node: yaml.Node) -> Place:
        return _place(self._file, node.start_mark, self._environ)

    def _mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merges: list[yaml.Node] = []
        for name_node, value_node in node.value:
            place = self._place(name_node)
            self._count(place, key)
            if not isinstance(name_node, yaml.ScalarNode):
                self._problems.add(place, key, "bad_key")
            elif name_node.tag == _TAG + "merge":
                merges += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            elif name_node.value in entries:
                first = entries[name_node.value].named
                self._problems.add(place, under(key, name_node.value), "duplicate_key", line=first.line)
            else:
                name = name_node.value
                entries[name] = self.build(value_node, place, under(key, name), depth + 1)
        for merge in merges:
            merged = self.build(merge, None, key, depth + 1).value
            if isinstance(merged, dict):
                entries = merged | entries
            else:
                self._problems.add(self._place(merge), key, "bad_merge")
        return entries

    def _scalar(self, node: yaml.ScalarNode, place: Place, named: Place, key: str) -> Entry:
        value: Scalar = node.value
        if len(node.value) > TEXT:
            self._problems.add(place, key, "too_long", limit=TEXT, count=len(node.value))
            return Entry(value="", place=place, named=named)
        try:
            value = _converted(node.tag.removeprefix(_TAG), node.value)
        except ValueError:
            self._problems.add(place, key, "bad_tag", tag=_short(node.tag))
        replaced = self._replace(value, place, key) if isinstance(value, str) else value
        is_open = node.style is None and replaced != value
        return Entry(value=replaced, place=place, named=named, text=shorten(node.value), open=is_open)

    def _replace(self, text: str, place: Place, key: str) -> str:
        environ = self._environ
        if environ is None or "${" not in text:
            return text

        def value_of(found: re.Match[str]) -> str:
            escaped, name = found[1], (found[2] or "").removesuffix("}")
            if escaped:
                return "${" + (found[2] or "")
            if not name:
                self._problems.add(place, key, "bad_variable")
            elif name not in environ:
                self._problems.add(place, key, "missing_variable", name=name)
            return environ.get(name, "")

        return _VARIABLE.sub(value_of, text)
