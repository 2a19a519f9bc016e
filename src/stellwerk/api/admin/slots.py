"""/admin/api/slots, /admin/api/system and /admin/api/crashes: which models run, how to load them, how they ended."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stellwerk.api._endpoints import Answered, Asked, Endpoint, Registry
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.loads import Loads
from stellwerk.api.admin.local_models import LocalModels, wants_no_wait
from stellwerk.api.admin.slot_shapes import (
    CRASH,
    EMPTY_SLOT,
    LOADED,
    LOADING,
    SLOT,
    CrashesQuery,
    CrashShape,
    LoadBody,
    LoadedModel,
    LoadId,
    LoadState,
    SlotPort,
    SlotState,
    UnloadedSlot,
    UnloadQuery,
    show_crash,
    show_load,
    show_loaded,
    show_slot,
    to_overrides,
)
from stellwerk.core.errors import BadRequest, Conflict, NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.engines.crashes import list_crashes
from stellwerk.engines.slot import SlotStatus
from stellwerk.records import audit
from stellwerk.telemetry.processes import ProcessLoad

_TAG = "Slots"

LookAtProcesses = Callable[[list[int]], Mapping[int, ProcessLoad]]


class SlotsAPI:
    """`loads` are those that were asked for here, `look` tells what processes do."""

    def __init__(
        self, administration: Administration, local: LocalModels, *, loads: Loads, look: LookAtProcesses
    ) -> None:
        self._administration = administration
        self._local = local
        self._loads = loads
        self._look = look

    def register(self, registry: Registry) -> None:
        registry.add(*self._reading(), *self._changing())

    def _reading(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path="/admin/api/slots",
                access=OBSERVERS,
                tag=_TAG,
                summary="List all slots by port",
                handler=self._list,
                answer=list[SlotState],
                example=[SLOT, EMPTY_SLOT],
            ),
            Endpoint(
                method="GET",
                path="/admin/api/slots/loads/{load_id}",
                access=OBSERVERS,
                tag=_TAG,
                summary="Show how far a load is",
                description="The last hundred are remembered, until the gateway ends.",
                handler=self._show_load,
                path_parameters={"load_id": LoadId},
                answer=LoadState,
                example=LOADING,
                errors=(NotFound,),
            ),
            Endpoint(
                method="GET",
                path="/admin/api/crashes",
                access=ADMINS,
                tag=_TAG,
                summary="List the crashes of engines, newest first",
                description="The newest thousand are kept. The last lines are what the engine printed and may hold "
                "paths of this machine.",
                handler=self._list_crashes,
                query=CrashesQuery,
                answer=list[CrashShape],
                example=[CRASH],
                errors=(Unavailable,),
            ),
        )

    def _changing(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="POST",
                path="/admin/api/slots/load",
                access=ADMINS,
                tag=_TAG,
                summary="Load a model into a slot",
                description="What was in the slot leaves it first. The answer comes when the model is ready; after ten "
                "minutes, or at once when asked so, it is 202 and the load goes on.",
                handler=self._load,
                body=LoadBody,
                body_example={"slot": 4801, "model_path": "Qwen2.5-7B-Instruct-Q4_K_M.gguf", "model_type": "text"},
                answer=LoadedModel,
                example=LOADED,
                accepted=LoadState,
                accepted_example=LOADING,
                errors=(BadRequest, NotFound, Conflict, Unavailable),
            ),
            Endpoint(
                method="POST",
                path="/admin/api/slots/{slot}/unload",
                access=ADMINS,
                tag=_TAG,
                summary="Unload what is in a slot",
                description="Requests that run get half a minute to end, or none when asked so. A model that is being "
                "loaded is given up.",
                handler=self._unload,
                path_parameters={"slot": SlotPort},
                query=UnloadQuery,
                answer=UnloadedSlot,
                example={"status": "unloaded", "slot": 4801},
                errors=(NotFound, Conflict, Unavailable),
            ),
        )

    # --- what they do

    async def _list(self, _: Asked) -> list[SlotState]:
        return show_slots(self._local, self._look)

    async def _show_load(self, asked: Asked) -> LoadState:
        return show_load(self._loads.get(asked.parameters["load_id"]))

    async def _load(self, asked: Asked) -> LoadedModel | Answered:
        self._local.check_enabled()
        body: LoadBody = asked.body
        mmproj = self._local.find_projector(body.mmproj_path) if body.mmproj_path else None
        overrides = to_overrides(body, mmproj)
        model = body.model or await self._local.find(body.model_path or "")
        details = {"model": model, **_said(body)}
        await self._record(asked, "slot.load", "slot" if body.slot is None else f"slot:{body.slot}", details)
        load = self._loads.start(model, body.slot, self._local.engines.load(model, port=body.slot, overrides=overrides))
        waits = body.wait and not wants_no_wait(asked.request.exchange.headers)
        # Also without waiting a load that cannot even begin is refused at once.
        if await self._local.wait(load.task, None if waits else 0.01):
            return show_loaded(await load.task)
        shown = show_load(load)
        return Answered(status=202, body=shown, headers=((b"location", shown.status_url.encode()),))

    async def _unload(self, asked: Asked) -> UnloadedSlot:
        self._local.check_enabled()
        port = asked.parameters["slot"]
        found = next((slot for slot in self._local.engines.status() if slot.port == port), None)
        if found is None:
            raise NotFound("There is no such slot.", param="slot")
        query: UnloadQuery = asked.query
        await self._record(asked, "slot.unload", f"slot:{port}", {"model": found.model, "graceful": query.graceful})
        engines = self._local.engines
        unload = engines.unload(port=port) if query.graceful else engines.unload(port=port, drain_seconds=0.0)
        # Whoever leaves early must not leave a model half unloaded.
        left = await asyncio.shield(unload)
        return UnloadedSlot(status="not_loaded" if left is None else "unloaded", slot=port)

    async def _list_crashes(self, asked: Asked) -> list[CrashShape]:
        query: CrashesQuery = asked.query
        crashes = await self._administration.fetch(
            lambda connection: list_crashes(connection, model=query.model, limit=query.limit)
        )
        return [show_crash(crash) for crash in crashes]

    async def _record(self, asked: Asked, action: str, subject: str, details: dict[str, Any]) -> None:
        """Before the deed: nothing of what follows is undone when the storage cannot be reached."""
        await self._administration.change(
            asked,
            lambda connection, actor, now: audit.append(connection, actor, action, subject, details, now=now),
        )


def show_slots(local: LocalModels, look: LookAtProcesses) -> list[SlotState]:
    slots = local.engines.status()
    files = local.engines.files()
    loads = look([slot.pid for slot in slots if slot.pid is not None])

    def show(slot: SlotStatus) -> SlotState:
        file = None if slot.model is None else files.get(slot.model)
        load = None if slot.pid is None else loads.get(slot.pid)
        return show_slot(slot, None if file is None else file.path.name, load)

    return [show(slot) for slot in slots]


def _said(body: LoadBody) -> dict[str, Any]:
    """What was asked for, without what was left out; paths by their names."""
    facts = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
    for name in ("model", "model_path", "slot", "wait"):
        facts.pop(name, None)
    if "mmproj_path" in facts:
        facts["mmproj_path"] = facts["mmproj_path"].rpartition("/")[2]
    return facts
