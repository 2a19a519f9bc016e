"""What is loaded where, kept on the disk: a restarted gateway has it again, whether or not it was stopped cleanly."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from stellwerk.engines.blocking import in_thread
from stellwerk.engines.options import EngineOverrides
from stellwerk.storage.folder import write_private_file

log = logging.getLogger("stellwerk.engines")

_FILE = "placements.json"
_MOST_BYTES = 4 << 20
_MOST_MODELS = 1_000
_T = TypeVar("_T")
_V = TypeVar("_V")


class Placements(msgspec.Struct, frozen=True, kw_only=True):
    """`placements.json`."""

    ports: Mapping[int, str] = msgspec.field(default_factory=dict)
    """Which model is loaded at which port."""
    overrides: Mapping[str, EngineOverrides] = msgspec.field(default_factory=dict)
    """How whoever loaded a model wanted it, by model; it stays when the model is unloaded."""
    pinned: Mapping[str, bool] = msgspec.field(default_factory=dict)
    """Models that somebody pinned or let go while the gateway ran."""
    dismissed: tuple[str, ...] = ()
    """Models that somebody unloaded; they are not loaded at the start only because they come with the package."""


def read_placements(folder: Path | None) -> Placements:
    """Blocks. A file that cannot be read is an empty one, and is told of."""
    return read_state(folder, _FILE, Placements) or Placements()


def read_state(folder: Path | None, name: str, kind: type[_T]) -> _T | None:
    """What a Keeper has written; None when there is nothing that could be read. Blocks."""
    if folder is None:
        return None
    try:
        with (folder / name).open("rb") as file:
            return msgspec.json.decode(file.read(_MOST_BYTES), type=kind, dec_hook=_decode)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read and counts as empty: %s", name, error)
        return None


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError


class Keeper:
    """Writes one JSON file in the background, at most one state behind the newest; the last one is never lost."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder = folder
        self._name = name
        self._newest: bytes | None = None
        self._written: bytes | None = None
        self._writing: asyncio.Task[None] | None = None

    def keep(self, state: object) -> None:
        """Returns at once. Trouble with the disk is logged: what runs goes on without being remembered."""
        if self._folder is None:
            return
        encoded = msgspec.json.format(msgspec.json.encode(state, enc_hook=str), indent=1)
        if encoded == self._newest:
            return
        self._newest = encoded
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name=f"keep {self._name}")

    async def flush(self) -> None:
        """Returns when the newest state is on the disk, or cannot be."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write(self) -> None:
        try:
            while self._newest is not None and self._newest != self._written:
                state = self._newest
                await in_thread(self._store, state)
                self._written = state
        finally:
            self._writing = None

    def _store(self, state: bytes) -> None:
        assert self._folder is not None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private_file(self._folder / self._name, state)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._name, error.strerror)


class PlacementBook:
    """Owns what is remembered of models over restarts, but for how they are wanted."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._keeper = Keeper(folder, _FILE)
        self.to_restore: dict[int, str] = {}
        """Of what was loaded before the restart, the part that has not been tried yet."""
        self.pinned: dict[str, bool] = {}
        self.dismissed: set[str] = set()

    async def read(self) -> Mapping[str, EngineOverrides]:
        """How models are wanted, by id."""
        placements = await in_thread(read_placements, self._folder)
        self.to_restore = dict(placements.ports)
        self.pinned = dict(placements.pinned)
        self.dismissed = set(placements.dismissed)
        return placements.overrides

    def is_pinned(self, model: str, configured: bool) -> bool:
        return self.pinned.get(model, configured)

    def keep(self, ports: Mapping[int, str], overrides: Mapping[str, EngineOverrides]) -> None:
        """Remembers what is loaded now. Returns at once."""
        waiting = {port: model for port, model in self.to_restore.items() if model not in ports.values()}
        self._keeper.keep(
            Placements(
                ports=dict(sorted({**waiting, **ports}.items())),
                overrides=_newest(overrides),
                pinned=_newest(self.pinned),
                dismissed=tuple(sorted(self.dismissed)),
            )
        )

    async def flush(self) -> None:
        """Returns when it is on the disk, or cannot be."""
        await self._keeper.flush()


def _newest(known: Mapping[str, _V]) -> dict[str, _V]:
    return dict(list(known.items())[-_MOST_MODELS:])


def restore_order(
    ports: Mapping[int, str], pinned: Mapping[str, bool], preload: Sequence[str]
) -> list[tuple[str, int | None]]:
    """Models to load at the start, in their order, with the port that each had: pinned ones first, what comes with
    the package last."""
    placed = [(model, port) for port, model in sorted(ports.items())]
    known = set(ports.values())
    first = [(model, port) for model, port in placed if pinned.get(model)]
    return [
        *first,
        *((model, None) for model, wanted in sorted(pinned.items()) if wanted and model not in known),
        *((model, port) for model, port in placed if not pinned.get(model)),
        *((model, None) for model in preload if model not in known and not pinned.get(model)),
    ]
