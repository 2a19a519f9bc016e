"""From a file and the environment to one `Config`, or to everything that is wrong with them."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from stellwerk.config import ai_gateway_file
from stellwerk.config.checking import Checker
from stellwerk.config.document import parse
from stellwerk.config.problems import ConfigError
from stellwerk.config.rules import breaches
from stellwerk.config.settings import Config
from stellwerk.config.tree import Entry, Place, Problems, under
from stellwerk.config.variables import overlay
from stellwerk.core.secrets import Secret

FILE_NAME = "stellwerk.yaml"
FILE_BYTES = 1 << 20
_CONFIG = msgspec.inspect.type_info(Config)
_FIXED = ("listen",)
"""Sections that are read once, when the gateway starts."""


class Reading(msgspec.Struct, frozen=True):
    config: Config
    origins: Mapping[str, Place]
    """Where each value that is set comes from, by its dotted key."""


def data_folder(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The folder for everything that Stellwerk keeps: `--data`, STELLWERK_DATA, or the platform's own place."""
    chosen = explicit or environ.get("STELLWERK_DATA") or platformdirs.user_data_dir("stellwerk", appauthor=False)
    return Path(chosen).expanduser()


def find(explicit: Path | None, environ: Mapping[str, str], data: Path) -> Path | None:
    """The config file: `--config`, STELLWERK_CONFIG, `./stellwerk.yaml`, then the data folder's; None without one.

    A file that was named is returned even when it does not exist, so that reading it says so.
    """
    named = explicit or environ.get("STELLWERK_CONFIG")
    if named:
        return Path(named).expanduser()
    return next((path for path in (Path(FILE_NAME), data / FILE_NAME) if path.is_file()), None)


def load(path: Path | None, environ: Mapping[str, str], vendors: Collection[str] | None = None) -> Config:
    """The settings of the file, none when `path` is None, with STELLWERK_* on top. Raises ConfigError.

    `vendors` are the names that `providers` may refer to; None leaves them unchecked.
    """
    return read(path, environ, vendors).config


def load_beside(path: Path | None, environ: Mapping[str, str]) -> Config:
    """As `load`, for a command beside a gateway, which may have variables that this process lacks.

    What needs such a variable has a value that means nothing: upstreams must not be asked with it. Raises ConfigError.
    """
    try:
        return load(path, _Beside(environ))
    except ConfigError:
        return load(path, environ)


class _Beside(Mapping[str, str]):
    """The environment; every name that is not in it has a value too, and is not listed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ.get(name, "unset")

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


def read(path: Path | None, environ: Mapping[str, str], vendors: Collection[str] | None = None) -> Reading:
    """The settings and where each of them comes from. Raises ConfigError with everything that is wrong."""
    problems = Problems()
    root = Place(str(path) if path else "")
    tree = Entry(value=None, place=root, named=root)
    if path is not None:
        tree = parse(_text(path, problems), str(path), problems, environ) or tree
    tree = overlay(tree, environ, _CONFIG, problems)
    values = Checker(_CONFIG, problems).check(tree, _CONFIG, "")
    problems.stop_if_any()
    config = _with_ai_gateway(msgspec.convert(values, Config, dec_hook=_secret), environ, problems)
    for breach in breaches(config, vendors):
        key = ""
        for name in breach.path:
            key = under(key, name)
        problems.add(_place(tree, breach.path), key, breach.code, **breach.values)
    problems.stop_if_any()
    return Reading(config, dict(_origins(tree, "")))


def _with_ai_gateway(config: Config, environ: Mapping[str, str], problems: Problems) -> Config:
    """With what AI Gateway's own config says, when its clients are served. Raises ConfigError."""
    file = ai_gateway_file.find(config)
    if file is None:
        return config
    return ai_gateway_file.apply(
        ai_gateway_file.parse_file(_text(file, problems), str(file), environ, problems), config
    )


def ai_gateway_notes(config: Config, environ: Mapping[str, str]) -> list[str]:
    """What AI Gateway's own config says and what has no effect here, each with its place. Raises ConfigError."""
    notes: list[str] = []
    file = ai_gateway_file.find(config)
    if file is not None:
        problems = Problems()
        ai_gateway_file.parse_file(_text(file, problems), str(file), environ, problems, notes)
    return notes


def restart_needed(old: Config, new: Config) -> list[str]:
    """Dotted keys that differ and that a running gateway cannot take over."""
    return [
        f"{section}.{key}"
        for section in _FIXED
        for key in getattr(new, section).__struct_fields__
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]


def _text(path: Path, problems: Problems) -> str:
    """The file's text; raises ConfigError when there is none to have."""
    place = Place(str(path))
    data = b""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        problems.add(place, "", "cannot_read", reason=reason or "no valid path")
    if len(data) > FILE_BYTES:
        problems.add(place, "", "file_too_large", limit=FILE_BYTES)
    problems.stop_if_any()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before) - before.rfind(b"\n")
        problems.add(Place(str(path), before.count(b"\n") + 1, column), "", "not_utf8")
        problems.stop_if_any()
        raise


def _secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        return Secret(value)
    raise NotImplementedError(kind)


def _place(tree: Entry, path: tuple[str | int, ...]) -> Place:
    """Place of the value at `path`, or of the last section on the way to it that is written down."""
    for name in path:
        if isinstance(tree.value, dict) and name in tree.value:
            tree = tree.value[str(name)]
        elif isinstance(tree.value, list) and isinstance(name, int) and name < len(tree.value):
            tree = tree.value[name]
        else:
            return tree.named
    return tree.named if isinstance(tree.value, dict) else tree.place


def _origins(tree: Entry, key: str) -> Iterator[tuple[str, Place]]:
    if isinstance(tree.value, dict):
        for name, child in tree.value.items():
            yield from _origins(child, under(key, name))
    else:
        yield key, tree.place
