"""Whether the disk has room for what clients leave here: without any left nothing could be booked for anybody."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stellwerk.core.errors import Unavailable

LEAST_FREE: Final = 256 * 1024 * 1024
"""Bytes that jobs and files leave to everything else; on a small disk a twentieth of it is enough."""
_LEAST_SHARE = 20
_LOOK_SECONDS = 1.0


class Room:
    """Asks the system at most once a second."""

    def __init__(
        self,
        folder: Path,
        now: Callable[[], float],
        *,
        least: int = LEAST_FREE,
        usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
    ) -> None:
        """`now` is monotonic, `usage` the bytes of a disk: all, used and free."""
        self._folder = folder
        self._now = now
        self._least = least
        self._usage = usage
        self._looked = float("-inf")
        self._has_room = True

    def has_room(self) -> bool:
        """True also when the system does not say."""
        now = self._now()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            try:
                total, _, free = self._usage(self._folder)
                self._has_room = free >= min(self._least, total // _LEAST_SHARE)
            except OSError:
                self._has_room = True
        return self._has_room


def no_room() -> Unavailable:
    return Unavailable(
        "The gateway's disk is nearly full: jobs and files are not taken at the moment.",
        code="storage_full",
        retry_after=60.0,
    )
