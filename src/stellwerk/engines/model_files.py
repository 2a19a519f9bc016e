"""The models that can be loaded: the files of the models folder, the one that ships with the package, and those that
the operator named elsewhere."""

import contextlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from stellwerk.engines.foreign_models import ForeignModel, ModelFormat, read_foreign
from stellwerk.engines.gguf import FileStamp, GgufFacts, InvalidGguf, check_part, read_gguf, stamp_of
from stellwerk.engines.projectors import Projector

log = logging.getLogger("stellwerk.engines")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\.(?:gguf|bin)")
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})")
_MAX_FILES = 1_000
_LONGEST_NAME = 120
_LINK = "it is a link, and links are not followed: name its target in the configuration, as engines.models.NAME.path"
_ODD_NAME = (
    "its name has to be up to 120 letters, digits, dots, hyphens and underscores, begin with a letter or digit, and "
    "end with .gguf in small letters"
)
_PART_MISSING = "a part of it is missing"


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One model on disk."""

    id: str
    """The stem of the file name; of a split model without the part numbers."""
    path: Path
    facts: GgufFacts
    stamp: FileStamp
    size: int
    """Bytes, of a split model or a folder over all parts."""
    format: ModelFormat = "gguf"


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """What one scan found."""

    files: Mapping[str, ModelFile]
    broken: Mapping[str, str]
    """Model id to the reason why its file cannot be used."""
    projectors: tuple[Projector, ...] = ()
    """Faulty ones too: somebody may have named one."""


_Finding = GgufFacts | ForeignModel | str
"""What a path turned out to be, or why it cannot be used."""


class ModelFiles:
    """Scans the folder; reads a header again only when its file has changed.

    `named` models (by id) and `projectors` are those that the operator's configuration puts elsewhere; they may be
    links, and one file may have several ids. They come first, then `bundled` files, then those of the folder: the first
    with an id has it.
    """

    def __init__(
        self,
        folder: Path | None,
        bundled: tuple[Path, ...] = (),
        named: Mapping[str, Path] | None = None,
        projectors: Sequence[Path] = (),
    ) -> None:
        self.folder = folder
        # Package installers may link files into place, so these, unlike those of the folder, may be links.
        self._bundled = tuple(path.resolve() for path in bundled)
        self._named = {model: path.expanduser().resolve() for model, path in (named or {}).items()}
        self._projectors = tuple(path.expanduser().resolve() for path in projectors)
        self._known: dict[Path, tuple[FileStamp, _Finding]] = {}

    def scan(self) -> Shelf:
        """Blocks on the disk; one call at a time. A folder that does not exist is an empty one."""
        found = _Found()
        known: dict[Path, tuple[FileStamp, _Finding]] = {}
        candidates, passed_over = _look_into(self.folder)
        for path, stamp, model, size in self._look(candidates):
            if path not in known:
                known[path] = (stamp, self._read(path, stamp))
            found.add(path, stamp, model, size, known[path][1])
        self._known = known
        broken = {
            model: reason for model, reason in {**passed_over, **found.broken}.items() if model not in found.files
        }
        for model, path in self._named.items():
            if path not in known and model not in found.files:
                broken[model] = "its path in the configuration leads nowhere"
        return Shelf(files=found.files, broken=broken, projectors=tuple(found.projectors))

    def _look(self, candidates: Sequence[Path]) -> Iterator[tuple[Path, FileStamp, str, int]]:
        """Everything worth reading, the first of several with one id first; projectors have no id."""
        for model, path in self._named.items():
            for _, stamp in _present((path,)):
                part, size = _identity(path, stamp)
                if part is not None:
                    yield path, stamp, model, size
        for path, stamp in [*_regular(self._bundled), *_regular(candidates)]:
            identity, size = _identity(path, stamp)
            if identity is not None:
                yield path, stamp, "" if "mmproj" in path.name.lower() else identity, size
        for path, stamp in _regular(self._projectors):
            yield path, stamp, "", stamp.size

    def _read(self, path: Path, stamp: FileStamp) -> _Finding:
        """What a path is, or why it cannot be used."""
        earlier = self._known.get(path)
        if earlier is not None and earlier[0] == stamp:
            return earlier[1]
        try:
            return read_whole(path) if _is_gguf(path) else read_foreign(path)
        except InvalidGguf as error:
            log.warning("%s cannot be used: %s", path.name, error)
            return str(error)


def read_whole(path: Path) -> GgufFacts:
    """What a model says of itself once all of its parts have been checked. Blocks; raises as `read_gguf` does."""
    facts = read_gguf(path)[0]
    for part in _parts(path)[1:]:
        check_part(part)
    return facts


class _Found:
    """What a scan has put together so far."""

    def __init__(self) -> None:
        self.files: dict[str, ModelFile] = {}
        self.broken: dict[str, str] = {}
        self.projectors: list[Projector] = []

    def add(self, path: Path, stamp: FileStamp, model: str, size: int, finding: _Finding) -> None:
        if isinstance(finding, GgufFacts) and finding.projector is not None:
            projector = Projector(path=path, facts=finding.projector)
            if projector not in self.projectors:
                self.projectors.append(projector)
        elif isinstance(finding, str):
            self.broken[model or path.stem] = finding
        elif not model or model in self.files:
            return
        elif isinstance(finding, ForeignModel):
            self.files[model] = ModelFile(
                id=model, path=path, facts=finding.facts, stamp=stamp, size=finding.size, format=finding.format
            )
        elif finding.kind == "model":
            self.files[model] = ModelFile(id=model, path=path, facts=finding, stamp=stamp, size=size)


def _is_gguf(path: Path) -> bool:
    """A file may be called anything when the operator names it; its first bytes tell."""
    if path.suffix == ".gguf":
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.read(descriptor, 4) == b"GGUF"
    finally:
        os.close(descriptor)


def _look_into(folder: Path | None) -> tuple[list[Path], dict[str, str]]:
    """What one look finds: the files whose name is allowed, one level deep, sorted; the folder itself may be a link,
    its entries may not. And what `_passed_over` says of the others."""
    if folder is None:
        return [], {}
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:
        return [], {}
    # Of two files with one id the GGUF counts.
    names = sorted((entry.name for entry in entries if _NAME.fullmatch(entry.name)), key=_gguf_first)
    if len(names) > _MAX_FILES:
        log.warning("the models folder holds %d files; only the first %d are used", len(names), _MAX_FILES)
    return [folder.absolute() / name for name in names[:_MAX_FILES]], _passed_over(folder, entries)


def _passed_over(folder: Path, entries: Sequence["os.DirEntry[str]"]) -> dict[str, str]:
    """What somebody put into the folder as a model and no scan takes up: its name without the ending, and why."""
    reasons: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for entry in entries:
            stem, ending = os.path.splitext(entry.name)  # noqa: PTH122 - a path would be made of every entry
            if ending.lower() != ".gguf" or stem.startswith(".") or not stem.isprintable():
                continue
            reason = _reason_against(folder, entry)
            if reason is not None and len(reasons) < _MAX_FILES:
                reasons[_model_of(stem)[:_LONGEST_NAME]] = reason
    return dict(sorted(reasons.items()))


def _reason_against(folder: Path, entry: "os.DirEntry[str]") -> str | None:
    if entry.is_symlink():
        return _LINK
    if not entry.is_file(follow_symlinks=False):
        return None
    if _NAME.fullmatch(entry.name) is None:
        return _ODD_NAME
    part = _PART.fullmatch(entry.name.removesuffix(".gguf"))
    if part is None:
        return None
    if int(part["part"]) == 1:
        needed = _parts(folder / entry.name)
    else:
        # The first one looks after all the others.
        needed = [folder / f"{part['stem']}-00001-of-{part['count']}.gguf"]
    return None if all(path.exists() for path in needed) else _PART_MISSING


def _model_of(stem: str) -> str:
    part = _PART.fullmatch(stem)
    return stem if part is None else part["stem"]


def _gguf_first(name: str) -> tuple[bool, str]:
    return not name.endswith(".gguf"), name


def _regular(paths: Sequence[Path]) -> Iterator[tuple[Path, FileStamp]]:
    return _present(paths, stat.S_ISREG)


def _present(
    paths: Sequence[Path], wanted: Callable[[int], bool] = lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode)
) -> Iterator[tuple[Path, FileStamp]]:
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        if wanted(status.st_mode):
            yield path, stamp_of(status)


def _identity(path: Path, stamp: FileStamp) -> tuple[str | None, int]:
    """Public id and size in bytes; no id for the later parts of a split model and for one with a part missing."""
    part = _PART.fullmatch(path.stem)
    if part is None:
        return path.stem, stamp.size
    if int(part["part"]) != 1 or int(part["count"]) > _MAX_FILES:
        return None, 0
    try:
        return part["stem"], sum(one.lstat().st_size for one in _parts(path))
    except OSError:
        return None, 0


def _parts(path: Path) -> list[Path]:
    """The files of a model, the given one first; of a split model as many as the name of the first one says."""
    part = _PART.fullmatch(path.stem)
    if part is None or int(part["part"]) != 1 or int(part["count"]) > _MAX_FILES:
        return [path]
    count = int(part["count"])
    others = (f"{part['stem']}-{number:05}-of-{count:05}{path.suffix}" for number in range(2, count + 1))
    return [path, *(path.with_name(name) for name in others)]
