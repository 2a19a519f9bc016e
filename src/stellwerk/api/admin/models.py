"""/admin/api/models: what lies in the models folder, and what the hub has."""

import asyncio
from typing import Annotated, Any

from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.local_models import LocalModels
from stellwerk.api.admin.model_shapes import (
    FOUND_MODEL,
    LOCAL_MODEL,
    LOCAL_MODEL_DETAILS,
    DeleteBody,
    DeletedModel,
    FoundModel,
    LocalModel,
    LocalModelDetails,
    PinBody,
    PinnedModel,
    SearchQuery,
    show_details,
    show_found,
    show_models,
)
from stellwerk.core.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.engines.gguf import InvalidGguf
from stellwerk.engines.gguf_metadata import Metadatum, read_metadata
from stellwerk.engines.model_files import ModelFile
from stellwerk.records import audit

_TAG = "Models"
HUB_ERRORS: tuple[type[GatewayError], ...] = (
    NotFound, Conflict, Forbidden, RateLimited, Unavailable, UpstreamError, UpstreamTimeout,
)  # fmt: skip
"""What may come of a question to the hub."""

ModelName = Annotated[str, Meta(min_length=1, max_length=240)]


class ModelsAPI:
    def __init__(self, administration: Administration, local: LocalModels) -> None:
        self._administration = administration
        self._local = local

    def register(self, registry: Registry) -> None:
        registry.add(*self._reading(), *self._changing())

    def _reading(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path="/admin/api/models/local",
                access=OBSERVERS,
                tag=_TAG,
                summary="List the models of this machine by name",
                description="Projectors too, and files that cannot be used.",
                handler=self._list,
                answer=list[LocalModel],
                example=[LOCAL_MODEL],
            ),
            Endpoint(
                method="GET",
                path="/admin/api/models/search",
                access=ADMINS,
                tag=_TAG,
                summary="Search the hub for models in GGUF files",
                description="The most downloaded first.",
                handler=self._search,
                query=SearchQuery,
                answer=list[FoundModel],
                example=[FOUND_MODEL],
                errors=HUB_ERRORS,
            ),
            Endpoint(
                method="GET",
                path="/admin/api/models/{name}",
                access=OBSERVERS,
                tag=_TAG,
                summary="Show a model of this machine with what its file says",
                description="Without vocabularies: of long arrays there is only how many they have.",
                handler=self._show,
                path_parameters={"name": ModelName},
                answer=LocalModelDetails,
                example=LOCAL_MODEL_DETAILS,
                errors=(NotFound, Conflict),
            ),
        )

    def _changing(self) -> tuple[Endpoint, ...]:
        changing: dict[str, Any] = {"method": "POST", "access": ADMINS, "tag": _TAG}
        return (
            Endpoint(
                path="/admin/api/models/delete",
                summary="Delete a model from the models folder",
                description="409 while it is loaded.",
                handler=self._delete,
                body=DeleteBody,
                body_example={"model_path": LOCAL_MODEL["path"]},
                answer=DeletedModel,
                example={"status": "deleted", "path": LOCAL_MODEL["path"]},
                errors=(NotFound, Conflict, Unavailable),
                **changing,
            ),
            Endpoint(
                path="/admin/api/models/pin",
                summary="Have a model loaded at every start, or no longer",
                description="A pinned one never makes room for another. It is not loaded by this.",
                handler=self._pin,
                body=PinBody,
                body_example={"model": LOCAL_MODEL["name"], "pinned": True},
                answer=PinnedModel,
                example={"status": "pinned", "model": LOCAL_MODEL["name"]},
                errors=(NotFound, Conflict, Unavailable),
                **changing,
            ),
        )

    # --- what they do

    async def _list(self, _: Asked) -> list[LocalModel]:
        engines = self._local.engines
        if self._local.enabled:
            await engines.rescan()
        files = engines.files()
        options = {model: engines.options(model) for model in files}
        # Sizes of projectors are asked of the disk.
        return await asyncio.to_thread(
            show_models, files, options, engines.projectors(), engines.broken(), engines.status()
        )

    async def _search(self, asked: Asked) -> list[FoundModel]:
        self._local.check_enabled()
        query: SearchQuery = asked.query
        return [show_found(model) for model in await self._local.hub.search(query.q, query.limit)]

    async def _show(self, asked: Asked) -> LocalModelDetails:
        engines, name = self._local.engines, asked.parameters["name"]
        file = engines.files().get(name)
        if file is None:
            raise NotFound("There is no such local model.", code="model_not_found", param="name")
        try:
            metadata = await asyncio.to_thread(metadata_of, file)
        except InvalidGguf as error:
            raise Conflict(f"The model's file cannot be read: {error}.", code="model_unreadable") from None
        port = next((slot.port for slot in engines.status() if slot.model == name), None)
        return show_details(file, engines.options(name), metadata, port)

    async def _delete(self, asked: Asked) -> DeletedModel:
        self._local.check_enabled()
        body: DeleteBody = asked.body
        projector = await self._local.find_idle_projector(body.model_path)
        if projector is not None:
            await self._record(asked, "model.delete", projector.stem, {"file": projector.name})
            await asyncio.to_thread(projector.unlink, missing_ok=True)
            await self._local.engines.rescan()
            return DeletedModel(status="deleted", path=projector.name)
        model = await self._local.find(body.model_path)
        file = self._local.engines.files().get(model)
        name = body.model_path.rpartition("/")[2] if file is None else file.path.name
        await self._record(asked, "model.delete", model, {"file": name})
        await self._local.engines.remove(model)
        return DeletedModel(status="deleted", path=name)

    async def _pin(self, asked: Asked) -> PinnedModel:
        self._local.check_enabled()
        body: PinBody = asked.body
        await self._record(asked, "model.pin", body.model, {"pinned": body.pinned})
        await self._local.engines.pin(body.model, body.pinned)
        return PinnedModel(status="pinned" if body.pinned else "unpinned", model=body.model)

    async def _record(self, asked: Asked, action: str, model: str, details: dict[str, Any]) -> None:
        await self._administration.change(
            asked,
            lambda connection, actor, now: audit.append(connection, actor, action, f"model:{model}", details, now=now),
        )


def metadata_of(file: ModelFile) -> list[Metadatum]:
    """Blocks; raises InvalidGguf. Only GGUF files say anything of themselves."""
    return read_metadata(file.path) if file.format == "gguf" else []
