"""Flags as Go programs take them: `-flag v`, `-flag=v`, `--flag v`; the first word that is no flag ends them."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stellwerk.cli.language import language

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})([eE][+-]?[0-9]{1,3})?", re.ASCII)


class Flag(msgspec.Struct, frozen=True):
    name: str
    kind: type[str | int | float | bool]
    """bool takes no value of its own: `-flag`, or `-flag=false`."""
    english: str
    german: str


class BadFlag(Exception):
    """The arguments cannot be read; `key` is a text of `cli.language`."""

    def __init__(self, key: str, **values: str) -> None:
        super().__init__(key, values)
        self.key = key
        self.values = values


def parse_flags(flags: Sequence[Flag], arguments: Sequence[str]) -> tuple[Mapping[str, Any], list[str]]:
    """The values of the flags that were given, the last one where one came twice, and the words after them.

    Raises BadFlag.
    """
    known = {flag.name: flag for flag in flags}
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        argument = rest.pop(0)
        if argument == "--":
            break
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise BadFlag("flags.malformed", argument=argument)
        flag = known.get(name)
        if flag is None:
            raise BadFlag("flags.unknown", name=name)
        if not equals and flag.kind is bool:
            value = "true"
        elif not equals:
            if not rest:
                raise BadFlag("flags.no_value", name=name)
            value = rest.pop(0)
        values[name] = _value(flag, value)
    return values, rest


def describe_flags(flags: Sequence[Flag]) -> str:
    """A line for each, in the language of the environment."""
    german = language(os.environ) == "de"
    names = [f"-{flag.name}" + ("" if flag.kind is bool else f" {_PLACEHOLDERS[flag.kind]}") for flag in flags]
    width = max(map(len, names))
    return "\n".join(
        f"  {name:{width}}  {flag.german if german else flag.english}" for name, flag in zip(names, flags, strict=True)
    )


_PLACEHOLDERS: Mapping[type, str] = {str: "TEXT", int: "N", float: "X"}


def _value(flag: Flag, text: str) -> str | int | float | bool:
    if flag.kind is bool and text in _TRUE | _FALSE:
        return text in _TRUE
    if flag.kind is int and _WHOLE.fullmatch(text):
        return int(text)
    if flag.kind is float and _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if flag.kind is str:
        return text
    raise BadFlag("flags.bad_value", name=flag.name, value=text)
