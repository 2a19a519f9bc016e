"""What the endpoints for slots, models and downloads stand on, and how they find the file that somebody names."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stellwerk.core.errors import BadRequest, Conflict, NotFound
from stellwerk.engines.downloads import Downloads
from stellwerk.engines.hub import Hub
from stellwerk.engines.load_line import WaitingLoad
from stellwerk.engines.machine_memory import MemoryStatus
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import EngineOptions, EngineOverrides
from stellwerk.engines.projectors import Projector, find_named
from stellwerk.engines.slot import SlotStatus

_TICK = 0.5
"""Seconds between two looks whether the gateway stops."""
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_ASYNCHRONOUS = re.compile(rb"(?:^|[,;])\s*respond-async\s*(?:[,;]|$)", re.IGNORECASE)


class Engines(Protocol):
    """What `Slots` offers to administrators."""

    def files(self) -> Mapping[str, ModelFile]: ...
    def broken(self) -> Mapping[str, str]: ...
    def projectors(self) -> Sequence[Projector]: ...
    def options(self, model: str) -> EngineOptions: ...
    def status(self) -> tuple[SlotStatus, ...]: ...
    def waiting(self) -> Sequence[WaitingLoad]: ...
    async def memory(self) -> MemoryStatus: ...
    async def load(
        self,
        model: str,
        *,
        port: int | None = None,
        overrides: EngineOverrides | None = None,
        wait_until: float | None = None,
    ) -> SlotStatus: ...
    async def unload(
        self, *, port: int | None = None, model: str | None = None, drain_seconds: float = 30.0
    ) -> SlotStatus | None: ...
    async def pin(self, model: str, pinned: bool) -> None: ...
    async def remove(self, model: str) -> None: ...
    async def rescan(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class LocalModels:
    """The models of this machine. `folder` is where their files lie."""

    engines: Engines
    downloads: Downloads
    hub: Hub
    folder: Path
    enabled: bool = True
    """Whether this gateway runs models of its own at all."""
    stopping: Callable[[], bool] = lambda: False
    wait_seconds: float = 600.0
    """For so long an answer waits for a load or a download; then both go on by themselves."""

    def check_enabled(self) -> None:
        """Raises Conflict."""
        if not self.enabled:
            raise Conflict("This gateway runs no models of its own: engines.enabled is false.", code="engines_disabled")

    async def find(self, path: str) -> str:
        """The id of the model in that file, named by its name or its whole path.

        Nothing is looked up on the disk but the models folder as a whole, so no other path is ever touched. Raises
        BadRequest for a file that lies elsewhere and NotFound.
        """
        name = self._name_in_folder(path)
        for _ in range(2):
            found = self._known(path, name)
            if found is not None:
                return found
            await self.engines.rescan()
        raise NotFound("The models folder has no such model.", code="model_not_found", param="model_path")

    def _known(self, path: str, name: str | None) -> str | None:
        """Files of the folder first, then those that the operator's configuration names elsewhere."""
        files = self.engines.files()
        for model, file in files.items():
            if name is not None and file.path == self.folder.absolute() / name:
                return model
        for model, file in files.items():
            if path in (str(file.path), file.path.name):
                return model
        stem = "" if name is None else _PART.sub("", Path(name).stem)
        return stem if stem in self.engines.broken() else None

    def _name_in_folder(self, path: str) -> str | None:
        """The file's name; None for a path that the configuration names. Raises BadRequest for any other."""
        if any(path == str(file.path) for file in self.engines.files().values()):
            return path.rpartition("/")[2] if Path(path).parent == self.folder.absolute() else None
        name = path.removeprefix(f"{self.folder.absolute()}/")
        if not name or "/" in name or "\\" in name or name in {".", ".."} or not name.isprintable():
            raise BadRequest(
                "Only files of the models folder can be named here, by their names.",
                code="outside_models_folder",
                param="model_path",
            )
        return name

    def find_projector(self, name: str) -> Path:
        """The path of a projector of the models folder. Raises BadRequest."""
        found = find_named(name, self.folder, self.engines.projectors())
        if found is None:
            raise BadRequest("The models folder has no such projector.", param="mmproj_path")
        return found.path

    async def find_idle_projector(self, path: str) -> Path | None:
        """The projector of the models folder that is named so, if one is. Raises Conflict while a model uses it."""
        if "mmproj" not in path.lower():
            return None
        await self.engines.rescan()
        found = find_named(path, self.folder, self.engines.projectors())
        if found is None:
            return None
        if any(slot.model is not None and slot.mmproj == found.path.name for slot in self.engines.status()):
            raise Conflict("A loaded model uses that projector; unload it first.", code="model_loaded")
        return found.path

    async def wait(self, task: "asyncio.Future[Any]", seconds: float | None = None) -> bool:
        """Whether `task` has ended within the time that an answer may take; it is left alone in any case."""
        left = self.wait_seconds if seconds is None else seconds
        while not task.done() and left > 0 and not self.stopping():
            await asyncio.wait({task}, timeout=min(_TICK, left))
            left -= _TICK
        return task.done()


def wants_no_wait(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a client asked for an answer before the work is done (RFC 7240)."""
    return _ASYNCHRONOUS.search(headers.get(b"prefer", b"")) is not None
