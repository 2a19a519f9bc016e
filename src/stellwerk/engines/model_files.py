"""The GGUF files that can be loaded: those of the models folder and the one that ships with the package."""

import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from stellwerk.engines.gguf import FileStamp, GgufFacts, InvalidGguf, read_gguf, stamp_of

log = logging.getLogger("stellwerk.engines")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\.gguf")
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})")
_MAX_FILES = 1_000


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One model on disk."""

    id: str
    """The stem of the file name; of a split model without the part numbers."""
    path: Path
    facts: GgufFacts
    stamp: FileStamp
    size: int
    """Bytes, of a split model over all parts."""


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """What one scan found."""

    files: Mapping[str, ModelFile]
    broken: Mapping[str, str]
    """Model id to the reason why its file cannot be used."""


class ModelFiles:
    """Scans the folder; reads a header again only when its file has changed.

    `bundled` files are listed first, their ids cannot be taken by a file of the folder.
    """

    def __init__(self, folder: Path | None, bundled: tuple[Path, ...] = ()) -> None:
        self._folder = folder
        # Package installers may link files into place, so these, unlike those of the folder, may be links.
        self._bundled = tuple(path.resolve() for path in bundled)
        self._known: dict[Path, tuple[FileStamp, GgufFacts | str]] = {}

    def scan(self) -> Shelf:
        """Blocks on the disk; one call at a time. A folder that does not exist is an empty one."""
        files: dict[str, ModelFile] = {}
        broken: dict[str, str] = {}
        known: dict[Path, tuple[FileStamp, GgufFacts | str]] = {}
        for path, stamp in [*_regular(self._bundled), *_regular(_candidates(self._folder))]:
            model, size = _identity(path, stamp)
            if model is None or model in files:
                continue
            facts = self._facts(path, stamp)
            known[path] = (stamp, facts)
            if isinstance(facts, str):
                broken[model] = facts
            elif facts.kind == "model" and not facts.ranks:
                files[model] = ModelFile(id=model, path=path, facts=facts, stamp=stamp, size=size)
        self._known = known
        return Shelf(files=files, broken={model: reason for model, reason in broken.items() if model not in files})

    def _facts(self, path: Path, stamp: FileStamp) -> GgufFacts | str:
        """The facts of a header, or why it has none."""
        earlier = self._known.get(path)
        if earlier is not None and earlier[0] == stamp:
            return earlier[1]
        try:
            return read_gguf(path)[0]
        except InvalidGguf as error:
            log.warning("%s cannot be used: %s", path.name, error)
            return str(error)


def _candidates(folder: Path | None) -> list[Path]:
    """Files whose name is allowed, one level deep, sorted; the folder itself may be a link, its entries may not."""
    if folder is None:
        return []
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))
    except OSError:
        return []
    if len(names) > _MAX_FILES:
        log.warning("the models folder holds %d files; only the first %d are used", len(names), _MAX_FILES)
    return [folder.absolute() / name for name in names[:_MAX_FILES] if not name.lower().startswith("mmproj")]


def _regular(paths: tuple[Path, ...] | list[Path]) -> Iterator[tuple[Path, FileStamp]]:
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, stamp_of(status)


def _identity(path: Path, stamp: FileStamp) -> tuple[str | None, int]:
    """Public id and size in bytes; no id for the later parts of a split model and for one with a part missing."""
    part = _PART.fullmatch(path.stem)
    if part is None:
        return path.stem, stamp.size
    stem, count = part["stem"], int(part["count"])
    if int(part["part"]) != 1 or count > _MAX_FILES:
        return None, 0
    try:
        return stem, sum(
            path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf").lstat().st_size for number in range(1, count + 1)
        )
    except OSError:
        return None, 0
