"""The config before it is checked: entries that know where they stand, and the problems found on the way."""

import re

import msgspec

from stellwerk.config.problems import ConfigError, ConfigProblem, Value

PROBLEMS = 100
"""The rest is dropped: nobody reads on, and a hostile file must not fill the memory."""

Scalar = bool | int | float | str | None


class Place(msgspec.Struct, frozen=True):
    """Where something stands; line and column from 1, or 0 in an environment variable."""

    file: str
    line: int = 0
    column: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    value: "Scalar | list[Entry] | dict[str, Entry]"
    place: Place
    named: Place
    """Place of the key that holds it; its own place in a list."""
    text: str = ""
    """A scalar as it was written, before `${NAME}` was replaced."""
    open: bool = False
    """Written without quotes, so that a replaced `${NAME}` may also be a number."""


class Problems:
    """Collects what is wrong, in the order in which it is found."""

    def __init__(self) -> None:
        self._found: list[ConfigProblem] = []

    def add(self, place: Place, key: str, code: str, **values: Value) -> None:
        if len(self._found) < PROBLEMS:
            self._found.append(
                ConfigProblem(file=place.file, line=place.line, column=place.column, key=key, code=code, values=values)
            )

    def stop_if_any(self) -> None:
        """Raises ConfigError with everything found, in the order of the file."""
        if self._found:
            raise ConfigError(
                sorted(self._found, key=lambda problem: (problem.line == 0, problem.line, problem.column))
            )


def under(key: str, name: str | int) -> str:
    """The dotted key one level down: `a`, `a.b`, `a[0]`, `a["b.c"]`."""
    if isinstance(name, int):
        return f"{key}[{name}]"
    if not re.fullmatch(r"[A-Za-z0-9_/-]{1,100}", name):
        return f'{key}["{shorten(name)}"]'
    return f"{key}.{name}" if key else name


def shorten(text: str) -> str:
    """One printable line of at most 60 characters."""
    line = "".join(character if character.isprintable() else "?" for character in text[:61])
    return line if len(line) <= 60 else line[:57] + "..."
