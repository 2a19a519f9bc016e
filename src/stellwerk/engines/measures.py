"""What models needed when they were last loaded, by file and options: a better word than any estimate."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from stellwerk.engines.blocking import in_thread
from stellwerk.engines.memory import correct, estimate
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import EngineOptions
from stellwerk.engines.placements import Keeper, read_state
from stellwerk.engines.supervisor import Supervisor

_FILE = "memory.json"
_MOST = 1_000
_SILENT = {"notes": (), "fault": None, "pinned": False, "keep_alive_seconds": None, "load_seconds": 0.0}
"""Options that have nothing to do with memory."""


class Measures:
    """Remembers the last `_MOST` of them, over restarts too."""

    def __init__(self, folder: Path | None, measure: Callable[[Supervisor], float | None]) -> None:
        """`measure` says how many MiB an engine holds, None when nobody can tell."""
        self._folder = folder
        self._known: dict[str, float] = {}
        self._keeper = Keeper(folder, _FILE)
        self._measure = measure

    async def read(self) -> None:
        self._known = await in_thread(self._read)

    def _read(self) -> dict[str, float]:
        return read_state(self._folder, _FILE, dict[str, float]) or {}

    async def flush(self) -> None:
        """Returns when everything is on the disk, or cannot be."""
        await self._keeper.flush()

    def need(self, file: ModelFile, options: EngineOptions, bound: float | None = None) -> float:
        """MiB that the model will take. With `bound`, never more than that only because a measurement said so:
        mapped files count there, and could be dropped."""
        measured = self._known.get(_key(file, options))
        if measured is not None and (bound is None or measured <= bound):
            return measured
        projector = options.mmproj
        return estimate(file, options, _size(projector) if projector is not None else 0).total

    def note(self, file: ModelFile, options: EngineOptions, supervisor: Supervisor) -> float:
        """Measures a loaded engine now and returns what to count with."""
        seen = self._measure(supervisor)
        if seen is None:
            return self.need(file, options)
        needed = correct(seen, file, options)
        key = _key(file, options)
        self._known.pop(key, None)
        self._known[key] = round(needed, 1)
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        self._keeper.keep(self._known)
        return needed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _key(file: ModelFile, options: EngineOptions) -> str:
    said = msgspec.json.encode(msgspec.structs.replace(options, **_SILENT), enc_hook=str, order="deterministic")
    stamp = f"{file.stamp.size}-{file.stamp.modified}"
    return f"{file.id} {stamp} {hashlib.sha256(said).hexdigest()[:16]}"
