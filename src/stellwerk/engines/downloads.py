"""Models on their way from the hub into the models folder: a bounded list that survives restarts and kill -9."""

import asyncio
import logging
import secrets
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Conflict, GatewayError, NotFound, Unavailable
from stellwerk.engines.blocking import in_thread
from stellwerk.engines.download import FINAL, Download, DownloadFile, Entry
from stellwerk.engines.download_file import TransferSettings
from stellwerk.engines.download_list import DownloadList, State, StoredDownload, StoredFile, encode
from stellwerk.engines.download_part import trouble
from stellwerk.engines.download_run import DownloadRun, FileOrigin, RunSettings
from stellwerk.engines.hub import Hub
from stellwerk.engines.hub_files import Choice
from stellwerk.engines.incoming_files import IncomingFiles
from stellwerk.engines.ollama_registry import is_library_name, parse_library_name

__all__ = ["Download", "DownloadFile", "DownloadSettings", "Downloads", "RunSettings", "TransferSettings"]

log = logging.getLogger("stellwerk.engines")

_T = TypeVar("_T")

LIST_NAME = ".downloads.json"


class DownloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    parallel: int = 2
    most: int = 200
    """Downloads in the list; the oldest finished ones leave it first."""
    run: RunSettings = RunSettings()


class Registry(FileOrigin, Protocol):
    """Where the models of Ollama's library are."""

    async def choose(self, name: str) -> Choice: ...


async def _nothing(_: Download) -> None: ...


class Downloads:
    """Owns all downloads; lives on one event loop, from `start` to `stop`.

    The models folder is made when it is first needed. A model appears in it only when all its files are whole: the
    bytes gather in `<name>.part`.
    """

    def __init__(
        self,
        folder: Path,
        hub: Hub,
        clock: Clock,
        *,
        settings: DownloadSettings | None = None,
        registry: Registry | None = None,
        on_done: Callable[[Download], Awaitable[None]] = _nothing,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """`registry` is where the models of Ollama's library are: without one their names are taken for a hub's.
        `on_done` is awaited before a download is called done,
        so that its model is known by then."""
        self._folder = folder
        self._hub = hub
        self._registry = registry
        self._clock = clock
        self._settings = settings or DownloadSettings()
        self._on_done = on_done
        self._incoming = IncomingFiles(folder)
        self._list = DownloadList(folder / LIST_NAME)
        self._entries: dict[str, Entry] = {}
        self._saving = asyncio.Lock()
        self._stopped = False
        self._work = DownloadRun(
            self._incoming,
            {"hub": hub} if registry is None else {"hub": hub, "ollama": registry},
            clock,
            self._settings.run,
            save=self._save,
            free_bytes=free_bytes,
            claimed=self._claimed,
        )

    async def start(self) -> None:
        """Takes over what an earlier process left: paused ones stay paused, all other open ones go on."""
        await self.read()
        for entry in self._entries.values():
            if entry.open and entry.stored.state != "paused":
                entry.stored.state = "queued"
        self._start_next()

    async def read(self) -> None:
        """In place of `start`: only what is asked for from now on is fetched, the others wait for a later start."""
        for stored in (await in_thread(self._list.read))[-self._settings.most :]:
            entry = Entry(stored)
            self._entries[stored.id] = entry
            if entry.open:
                with suppress(GatewayError):  # it will fail with this reason when it runs
                    entry.completed = await _look(self._incoming.completed, stored)
                if stored.state == "queued":
                    stored.state = "running"
            elif stored.state == "done":
                entry.completed = [file.size for file in stored.files]

    async def stop(self) -> None:
        """Breaks off what runs; a later start goes on with it. Followers end."""
        self._stopped = True
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for entry in self._entries.values():
            entry.tell()

    # --- what people ask for

    def repository(self, reference: str, file: str | None = None) -> str:
        """Where `reference` would come from, without asking anybody. Raises BadRequest."""
        if self._registry_of(reference, file) is not None:
            return parse_library_name(reference).repo
        return self._hub.reference(reference, file).repo

    async def add(self, reference: str, file: str | None = None) -> Download:
        """Begins to fetch the model that `reference` names; the same model twice is the same download.

        Raises what `Hub.choose` raises, Conflict when another file has its name, Unavailable when the list is full.
        """
        registry = self._registry_of(reference, file)
        if registry is None:
            return await self._add(reference, await self._hub.choose(reference, file))
        return await self._add(reference, await registry.choose(reference))

    def _registry_of(self, reference: str, file: str | None) -> Registry | None:
        return self._registry if file is None and is_library_name(reference) else None

    async def _add(self, reference: str, choice: Choice) -> Download:
        await _look(self._incoming.check_names, choice.files)
        known = self._find(choice)
        if known is not None:
            async with known.order:
                if known.task is not None or known.stored.state == "queued":
                    return known.snapshot()
                if known.stored.state == "done" and await _look(self._incoming.is_here, known.stored):
                    return known.snapshot()
                await self._queue(known)
                return known.snapshot()
        entry = Entry(self._new(reference, choice))
        self._make_room(entry.stored)
        self._entries[entry.stored.id] = entry
        await self._save()
        self._start_next()
        return entry.snapshot()

    def list(self) -> list[Download]:
        """The newest first."""
        return [entry.snapshot() for entry in reversed(self._entries.values())]

    def get(self, download_id: str) -> Download:
        """Raises NotFound."""
        return self._entry(download_id).snapshot()

    async def pause(self, download_id: str) -> Download:
        """Keeps what is there. Raises NotFound, and Conflict when the download is over."""
        entry = self._entry(download_id)
        async with entry.order:
            await _break_off(entry)
            if not entry.open:
                raise Conflict("That download is over.")
            await self._turn(entry, "paused")
        return entry.snapshot()

    async def resume(self, download_id: str) -> Download:
        """Goes on with a paused, failed or cancelled one; any other stays as it is. Raises NotFound."""
        entry = self._entry(download_id)
        async with entry.order:
            if entry.stored.state in {"paused", "failed", "cancelled"}:
                await self._queue(entry)
        return entry.snapshot()

    async def cancel(self, download_id: str) -> Download:
        """Gives it up and removes its partial files. Raises NotFound, and Conflict when it is done."""
        entry = self._entry(download_id)
        async with entry.order:
            await _break_off(entry)
            if entry.stored.state == "done":
                raise Conflict("That download is done; delete the model instead.")
            await self._remove_parts(entry)
            await self._turn(entry, "cancelled")
        return entry.snapshot()

    async def forget(self, download_id: str) -> None:
        """Takes a finished one off the list, with what is left of a failed one. Raises NotFound and Conflict."""
        entry = self._entry(download_id)
        async with entry.order:
            if entry.open:
                raise Conflict("That download is not over; cancel it first.")
            await self._remove_parts(entry)
            self._entries.pop(download_id, None)
            await self._save()

    def follow(self, download_id: str) -> AsyncGenerator[Download, None]:
        """The download as it stands, then at each change of state and some five times a second; ends with the last.

        Raises NotFound.
        """
        return self._follow(self._entry(download_id))

    async def _follow(self, entry: Entry) -> AsyncGenerator[Download, None]:
        while True:
            changed = entry.changed
            yield entry.snapshot()
            if not entry.open or self._stopped:
                return
            await changed.wait()

    # --- the list

    def _entry(self, download_id: str) -> Entry:
        entry = self._entries.get(download_id)
        if entry is None:
            raise NotFound("There is no such download.", code="download_not_found")
        return entry

    def _find(self, choice: Choice) -> Entry | None:
        """The download of the same files. Raises Conflict when an open one will make a file of the same name."""
        names = [file.local for file in choice.files]
        for entry in self._entries.values():
            stored = entry.stored
            same = (stored.source, stored.repo) == (choice.source, choice.repo)
            if same and [file.local for file in stored.files] == names:
                if entry.open or stored.revision == choice.revision:
                    return entry
            elif entry.open:
                for ours in choice.files:
                    for theirs in stored.files:
                        if ours.local == theirs.local and (ours.sha256 is None or ours.sha256 != theirs.sha256):
                            raise Conflict("Another download is making a file of that name.")
        return None

    def _new(self, reference: str, choice: Choice) -> StoredDownload:
        return StoredDownload(
            id=secrets.token_hex(8),
            reference=reference,
            repo=choice.repo,
            revision=choice.revision,
            model_id=choice.model_id,
            files=[
                StoredFile(name=file.name, local=file.local, size=file.size, sha256=file.sha256, kind=file.kind)
                for file in choice.files
            ],
            started=self._clock.now(),
            source=choice.source,
        )

    def _make_room(self, coming: StoredDownload) -> None:
        """Drops the oldest finished one when the list is full, and all earlier ones of the same model."""
        for entry in [entry for entry in self._entries.values() if not entry.open]:
            same = entry.stored.repo == coming.repo and entry.stored.model_id == coming.model_id
            if same or len(self._entries) >= self._settings.most:
                del self._entries[entry.stored.id]
        if len(self._entries) >= self._settings.most:
            raise Unavailable("Too many downloads are waiting; let some end or cancel them.", retry_after=60)

    async def _queue(self, entry: Entry) -> None:
        entry.stored.error = entry.stored.error_code = entry.stored.finished = None
        entry.completed = await _look(self._incoming.completed, entry.stored)
        await self._turn(entry, "queued")
        self._start_next()

    async def _turn(self, entry: Entry, state: State) -> None:
        """Changes the state: first on the disk, then for those who wait for it."""
        if state in FINAL:
            entry.stored.finished = self._clock.now()
        entry.turn(state)
        try:
            await self._save()
        finally:
            entry.tell()

    async def _remove_parts(self, entry: Entry) -> None:
        await _look(self._incoming.remove_parts, entry.stored)
        entry.completed = await _look(self._incoming.completed, entry.stored)

    async def _save(self) -> None:
        async with self._saving:
            data = encode([entry.stored for entry in self._entries.values()])
            try:
                await in_thread(self._write, data)
            except OSError as error:
                # A full disk must not keep anybody from cancelling what fills it.
                log.warning("the list of downloads cannot be written: %s", error.strerror)

    def _write(self, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._list.write(data)

    # --- work

    def _running(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self._entries.values() if entry.task is not None)

    def _claimed(self, asking: Entry) -> int:
        return sum(entry.left for entry in self._running() if entry is not asking)

    def _start_next(self) -> None:
        for entry in self._entries.values():
            running = self._running()
            if self._stopped or len(running) >= self._settings.parallel:
                return
            if entry.stored.state != "queued" or entry.task is not None:
                continue
            # Two quantisations of a model share their projector: the second finds it when the first is done.
            if any(_names(entry) & _names(other) for other in running):
                continue
            entry.turn("running")
            entry.tell()
            entry.task = asyncio.create_task(self._run(entry), name=f"download {entry.stored.id}")
            entry.task.add_done_callback(partial(self._ended, entry))

    def _ended(self, entry: Entry, _: asyncio.Task[None]) -> None:
        entry.task = None
        self._start_next()

    async def _run(self, entry: Entry) -> None:
        try:
            await self._save()
            await self._work.run(entry)
            await self._announce(entry)
            await self._turn(entry, "done")
        except (GatewayError, OSError) as error:
            failure = trouble(error) if isinstance(error, OSError) else error
            log.warning("download of %s failed: %s", entry.stored.model_id, failure.message)
            entry.stored.error, entry.stored.error_code = failure.message, failure.code
            await self._turn(entry, "failed")
        except Exception:  # the other downloads must outlive what nobody foresaw in this one
            log.exception("download of %s failed", entry.stored.model_id)
            entry.stored.error = "The download failed for an internal reason."
            await self._turn(entry, "failed")

    async def _announce(self, entry: Entry) -> None:
        try:
            await self._on_done(entry.snapshot())
        except Exception:  # the files are in place; who listens must not undo that
            log.exception("nobody could be told that %s is here", entry.stored.model_id)


async def _look(work: Callable[..., _T], *arguments: object) -> _T:
    try:
        return await in_thread(work, *arguments)
    except OSError as error:
        raise trouble(error) from None


def _names(entry: Entry) -> set[str]:
    return {file.local for file in entry.stored.files}


async def _break_off(entry: Entry) -> None:
    """Ends the work on a download, if there is any; what state it is in then is to be looked at anew."""
    task = entry.task
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
