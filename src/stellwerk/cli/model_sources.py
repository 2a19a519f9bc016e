"""Where `stellwerk models` finds models: a running gateway, or without one the data folder itself."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from stellwerk.api.admin.download_shapes import DownloadShape, show_download
from stellwerk.api.admin.model_shapes import (
    FoundModel,
    LocalModel,
    LocalModelDetails,
    show_details,
    show_found,
    show_models,
)
from stellwerk.api.admin.models import metadata_of
from stellwerk.app import settings as cut
from stellwerk.app.local_models import make_hub
from stellwerk.cli.admin_client import AdminClient
from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.own_address import own_url
from stellwerk.config.reading import data_folder, find, load
from stellwerk.config.settings import Config
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Conflict, NotFound
from stellwerk.engines.downloads import Downloads
from stellwerk.engines.gguf_reader import InvalidGguf
from stellwerk.engines.model_files import ModelFile, ModelFiles, Shelf
from stellwerk.engines.model_folder import remove_model, remove_unusable
from stellwerk.engines.ollama_registry import OllamaRegistry
from stellwerk.engines.options import EngineOptions, resolve_options
from stellwerk.engines.projectors import find_named
from stellwerk.http.pool import Pools
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.storage.folder import FolderLock, prepare_folder

_T = TypeVar("_T")
Progress = Callable[[DownloadShape], None]
FINAL = frozenset({"done", "failed", "cancelled"})
_MOVING = frozenset({"running", "verifying"})


class ModelSource(Protocol):
    """Errors are GatewayTrouble, GatewayError and StorageRefused."""

    def list_models(self) -> list[LocalModel]: ...
    def show(self, name: str) -> LocalModelDetails: ...
    def search(self, query: str, limit: int) -> list[FoundModel]: ...
    def downloads(self) -> list[DownloadShape]: ...
    def pull(self, reference: str, file: str | None, progress: Progress) -> DownloadShape:
        """Returns the download when it is over; pauses it and raises KeyboardInterrupt when it is interrupted."""
        ...

    def remove(self, file: str) -> None: ...


class GatewayModels:
    """Asks the running gateway."""

    def __init__(self, client: AdminClient) -> None:
        self.client = client

    def list_models(self) -> list[LocalModel]:
        return _read(self.client.get("/admin/api/models/local"), list[LocalModel])

    def show(self, name: str) -> LocalModelDetails:
        return _read(self.client.get(f"/admin/api/models/{quote(name, safe='')}"), LocalModelDetails)

    def search(self, query: str, limit: int) -> list[FoundModel]:
        found = self.client.get(f"/admin/api/models/search?q={quote(query, safe='')}&limit={limit}")
        return _read(found, list[FoundModel])

    def downloads(self) -> list[DownloadShape]:
        return _read(self.client.get("/admin/api/models/downloads"), list[DownloadShape])

    def pull(self, reference: str, file: str | None, progress: Progress) -> DownloadShape:
        body = {"wait": False, **({"model": reference} if file is None else {"repo_id": reference, "filename": file})}
        begun = self.client.ask("POST", "/admin/api/models/download", body)
        path = f"/admin/api/models/downloads/{begun['id']}"
        try:
            state = _read(self.client.get(path), DownloadShape)
            while state.status not in FINAL and state.status != "paused":
                progress(state)
                for event in self.client.events(f"{path}/events"):
                    state = _read(event, DownloadShape)
                    progress(state)
                    if state.status == "paused":
                        break
        except KeyboardInterrupt:
            with contextlib.suppress(GatewayTrouble):
                self.client.ask("POST", f"{path}/pause")
            raise
        return state

    def remove(self, file: str) -> None:
        self.client.ask("POST", "/admin/api/models/delete", {"model_path": file})


class _Unwatched:
    def connected(self) -> None: ...

    def reused(self) -> None: ...


class FolderModels:
    """Works on the folders themselves, for as long as no gateway serves from them."""

    def __init__(self, config: Config, data: Path, environ: Mapping[str, str]) -> None:
        self._config = config
        self._data = data
        self._environ = environ
        self._settings = cut.slot_settings(config, data)
        self._folder = self._settings.folder or data / cut.MODELS_FOLDER

    def list_models(self) -> list[LocalModel]:
        shelf = self._scan()
        options = {model: self._options(shelf, file) for model, file in shelf.files.items()}
        return show_models(shelf.files, options, shelf.projectors, shelf.broken)

    def show(self, name: str) -> LocalModelDetails:
        shelf = self._scan()
        file = shelf.files.get(name)
        if file is None:
            raise _unknown_model()
        try:
            metadata = metadata_of(file)
        except InvalidGguf as error:
            raise Conflict(f"The model's file cannot be read: {error}.", code="model_unreadable") from None
        return show_details(file, self._options(shelf, file), metadata, None)

    def search(self, query: str, limit: int) -> list[FoundModel]:
        hub = make_hub(self._config.hub, self._environ)
        return [show_found(model) for model in asyncio.run(hub.search(query, limit))]

    def downloads(self) -> list[DownloadShape]:
        async def look() -> list[DownloadShape]:
            with self._downloads() as downloads:
                await downloads.read()
                shown = [show_download(download) for download in downloads.list()]
            # Without a gateway nothing moves.
            return [msgspec.structs.replace(one, status="queued") if one.status in _MOVING else one for one in shown]

        return asyncio.run(look())

    def pull(self, reference: str, file: str | None, progress: Progress) -> DownloadShape:
        with self._locked():
            return asyncio.run(self._pull(reference, file, progress))

    async def _pull(self, reference: str, file: str | None, progress: Progress) -> DownloadShape:
        with self._downloads() as downloads:
            await downloads.read()
            download = await downloads.add(reference, file)
            try:
                async for state in downloads.follow(download.id):
                    progress(show_download(state))
            except asyncio.CancelledError:
                await downloads.pause(download.id)
                raise
            finally:
                await downloads.stop()
            return show_download(downloads.get(download.id))

    def remove(self, file: str) -> None:
        with self._locked():
            shelf = self._scan()
            projector = find_named(file, self._folder, shelf.projectors)
            found = next((one for one in shelf.files.values() if one.path.name == file), None)
            if projector is not None:
                projector.path.unlink(missing_ok=True)
            elif found is not None:
                remove_model(found, self._folder)
            elif "/" not in file and (model := Path(file).stem) in shelf.broken:
                remove_unusable(model, self._folder)
            else:
                raise _unknown_model()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Raises FolderInUse while a gateway serves from the data folder."""
        prepare_folder(self._data)
        with FolderLock(self._data):
            yield

    @contextlib.contextmanager
    def _downloads(self) -> Iterator[Downloads]:
        hub, clock = self._config.hub, SystemClock()
        pools = Pools(UpstreamSettings(), _Unwatched(), clock)
        registry = OllamaRegistry(pools, address=hub.ollama_registry)
        try:
            yield Downloads(self._folder, make_hub(hub, self._environ), clock, registry=registry)
        finally:
            pools.close()

    def _scan(self) -> Shelf:
        settings = self._settings
        return ModelFiles(settings.folder, settings.bundled, settings.named, settings.projectors).scan()

    def _options(self, shelf: Shelf, file: ModelFile) -> EngineOptions:
        said = self._settings.overrides.get(file.id)
        return resolve_options(file, self._settings.defaults, said, shelf.projectors)


def open_source(url: str | None, key: str | None, data: Path | None) -> ModelSource:
    """The gateway at `url`; without one that of this machine when it runs, else its data folder."""
    folder = data_folder(data, os.environ)
    file = find(None, os.environ, folder)
    client = AdminClient(url or own_url(data, os.environ), key, os.environ, folder)
    if url is not None or _answers(client):
        return GatewayModels(client)
    return FolderModels(load(file, os.environ), folder, os.environ)


def open_gateway(url: str | None, key: str | None, data: Path | None) -> AdminClient:
    """The running gateway, for what only it can do."""
    return AdminClient(url or own_url(data, os.environ), key, os.environ, data_folder(data, os.environ))


def _answers(client: AdminClient) -> bool:
    try:
        client.get("/admin/api/slots")
    except GatewayTrouble as trouble:
        if trouble.key == "chat.not_running":
            return False
        raise
    return True


def _read(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise GatewayTrouble("chat.not_understood") from None


def _unknown_model() -> NotFound:
    return NotFound("There is no such local model.", code="model_not_found")


def names_of(models: Sequence[LocalModel]) -> dict[str, LocalModel]:
    """Models by id and by the name of their file."""
    return {model.path: model for model in models} | {model.name: model for model in models}
