"""Every engine of the gateway: which model runs in which slot, and which has to leave when all are taken."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.core.plan import Model
from stellwerk.core.ports import EngineAddress
from stellwerk.engines import llama_cpp
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.gguf import InvalidGguf, read_gguf
from stellwerk.engines.holds import Holds
from stellwerk.engines.llama_cpp import LlamaCppSettings
from stellwerk.engines.model_files import ModelFile, ModelFiles, Shelf
from stellwerk.engines.process import Launch
from stellwerk.engines.slot import HOST, Lease, Slot, SlotStatus, Tenant
from stellwerk.engines.supervisor import EngineState, Supervisor, SupervisorSettings

log = logging.getLogger("stellwerk.engines")

DEMO_MODEL = Path(__file__).with_name("demo") / "stellwerk-demo.gguf"

_RETRY = 5.0
_FIRST_LOOK = 1.0
"""Seconds that the start waits for the folder; a slow disk must not keep the gateway from its other models."""


class SlotSettings(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path | None = None
    """Where the user's GGUF files lie."""
    bundled: tuple[Path, ...] = (DEMO_MODEL,)
    """Files that ship with the package; the first slot is theirs as long as another is free."""
    preload: tuple[str, ...] = (DEMO_MODEL.stem,)
    """Ids of models that are loaded at the start, in the background."""
    first_port: int = 4801
    count: int = 7
    scan_interval: float = 5.0
    """Seconds between two looks into the folder."""
    rescan_after: float = 1.0
    """An unknown model is looked for again when the last look is older than so many seconds."""
    engine: LlamaCppSettings = LlamaCppSettings()
    supervisor: SupervisorSettings = SupervisorSettings()


class Slots:
    """Owns all engines; fills the port `Engines`. Lives on one event loop, from `start` to `stop`."""

    def __init__(
        self,
        settings: SlotSettings,
        clock: Clock,
        environment: Mapping[str, str],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`environment` is the gateway's own; engines receive the part of it that holds no secret.

        `changed` is called on the event loop whenever `models` has other members than before.
        """
        self._settings = settings
        self._clock = clock
        self._environment = environment
        self._changed = changed
        self._files = ModelFiles(settings.folder, settings.bundled)
        self._bundled = frozenset(path.stem for path in settings.bundled)
        self._shelf = Shelf(files={}, broken={})
        self._scanned = float("-inf")
        self._scanning = asyncio.Lock()
        self._slots = [Slot(settings.first_port + number) for number in range(settings.count)]
        self._holds = Holds(settings.supervisor.restarts.window)
        self._watching: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Returns when the folder has been read, or soon if that takes long; `preload` is loaded in the background."""
        first_look = asyncio.create_task(self._scan(), name="first look into the models folder")
        self._watching = asyncio.create_task(self._watch_folder(first_look), name="models folder")
        await asyncio.wait({first_look}, timeout=_FIRST_LOOK)

    async def stop(self) -> None:
        """Ends every engine within the grace; requests should have been drained before."""
        self._stopped = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        for slot in self._slots:
            self._evict(slot)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def models(self) -> Sequence[Model]:
        """Everything that the last look into the folder found."""
        return [llama_cpp.describe(file, self._settings.engine) for file in self._shelf.files.values()]

    def broken(self) -> Mapping[str, str]:
        """Model id to the reason why its file cannot be loaded."""
        return self._shelf.broken

    def status(self) -> tuple[SlotStatus, ...]:
        return tuple(slot.status() for slot in self._slots)

    def output(self, model: str) -> tuple[str, ...]:
        """The last lines that the engine of `model` printed; may hold paths, so for operators only."""
        tenant = self._tenant_of(model)
        return tenant.supervisor.output if tenant is not None else ()

    async def acquire(self, model: str, *, deadline: float) -> Lease:
        """See `Engines.acquire`; also raises Unavailable, code `slots_busy`, when every slot is in use."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._lease(await self._find(model))
        except TimeoutError:
            tenant = self._tenant_of(model)
            if tenant is not None and tenant.supervisor.state is EngineState.READY:
                raise _unavailable(f"The model '{model}' is busy.", "slots_busy") from None
            raise _unavailable(f"The model '{model}' was not loaded in time.", "model_loading") from None

    async def _lease(self, file: ModelFile) -> Lease:
        # Once for each port that turns out to be taken.
        for _ in self._slots:
            tenant = self._tenant_for(file)
            try:
                lease = await tenant.lease()
            except EngineFailed as failure:
                if not failure.port_taken:
                    raise self._model_failed(file, failure.reason) from None
            else:
                self._holds.lift(file)
                return lease
        raise _unavailable("No slot has a free port.", "slots_busy")

    async def _find(self, model: str) -> ModelFile:
        """The file of a model; looks again for one that is not known, for it may have just been put there."""
        if model not in self._shelf.files and self._clock.monotonic() - self._scanned >= self._settings.rescan_after:
            await self._scan()
        file = self._shelf.files.get(model)
        if file is not None:
            return file
        if model in self._shelf.broken:
            raise _unavailable(f"The model '{model}' cannot be loaded: {self._shelf.broken[model]}.", "model_failed")
        raise NotFound(f"There is no local model '{model}'.", code="model_not_found", param="model")

    def _tenant_for(self, file: ModelFile) -> Tenant:
        """The tenant that runs or loads `file`, a new one where needed. Raises Unavailable."""
        if self._stopped:
            raise _unavailable("The gateway is shutting down.", "shutting_down")
        for slot in self._slots:
            if slot.tenant is not None and slot.tenant.file.id == file.id:
                if not slot.tenant.failed:
                    return slot.tenant
                hold = self._holds.on(file, self._clock.monotonic())
                if hold is not None:
                    raise self._model_failed(file, hold.reason)
                self._evict(slot)
        return self._move_in(self._room_for(file), file)

    def _room_for(self, file: ModelFile) -> Slot:
        """A vacant slot with a free port, else the one that has been idle for longest. Raises Unavailable."""
        first, *others = self._slots
        for slot in [first, *others] if file.id in self._bundled else [*others, first]:
            if slot.vacant and slot.check_port():
                return slot
        idle = [(slot.tenant.used, slot) for slot in self._slots if slot.tenant is not None and not slot.tenant.leases]
        if not idle:
            raise _unavailable("Every slot for local models is in use.", "slots_busy")
        return min(idle, key=lambda pair: pair[0])[1]

    def _move_in(self, slot: Slot, file: ModelFile) -> Tenant:
        leaving = self._evict(slot)
        supervisor = Supervisor(
            file.id,
            launch=lambda: self._launch(slot, file),
            on_failure=lambda failure, had_served: self._note_failure(file, failure, had_served=had_served),
            settings=self._settings.supervisor,
            clock=self._clock,
        )
        slot.tenant = Tenant(file, supervisor, self._settings.engine.max_requests, self._clock)
        supervisor.start(after=leaving)
        return slot.tenant

    def _evict(self, slot: Slot) -> asyncio.Task[None] | None:
        """Empties the slot and returns the task that ends what was in it."""
        tenant = slot.vacate()
        if tenant is None:
            return None
        log.info("engine %s leaves port %d", tenant.file.id, slot.port)
        leaving = asyncio.create_task(tenant.supervisor.stop(), name=f"end of engine {tenant.file.id}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return leaving

    async def _launch(self, slot: Slot, file: ModelFile) -> Launch:
        """The command for the next start, after a last look at file and port. Raises EngineFailed."""
        try:
            await asyncio.to_thread(read_gguf, file.path)
        except InvalidGguf as error:
            raise EngineFailed(str(error)) from None
        if not slot.check_port():
            raise EngineFailed(str(slot.fault), port_taken=True)
        address = EngineAddress(host=HOST, port=slot.port, key=secrets.token_urlsafe(32))
        return llama_cpp.launch(file, address, self._settings.engine, self._environment)

    def _note_failure(self, file: ModelFile, failure: EngineFailed, *, had_served: bool) -> None:
        if not failure.port_taken:
            self._holds.note(file, failure.reason, self._clock.monotonic(), had_served=had_served)

    def _model_failed(self, file: ModelFile, reason: str) -> Unavailable:
        now = self._clock.monotonic()
        hold = self._holds.on(file, now)
        return _unavailable(
            f"The model '{file.id}' cannot be loaded: {reason}.", "model_failed", hold.until - now if hold else None
        )

    def _tenant_of(self, model: str) -> Tenant | None:
        tenants = (slot.tenant for slot in self._slots if slot.tenant is not None)
        return next((tenant for tenant in tenants if tenant.file.id == model), None)

    async def _watch_folder(self, first_look: asyncio.Task[None]) -> None:
        await first_look
        for model in self._settings.preload:
            file = self._shelf.files.get(model)
            if file is not None:
                with contextlib.suppress(Unavailable):
                    self._tenant_for(file)
        while True:
            await asyncio.sleep(self._settings.scan_interval)
            await self._scan()

    async def _scan(self) -> None:
        async with self._scanning:
            before = self._shelf.files
            self._shelf = await asyncio.to_thread(self._files.scan)
            self._scanned = self._clock.monotonic()
        self._holds.forget(frozenset(self._shelf.files))
        if self._shelf.files != before:
            self._changed()


def _unavailable(message: str, code: str, retry_after: float | None = _RETRY) -> Unavailable:
    """Always this target's fault: another one may do better."""
    return Unavailable(message, code=code, retry_after=retry_after, may_fall_back=True)
