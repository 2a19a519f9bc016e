"""The models folder while a download fills it: `<name>.part` until everything is whole. Everything here blocks."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from stellwerk.core.errors import Conflict, UpstreamBroken
from stellwerk.engines.download_list import StoredDownload, StoredFile
from stellwerk.engines.download_part import same_file
from stellwerk.engines.gguf import InvalidGguf, check_part, read_gguf
from stellwerk.engines.hub_files import ChosenFile, is_later_part


class InvalidModel(UpstreamBroken):
    """What came is as the hub announced, and no model that may be given to an engine."""

    code = "invalid_model"


class IncomingFiles:
    """Knows where the files of a download are. All methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def part(self, file: StoredFile) -> Path:
        return self.folder / f"{file.local}.part"

    def target(self, file: StoredFile) -> Path:
        return self.folder / file.local

    def completed(self, stored: StoredDownload) -> list[int]:
        """Bytes that are there, by file; what is checked is not asked for again."""
        counts = []
        for file in stored.files:
            part = _size(self.part(file))
            if part is None:
                file.verified = False
                whole = _size(self.target(file))
                counts.append(file.size if whole == file.size else 0)
            else:
                file.verified = file.verified and part == file.size
                counts.append(min(part, file.size))
        return counts

    def check_names(self, files: Iterable[ChosenFile]) -> None:
        """Raises Conflict when another file has one of the names, as far as its size tells."""
        for file in files:
            size = _size(self.folder / file.local)
            if size is not None and (size != file.size or file.sha256 is None):
                raise Conflict("Another file of that name is in the models folder; delete or rename it first.")

    def is_here(self, stored: StoredDownload) -> bool:
        return all(_size(self.target(file)) == file.size for file in stored.files)

    def is_same(self, file: StoredFile, wanted: Callable[[], bool]) -> bool:
        """Whether the file itself, not a partial one, is there already. Raises Conflict when it is another one."""
        return same_file(self.target(file), file.size, file.sha256, wanted)

    def remove_parts(self, stored: StoredDownload) -> None:
        for file in stored.files:
            self.part(file).unlink(missing_ok=True)
            file.etag, file.verified = None, False

    def check(self, file: StoredFile) -> None:
        """Raises InvalidModel when the header is not one that an engine may read."""
        try:
            if is_later_part(file.local):
                check_part(self.part(file))
            else:
                read_gguf(self.part(file))
        except InvalidGguf as error:
            raise InvalidModel(f"{file.local} cannot be used: {error}.") from None

    def install(self, stored: StoredDownload) -> None:
        """Gives every file its name, what makes the model appear last. Raises Conflict when a name is taken."""
        for file in reversed(stored.files):
            part = self.part(file)
            if _size(part) is None:
                continue
            if _size(self.target(file)) is not None:
                raise Conflict(f"A file called {file.local} has appeared in the models folder.")
            part.rename(self.target(file))
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(path: Path) -> int | None:
    """Bytes of a regular file; -1 of anything else, None when there is nothing."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_size if path.is_file() and not path.is_symlink() else -1
