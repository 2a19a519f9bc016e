"""Deletes and copies the files of a model in the models folder. Everything here blocks."""

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from stellwerk.core.errors import BadRequest, Conflict, Unavailable
from stellwerk.engines.model_files import ModelFile

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FIRST_PART = re.compile(r"(?P<stem>.+)-00001-of-(?P<count>\d{5})")


def check_inside(file: ModelFile, folder: Path | None) -> None:
    """Raises Conflict for what does not lie in the folder."""
    if folder is None or file.path.parent != folder.absolute():
        raise _protected(file.id)


def remove_model(file: ModelFile, folder: Path | None) -> None:
    """Raises Conflict for what does not lie in the folder."""
    _unlink(_parts(file, folder), file.id)


def remove_unusable(model: str, folder: Path | None) -> None:
    """Deletes what has the name of a model and cannot be read as one. Raises Conflict when there is no such file."""
    wanted = re.compile(rf"{re.escape(model)}(?:-\d{{5}}-of-\d{{5}})?\.(?:gguf|bin)")
    there = folder.absolute().iterdir() if folder is not None and folder.is_dir() else ()
    found = sorted(path for path in there if wanted.fullmatch(path.name))
    if not found:
        raise _protected(model)
    _unlink(found, model)


def _unlink(paths: Sequence[Path], model: str) -> None:
    # The first part goes first: without it the others are no model any more.
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Conflict(f"The model '{model}' cannot be deleted: {error.strerror}.") from None


def _protected(model: str) -> Conflict:
    return Conflict(f"The model '{model}' does not lie in the models folder.", code="model_protected")


def copy_model(file: ModelFile, name: str, folder: Path | None) -> None:
    """The same files under another name, without taking more room where the disk can do that.

    Raises BadRequest for a name that no model may have, Conflict and Unavailable.
    """
    if not _NAME.fullmatch(name) or "mmproj" in name.lower() or _FIRST_PART.fullmatch(name):
        raise BadRequest(
            "A model's name has up to 100 letters, digits, dots, hyphens and underscores, and begins with a letter or "
            "digit.",
            param="name",
        )
    made: list[Path] = []
    try:
        # The first part comes last: with it the model is there.
        for path in reversed(_parts(file, folder)):
            target = path.with_name(name + path.name.removeprefix(file.id))
            _link(path, target)
            made.append(target)
    except FileExistsError:
        _undo(made)
        raise Conflict(f"There is a model '{name}' already.", code="model_exists") from None
    except OSError as error:
        _undo(made)
        raise Unavailable(f"The model '{file.id}' cannot be copied: {error.strerror}.", code="storage_failed") from None


def _parts(file: ModelFile, folder: Path | None) -> list[Path]:
    check_inside(file, folder)
    path = file.path
    first = _FIRST_PART.fullmatch(path.stem)
    if first is None:
        return [path]
    count = int(first["count"])
    return [path.with_name(f"{first['stem']}-{number:05}-of-{count:05}{path.suffix}") for number in range(1, count + 1)]


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links on this disk.
        if target.exists():
            raise FileExistsError from None
        fresh = target.with_name(f".{target.name}.copy")
        try:
            shutil.copyfile(path, fresh)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)


def _undo(made: list[Path]) -> None:
    for path in made:
        with contextlib.suppress(OSError):
            path.unlink()
