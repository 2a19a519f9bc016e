"""The downloads as they stand on disk: what is to be fetched and how far the decisions, not the bytes, have come.

How many bytes are there is asked of the partial files themselves, so that a killed process can promise nothing wrong.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from stellwerk.engines.hub_files import Kind, Source, is_local_name

log = logging.getLogger("stellwerk.engines")

State = Literal["queued", "running", "paused", "verifying", "done", "failed", "cancelled"]

_MOST_BYTES = 16 << 20


class StoredFile(msgspec.Struct, kw_only=True):
    """One file of a download."""

    name: str
    local: str
    size: int
    sha256: str | None
    kind: Kind
    etag: str | None = None
    """What the hub called the content of the partial file; None when nothing of it has come."""
    verified: bool = False
    """The partial file is complete, on the disk and has the right checksum."""


class StoredDownload(msgspec.Struct, kw_only=True):
    """One download; changed in place by `Downloads` alone."""

    id: str
    reference: str
    repo: str
    revision: str
    model_id: str
    files: list[StoredFile]
    state: State = "queued"
    error: str | None = None
    error_code: str | None = None
    """Which kind of failure it was."""
    started: float
    finished: float | None = None
    source: Source = "hub"


class DownloadList:
    """A small JSON file; written whole, then renamed into place. Blocks on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[StoredDownload]:
        """Nothing when there is no list; a list that cannot be read is put aside."""
        try:
            return self._decoded()
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, OSError) as error:
            log.warning("the list of downloads cannot be read and begins anew: %s", type(error).__name__)
            with suppress(OSError):
                self._path.replace(self._path.with_suffix(".unreadable"))
            return []

    def _decoded(self) -> list[StoredDownload]:
        with self._path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise msgspec.DecodeError("too large")
        downloads = msgspec.json.decode(data, type=list[StoredDownload])
        # Who may write into the folder must not thereby choose what is written elsewhere.
        if not all(is_local_name(file.local) for stored in downloads for file in stored.files):
            raise msgspec.DecodeError("a name that is none")
        return downloads

    def write(self, data: bytes) -> None:
        """Raises OSError; the earlier list stays then."""
        new = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def encode(downloads: list[StoredDownload]) -> bytes:
    return msgspec.json.encode(downloads)
