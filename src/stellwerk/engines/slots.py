"""Every engine of the gateway: models are loaded when somebody wants them, and make room for each other."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from stellwerk.core.call import Place
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, Conflict, Unavailable
from stellwerk.core.plan import Model
from stellwerk.engines import model_folder
from stellwerk.engines.blocking import in_thread
from stellwerk.engines.crashes import Crash
from stellwerk.engines.engine_starts import EngineStarts
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.holds import Holds
from stellwerk.engines.load_line import LoadLine, LoadOrder, WaitingLoad
from stellwerk.engines.loader import Loader, fits_order, unavailable
from stellwerk.engines.machine_memory import Capacity, MachineMemory, MemoryStatus, capacity, read_machine_memory
from stellwerk.engines.measures import Measures
from stellwerk.engines.model_files import ModelFile, ModelFiles
from stellwerk.engines.model_stock import ModelStock
from stellwerk.engines.options import EngineOptions, EngineOverrides
from stellwerk.engines.orphans import PidFiles, reap_orphans
from stellwerk.engines.placements import PlacementBook
from stellwerk.engines.projectors import Projector
from stellwerk.engines.residents import Residents
from stellwerk.engines.slot import Lease, Slot, SlotStatus, Tenant
from stellwerk.engines.slot_settings import SlotSettings
from stellwerk.engines.supervisor import EngineState, Supervisor
from stellwerk.engines.upkeep import Upkeep

log = logging.getLogger("stellwerk.engines")

_FIRST_LOOK = 1.0
"""Seconds that the start waits for the folder; a slow disk must not keep the gateway from its other models."""
_RUNNING = "running"
_ORDERS = 3
"""How often an operator's load is begun anew because somebody else ordered the same model differently meanwhile."""


class Slots:
    """Owns all engines; fills the port `Engines`. Lives on one event loop, from `start` to `stop`."""

    def __init__(
        self,
        settings: SlotSettings,
        clock: Clock,
        environment: Mapping[str, str],
        changed: Callable[[], None] = lambda: None,
        *,
        on_crash: Callable[[Crash], None] = lambda _crash: None,
        look: Callable[[], MachineMemory] = read_machine_memory,
        measure: Callable[[Supervisor], float | None] = lambda engine: engine.memory_mib,
    ) -> None:
        """`environment` is the gateway's own; engines receive the part of it that holds no secret.

        `changed` is called on the event loop whenever `models` has other members than before, `on_crash` for every
        engine that ends unasked. `look` sees the machine's memory, `measure` how many MiB an engine holds.
        """
        self._settings = settings
        self._clock = clock
        self._look = look
        self._stock = ModelStock(
            ModelFiles(settings.folder, settings.bundled, settings.named, settings.projectors),
            bundled=frozenset(path.stem for path in settings.bundled),
            defaults=settings.defaults,
            configured=settings.overrides,
            rescan_after=settings.rescan_after,
            clock=clock,
            changed=changed,
        )
        self._holds = Holds(settings.supervisor.restarts.window)
        starts = EngineStarts(
            settings.supervisor,
            settings.programs,
            environment,
            holds=self._holds,
            on_crash=on_crash,
            pids=PidFiles(settings.state / _RUNNING) if settings.state is not None else None,
            clock=clock,
        )
        ports = range(settings.first_port, settings.first_port + settings.count)
        self._residents = Residents(ports, clock, starts.make, self._remember)
        self._line = LoadLine(clock)
        self._book = PlacementBook(settings.state)
        self._measures = Measures(settings.state, measure)
        self._upkeep = Upkeep(self._stock, self._residents, self._line, self._book, clock)
        self._loader = Loader(
            self._residents,
            self._stock,
            self._holds,
            self._measures,
            capacity=self._capacity,
            is_pinned=self._book.is_pinned,
            turn_seconds=settings.turn_seconds,
            room_seconds=settings.room_seconds,
            clock=clock,
        )
        self._restarting: set[Place] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    # --- from start to stop

    async def start(self) -> None:
        """Returns when the folder has been read, or soon if that takes long; what was loaded before the last end is
        loaded again in the background. Ends engines that an earlier gateway left behind."""
        settings, upkeep = self._settings, self._upkeep
        if settings.state is not None:
            await asyncio.to_thread(reap_orphans, settings.state / _RUNNING)
        self._stock.said.update(await self._book.read())
        await self._measures.read()
        first_look = asyncio.create_task(self._stock.scan(), name="first look into the models folder")
        configured = {model: True for model, said in settings.overrides.items() if said.pinned}
        works = {
            "loads": self._line.run(self._loader.load),
            "models folder": upkeep.watch_folder(first_look, settings.scan_interval, self._forget_holds),
            "restored models": upkeep.restore(first_look, settings.preload, configured),
            "idle models": upkeep.watch_idle(settings.sweep_interval),
            "places": upkeep.tell_places(settings.place_interval, self._tell_restarting),
        }
        self._tasks = [first_look, *(asyncio.create_task(work, name=name) for name, work in works.items())]
        for task in self._tasks:
            task.add_done_callback(_report)
        await asyncio.wait({first_look}, timeout=_FIRST_LOOK)

    async def stop(self) -> None:
        """Ends every engine within the grace; requests should have been drained before. What was loaded will be loaded
        again at the next start."""
        self._stopped = True
        self._line.close(unavailable("The gateway is shutting down.", "shutting_down"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for slot in self._residents.slots:
            self._residents.leave(slot)
        await self._residents.settle()
        await self._book.flush()
        await self._measures.flush()

    def _remember(self) -> None:
        # What ends because we end is loaded again at the next start.
        if not self._stopped:
            self._book.keep(self._residents.ports(), self._stock.said)

    def _capacity(self) -> Capacity:
        return capacity(self._look(), self._settings.memory_mib)

    def _forget_holds(self) -> None:
        self._holds.forget(frozenset(self._stock.files))

    def _tell_restarting(self) -> None:
        for place in self._restarting:
            place.take(1)

    # --- what there is

    def models(self) -> Sequence[Model]:
        """Everything that the last look into the folder found."""
        return self._stock.models

    def broken(self) -> Mapping[str, str]:
        """Model id to the reason why it cannot be loaded, also of those that are gone since the last restart."""
        lost = {model: reason for model, reason in self._upkeep.lost.items() if model not in self._stock.files}
        return {**lost, **self._stock.broken}

    def files(self) -> Mapping[str, ModelFile]:
        return self._stock.files

    def projectors(self) -> tuple[Projector, ...]:
        return self._stock.projectors

    def options(self, model: str) -> EngineOptions:
        """How it would be loaded now. Raises NotFound, and Unavailable for a file that cannot be used."""
        return self._stock.options(self._stock.get(model))

    def status(self) -> tuple[SlotStatus, ...]:
        """Every slot, by port."""
        return tuple(
            slot.status(self._line.requests(slot.tenant.file.id) if slot.tenant is not None else 0)
            for slot in self._residents.slots
        )

    def waiting(self) -> tuple[WaitingLoad, ...]:
        """Models that are being loaded or wait for that, in their order."""
        return self._line.status()

    async def memory(self) -> MemoryStatus:
        bounds = await asyncio.to_thread(self._capacity)
        return MemoryStatus(
            capacity_mib=bounds.all, reserved_mib=self._residents.reserved_mib(), available_mib=bounds.now
        )

    def output(self, model: str) -> tuple[str, ...]:
        """The last lines that the engine of `model` printed; may hold paths, so for operators only."""
        tenant = self._residents.tenant_of(model)
        return tenant.supervisor.output if tenant is not None else ()

    # --- requests

    async def acquire(self, model: str, *, deadline: float, request_id: str = "", place: Place | None = None) -> Lease:
        """See `Engines.acquire`; also raises Unavailable, code `slots_busy`, when nobody made room in time and
        `memory_short` when the model does not fit."""
        try:
            async with asyncio.timeout_at(deadline):
                for _ in self._residents.slots:
                    tenant = self._residents.tenant_of(model)
                    booked = tenant is None or not tenant.is_open
                    if tenant is None or booked:
                        tenant = await self._wait_for(model, place)
                    try:
                        return await self._lease(tenant, request_id, place, booked=booked)
                    except EngineFailed as failure:
                        self._explain(tenant, failure)
        except TimeoutError:
            raise self._late(model) from None
        raise unavailable("No slot has a free port.", "slots_busy")

    async def _lease(self, tenant: Tenant, request_id: str, place: Place | None, *, booked: bool) -> Lease:
        if place is None or tenant.supervisor.state is EngineState.READY:
            return await tenant.lease(request_id, booked=booked)
        place.take(1)
        self._restarting.add(place)
        try:
            return await tenant.lease(request_id, booked=booked)
        finally:
            self._restarting.discard(place)

    def _explain(self, tenant: Tenant, failure: EngineFailed) -> None:
        """Raises what the client is told, unless another slot may do better."""
        if self._stopped:
            raise unavailable("The gateway is shutting down.", "shutting_down")
        if tenant.supervisor.state is EngineState.STOPPED:
            raise _unloaded(tenant.file.id)
        if not failure.port_taken:
            raise self._loader.failed(tenant.file, failure.reason)

    async def _wait_for(self, model: str, place: Place | None) -> Tenant:
        if self._stopped:
            raise unavailable("The gateway is shutting down.", "shutting_down")
        file = await self._stock.find(model)
        hold = self._holds.on(file, self._clock.monotonic())
        if hold is not None and self._line.find(model) is None:
            raise self._loader.failed(file, hold.reason)
        return await self._line.wait(model, place)

    def _late(self, model: str) -> Unavailable:
        tenant, wish = self._residents.tenant_of(model), self._line.find(model)
        if tenant is not None and tenant.is_open and tenant.supervisor.state is EngineState.READY:
            return unavailable(f"The model '{model}' is busy.", "slots_busy")
        if wish is not None and wish.blocked:
            return unavailable(f"No model made room for '{model}' in time: they are in use.", "slots_busy")
        return unavailable(f"The model '{model}' was not loaded in time.", "model_loading")

    def keep(self, model: str, seconds: float | None) -> None:
        """How long a loaded model stays after its last request, until it is loaded again; never longer than the
        configuration says. None or less than 0 is what that says, 0 only as long as requests run. A pinned one stays.
        """
        tenant = self._residents.tenant_of(model)
        if tenant is None or tenant.pinned:
            return
        configured = tenant.options.keep_alive_seconds
        if seconds is None or seconds < 0:
            tenant.keep_alive = configured
        else:
            tenant.keep_alive = seconds if configured is None else min(seconds, configured)

    # --- operators

    async def load(
        self,
        model: str,
        *,
        port: int | None = None,
        overrides: EngineOverrides | None = None,
        wait_until: float | None = None,
        drain_seconds: float = 30.0,
    ) -> SlotStatus:
        """Loads a model now and returns its slot when it is ready. What is at `port` has to leave.

        `overrides` None takes what was said of the model before. `wait_until` is monotonic seconds; the load goes on
        after it. Raises NotFound, BadRequest, Conflict and Unavailable.
        """
        if port is not None:
            self._slot_at(port)
        file = await self._stock.find(model)
        order = LoadOrder(port=port, overrides=overrides, drain_seconds=drain_seconds)
        options = self._stock.options(file, overrides)
        self._book.dismissed.discard(model)
        try:
            async with asyncio.timeout_at(wait_until):
                for _ in range(_ORDERS):
                    tenant = await self._line.wait(model, order=order)
                    try:
                        await tenant.supervisor.ready()
                    except EngineFailed as failure:
                        self._explain(tenant, failure)
                    finally:
                        tenant.give_up()
                    slot = self._residents.slot_of(model)
                    if slot is not None and fits_order(tenant, slot, order, options):
                        return slot.status()
        except TimeoutError:
            raise unavailable(f"The model '{model}' is still being loaded.", "model_loading") from None
        raise Conflict(f"Somebody else loads the model '{model}' in another way.", code="load_cancelled")

    async def unload(
        self, *, port: int | None = None, model: str | None = None, drain_seconds: float = 30.0
    ) -> SlotStatus | None:
        """Unloads what is at `port`, or `model`, once its requests have ended or had `drain_seconds` for it. A load
        that has not come to its end is called off. Returns the slot, None when there was nothing to unload."""
        slot = self._slot_at(port) if port is not None else None
        if model is None:
            if slot is None:
                raise BadRequest("Say which slot or which model is to be unloaded.", param="slot")
            model = slot.tenant.file.id if slot.tenant is not None else self._line.ordered_at(slot.port)
        if model is None:
            return None
        self._book.dismissed.update({model} & set(self._settings.preload))
        await self._line.call_off(model, _unloaded(model))
        slot, tenant = self._residents.slot_of(model) or slot, self._residents.tenant_of(model)
        if tenant is not None:
            await self._residents.send_away(tenant, drain_seconds)
        self._remember()
        return slot.status() if slot is not None else None

    async def pin(self, model: str, pinned: bool) -> None:
        """A pinned model is loaded at every start and never makes room. Raises NotFound."""
        self._stock.get(model)
        self._book.pinned[model] = pinned
        tenant = self._residents.tenant_of(model)
        if tenant is not None:
            tenant.pinned = pinned
        self._remember()
        await self._book.flush()

    async def remove(self, model: str) -> None:
        """Deletes its files, also of one that cannot be used. Raises NotFound and Conflict."""
        folder = self._settings.folder
        file = None if model in self._stock.broken else self._stock.get(model)
        if file is not None:
            # Before the question whether it is loaded: nobody shall unload what cannot be deleted.
            model_folder.check_inside(file, folder)
        tenant = self._residents.tenant_of(model)
        if self._line.find(model) is not None or (tenant is not None and not tenant.failed):
            raise Conflict(f"The model '{model}' is loaded; unload it first.", code="model_loaded")
        if tenant is not None:
            self._residents.leave_tenant(tenant)
        if file is None:
            await in_thread(model_folder.remove_unusable, model, folder)
        else:
            await in_thread(model_folder.remove_model, file, folder)
        self._stock.said.pop(model, None)
        self._book.pinned.pop(model, None)
        self._remember()
        await self._stock.scan()

    async def copy(self, model: str, name: str) -> None:
        """The same model under another id. Raises NotFound, BadRequest and Conflict."""
        file = self._stock.get(model)
        if name in self._stock.files or name in self._stock.broken:
            raise Conflict(f"There is a model '{name}' already.", code="model_exists")
        await in_thread(model_folder.copy_model, file, name, self._settings.folder)
        await self._stock.scan()

    async def rescan(self) -> None:
        """Looks into the folder now."""
        await self._stock.scan()

    def _slot_at(self, port: int) -> Slot:
        slot = self._residents.slot_at(port)
        if slot is None:
            first, last = self._residents.slots[0].port, self._residents.slots[-1].port
            raise BadRequest(
                f"There is no slot {port}; the slots are {first} to {last}.", param="slot", code="slot_not_found"
            )
        return slot


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the work %s ended", task.get_name(), exc_info=error)


def _unloaded(model: str) -> Unavailable:
    return unavailable(f"The model '{model}' was unloaded while it was being loaded or used.", "model_unloaded")
