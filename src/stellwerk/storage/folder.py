"""The data folder: who may read it, and which process serves from it."""

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from stellwerk.storage.failures import FolderInUse, StorageRefused

LOCK_NAME = "gateway.lock"


def prepare_folder(folder: Path) -> None:
    """Creates a folder that only its owner may enter; one that exists already keeps its mode."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageRefused(f"The data folder {folder} cannot be created: {error.strerror}.") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StorageRefused(f"The data folder {folder} cannot be written.")


def write_private_file(path: Path, content: bytes, *, keep_existing: bool = False) -> None:
    """Writes a file that only its owner may read, whole or not at all, and waits until it is on the disk.

    With `keep_existing` a file that another process wrote first stays as it is.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_existing:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(fresh)
        else:
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes new and renamed entries of `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """Held by the one process that serves from a data folder. The kernel releases it when that process ends.

    Raises FolderInUse, naming the other process. Its descriptor is not inherited by programs that are started, so a
    child that outlives the gateway does not keep the folder locked.
    """

    def __init__(self, folder: Path, name: str = LOCK_NAME, *, wait: bool = False) -> None:
        self._descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            known = f"process {owner}" if owner.isdigit() else "another process"
            raise FolderInUse(
                f"The data folder {folder} is in use by {known}. Stop it, or choose another folder."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Gives the folder back; harmless when that has happened already."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
