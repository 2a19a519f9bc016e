"""Loads one model at a time: makes room, starts the engine, measures, remembers."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, Conflict, Unavailable
from stellwerk.engines.admission import Shortage, choose_victims
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.holds import Holds
from stellwerk.engines.load_line import LoadOrder, Wish
from stellwerk.engines.machine_memory import Capacity
from stellwerk.engines.measures import Measures
from stellwerk.engines.memory import lacks_memory
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.model_stock import ModelStock
from stellwerk.engines.options import EngineOptions
from stellwerk.engines.residents import Residents
from stellwerk.engines.slot import Slot, Tenant

log = logging.getLogger("stellwerk.engines")

_RETRY = 5.0
_BREATH = 0.25
"""Seconds between two requests of one client in which a model is not idle: otherwise two busy ones would take each
other's place after every answer."""


class Loader:
    """Fulfils wishes, one after the other: `load` must not be called again before it has ended."""

    def __init__(
        self,
        residents: Residents,
        stock: ModelStock,
        holds: Holds,
        measures: Measures,
        *,
        capacity: Callable[[], Capacity],
        is_pinned: Callable[[str, bool], bool],
        turn_seconds: float,
        room_seconds: float,
        clock: Clock,
    ) -> None:
        """`capacity` looks at the memory; called in a thread. `is_pinned` says whether a model is pinned, of which the
        options say the second argument. A busy model keeps its place for `turn_seconds`, or as
        long as its load took, before it has to make room; for more than `room_seconds` nobody waits for room."""
        self._residents = residents
        self._stock = stock
        self._holds = holds
        self._measures = measures
        self._capacity = capacity
        self._is_pinned = is_pinned
        self._turn_seconds = turn_seconds
        self._room_seconds = room_seconds
        self._clock = clock

    async def load(self, wish: Wish) -> Tenant:
        """The model of the wish, ready. Raises a GatewayError that says why it is not."""
        order = wish.order or LoadOrder()
        file = await self._stock.find(wish.model)
        options = self._stock.options(file, order.overrides)
        if options.fault is not None:
            reason = f"The model '{file.id}' cannot be loaded: {options.fault}."
            raise BadRequest(reason) if order.overrides is not None else unavailable(reason, "model_failed")
        tenant = self._residents.tenant_of(wish.model)
        fits = tenant is not None and fits_order(tenant, self._residents.slot_of(wish.model), order, options)
        if tenant is not None and wish.order is not None and not wish.gentle:
            # Whoever has put another file in its place and loads it wants that one.
            fits = fits and tenant.file.stamp == file.stamp
        if tenant is None or not tenant.is_open or not fits:
            if tenant is not None:
                await self._clear(tenant, order)
            try:
                tenant = await self._load(wish, order, file, options)
            except EngineFailed as failure:
                raise self.failed(file, failure.reason) from None
        if order.overrides is not None:
            self._stock.say(file.id, order.overrides)
            tenant.pinned = self._is_pinned(file.id, options.pinned)
            tenant.keep_alive = options.keep_alive_seconds
        return tenant

    def failed(self, file: ModelFile, reason: str) -> Unavailable:
        """What a client is told of a model that could not be loaded."""
        now = self._clock.monotonic()
        hold = self._holds.on(file, now)
        return unavailable(
            f"The model '{file.id}' cannot be loaded: {reason}.", "model_failed", hold.until - now if hold else None
        )

    async def _load(self, wish: Wish, order: LoadOrder, file: ModelFile, options: EngineOptions) -> Tenant:
        short_before = False
        # Once for each port that turns out to be taken, and once more after a lack of memory.
        for _ in range(len(self._residents.slots) + 1):
            slot = await self._make_room(wish, order, file, options)
            wish.started = True
            try:
                return await self._start(slot, file, options)
            except EngineFailed as failure:
                if failure.port_taken:
                    if order.port is not None:
                        raise Conflict(f"Port {order.port} is used by another program.", code="port_taken") from None
                    self._residents.leave(slot)
                elif lacks_memory(failure.reason) and not short_before:
                    short_before = True
                    log.warning("engine %s lacks memory: all idle ones make room, and it is tried again", file.id)
                    self._residents.clear_idle()
                else:
                    raise
        raise unavailable("No slot has a free port.", "slots_busy")

    async def _start(self, slot: Slot, file: ModelFile, options: EngineOptions) -> Tenant:
        """Raises EngineFailed; the tenant then stays visible as failed."""
        tenant = self._residents.move_in(slot, file, options)
        tenant.reserved_mib = self._measures.need(file, options)
        tenant.pinned = self._is_pinned(file.id, options.pinned)
        began = self._clock.monotonic()
        try:
            await tenant.supervisor.ready()
        except asyncio.CancelledError:
            self._residents.leave_tenant(tenant)
            raise
        now = self._clock.monotonic()
        tenant.opened_at, tenant.loaded_at, tenant.load_seconds = now, self._clock.now(), now - began
        tenant.used, tenant.used_at = now, self._clock.now()
        tenant.reserved_mib = self._measures.note(file, options, tenant.supervisor)
        self._holds.lift(file)
        return tenant

    async def _make_room(self, wish: Wish, order: LoadOrder, file: ModelFile, options: EngineOptions) -> Slot:
        """A slot with a free port, and memory. Raises Unavailable when there never will be."""
        if order.port is not None:
            await self._clear_port(wish, order)
        end = self._clock.monotonic() + self._room_seconds
        try:
            while True:
                await self._residents.settle()
                slot = self._find_slot(file, order.port)
                verdict = await self._judge(file, options, slot)
                if isinstance(verdict, Shortage):
                    raise self._refusal(file, verdict, slot)
                if not verdict and slot is not None:
                    return slot
                if wish.gentle:
                    raise unavailable(f"There is no room for the model '{file.id}'.", "memory_short")
                wish.blocked = not self._make_leave(verdict)
                if wish.blocked:
                    if self._clock.monotonic() >= end:
                        raise unavailable(f"No model made room for '{file.id}' in time: they are in use.", "slots_busy")
                    await self._residents.stir(_BREATH)
        finally:
            wish.blocked = False
            self._residents.spare_all()

    async def _judge(self, file: ModelFile, options: EngineOptions, slot: Slot | None) -> tuple[str, ...] | Shortage:
        capacity = await asyncio.to_thread(self._capacity)
        needs, free = self._measures.need(file, options), float("inf")
        if capacity.all is not None:
            free = capacity.all - self._residents.reserved_mib()
            needs = self._measures.need(file, options, capacity.all)
        if capacity.now is not None:
            free = min(free, capacity.now)
        return choose_victims(
            self._residents.for_admission(), needs=needs, free=free, slots_free=0 if slot is None else 1
        )

    def _refusal(self, file: ModelFile, shortage: Shortage, slot: Slot | None) -> Unavailable:
        if slot is None and shortage.free + shortage.could_be_freed >= shortage.needs:
            return unavailable("Every slot for local models is in use.", "slots_busy")
        return unavailable(f"The model '{file.id}' cannot be loaded: {shortage}.", "memory_short")

    def _find_slot(self, file: ModelFile, port: int | None) -> Slot | None:
        """A vacant slot whose port nobody uses. Raises Conflict when a port that was asked for is used."""
        slots = self._residents.slots
        if port is not None:
            slot = self._residents.slot_at(port)
            if slot is not None and not slot.check_port():
                raise Conflict(f"Port {port} is used by another program.", code="port_taken")
            return slot
        first, *others = slots
        order = [first, *others] if self._stock.is_bundled(file.id) else [*others, first]
        # Empty ones first: a failed model stays visible as long as nobody needs its place.
        for slot in sorted(order, key=lambda each: each.tenant is not None):
            if slot.vacant and slot.check_port():
                return slot
        return None

    def _make_leave(self, names: tuple[str, ...]) -> bool:
        """Ends the chosen ones when none of them has requests; else takes no new ones in where their turn is over."""
        now = self._clock.monotonic()
        chosen = [tenant for tenant in self._residents.tenants() if tenant.file.id in names]
        if not any(tenant.leases or self._breathes(tenant, now) for tenant in chosen):
            for tenant in chosen:
                self._residents.leave_tenant(tenant)
            return True
        self._residents.spare_all()
        for tenant in chosen:
            tenant.wanted = True
            tenant.leaving = self._had_its_turn(tenant, now)
        return False

    def _breathes(self, tenant: Tenant, now: float) -> bool:
        """Whether a model that is idle at this moment was in use just now, and its turn is not over."""
        return now - tenant.used < _BREATH and not self._had_its_turn(tenant, now)

    def _had_its_turn(self, tenant: Tenant, now: float) -> bool:
        turn = max(self._turn_seconds, tenant.load_seconds)
        return tenant.opened_at is not None and now - tenant.opened_at >= turn

    async def _clear(self, tenant: Tenant, order: LoadOrder) -> None:
        """An engine of the same model that is not what is wanted."""
        if not tenant.dismissed:
            await self._residents.send_away(tenant, order.drain_seconds)
        while self._residents.tenant_of(tenant.file.id) is tenant:
            await self._residents.stir()

    async def _clear_port(self, wish: Wish, order: LoadOrder) -> None:
        slot = self._residents.slot_at(order.port) if order.port is not None else None
        if slot is not None and slot.tenant is not None:
            if wish.gentle and not slot.vacant:
                raise Conflict(f"Port {order.port} has another model by now.", code="port_taken")
            await self._residents.send_away(slot.tenant, order.drain_seconds)


def fits_order(tenant: Tenant, slot: Slot | None, order: LoadOrder, options: EngineOptions) -> bool:
    """Whether a loaded model is what was ordered."""
    if order.port is not None and (slot is None or slot.port != order.port):
        return False
    return order.overrides is None or _launched(tenant.options) == _launched(options)


def _launched(options: EngineOptions) -> EngineOptions:
    """Without what can be changed while the engine runs."""
    return msgspec.structs.replace(options, pinned=False, keep_alive_seconds=None)


def unavailable(message: str, code: str, retry_after: float | None = _RETRY) -> Unavailable:
    """Always this target's fault: another one may do better."""
    return Unavailable(message, code=code, retry_after=retry_after, may_fall_back=True)
