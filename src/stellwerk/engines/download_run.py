"""Carries out one download: room on the disk, every file, their headers, and the model appears."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.core.secrets import Secret
from stellwerk.engines.blocking import in_thread
from stellwerk.engines.download import Entry
from stellwerk.engines.download_file import FileTransfer, TransferSettings, WrongContent
from stellwerk.engines.download_list import StoredFile
from stellwerk.engines.download_part import DiskFull, PartFile
from stellwerk.engines.download_request import FileRequest
from stellwerk.engines.hub_files import Source
from stellwerk.engines.incoming_files import IncomingFiles, InvalidModel
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings

_GB = 1_000_000_000


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    reserve_bytes: int = 512 << 20
    """Room on the disk that downloads leave to others."""
    connect_seconds: float = 10.0
    transfer: TransferSettings = TransferSettings()


class FileOrigin(Protocol):
    """Where the bytes of files are."""

    @property
    def token(self) -> Secret | None: ...

    def address(self, repo: str, revision: str, name: str) -> str: ...


class _Unwatched:
    def connected(self) -> None: ...

    def reused(self) -> None: ...


class DownloadRun:
    """Runs downloads, each in a task of its caller's."""

    def __init__(
        self,
        incoming: IncomingFiles,
        origins: Mapping[Source, FileOrigin],
        clock: Clock,
        settings: RunSettings,
        *,
        save: Callable[[], Awaitable[None]],
        free_bytes: Callable[[Path], int],
        claimed: Callable[[Entry], int],
    ) -> None:
        """`save` makes durable what is known of the downloads; `claimed` is what the other running ones still need."""
        self._incoming = incoming
        self._origins = origins
        self._clock = clock
        self._settings = settings
        self._save = save
        self._free_bytes = free_bytes
        self._claimed = claimed

    async def run(self, entry: Entry) -> None:
        """Returns when all files have their names. Raises GatewayError and OSError."""
        await self._prepare(entry)
        # Connections of its own: where a hub leads to is nothing that the rest of the gateway should remember.
        settings = UpstreamSettings(connect_seconds=self._settings.connect_seconds, connections=4, idle_connections=1)
        pools = Pools(settings, _Unwatched(), self._clock)
        try:
            for number, file in enumerate(entry.stored.files):
                await self._fetch(pools, entry, number, file)
        except (WrongContent, InvalidModel):
            await in_thread(self._incoming.remove_parts, entry.stored)
            entry.completed = await in_thread(self._incoming.completed, entry.stored)
            raise
        finally:
            pools.close()
        entry.turn("verifying")
        entry.tell()
        await in_thread(self._incoming.install, entry.stored)

    async def _prepare(self, entry: Entry) -> None:
        """Makes the folder, looks what is there, and whether the rest fits."""
        folder = self._incoming.folder
        await in_thread(lambda: folder.mkdir(parents=True, exist_ok=True))
        entry.completed = await in_thread(self._incoming.completed, entry.stored)
        needed = entry.left + self._claimed(entry) + self._settings.reserve_bytes
        free = await in_thread(self._free_bytes, folder)
        if entry.left and free < needed:
            raise DiskFull(
                f"The disk of the models folder has {free / _GB:.2f} GB left, but {needed / _GB:.2f} GB are needed "
                f"({self._settings.reserve_bytes / _GB:.2f} GB of them stay free)."
            )

    async def _fetch(self, pools: Pools, entry: Entry, number: int, file: StoredFile) -> None:
        """Leaves a file whose content is checked: the partial one, or the one that was there already."""

        def progress(completed: int) -> None:
            entry.progress(number, completed, self._clock.monotonic())

        async def identify(etag: str) -> None:
            file.etag = etag
            await self._save()

        if await self._is_here(file):
            progress(file.size)
            return
        if not file.verified:
            stored = entry.stored
            origin = self._origins.get(stored.source)
            if origin is None:
                raise Unavailable("Nobody here knows any more where this model comes from.")
            url = origin.address(stored.repo, stored.revision, file.name)
            await FileTransfer(
                FileRequest(pools, url, origin.token),
                PartFile(self._incoming.part(file), self._settings.transfer.sync_bytes),
                size=file.size,
                sha256=file.sha256,
                etag=file.etag,
                identify=identify,
                progress=progress,
                settings=self._settings.transfer,
            ).run()
        await in_thread(self._incoming.check, file)
        if not file.verified:
            file.verified = True
            await self._save()

    async def _is_here(self, file: StoredFile) -> bool:
        """Reads a file that has the name already; reading stops soon when nobody waits for it any more."""
        wanted = [True]
        try:
            return await in_thread(self._incoming.is_same, file, lambda: bool(wanted))
        except asyncio.CancelledError:
            wanted.clear()
            raise
