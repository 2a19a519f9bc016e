"""Which model lives in which slot: moving in, leaving, and waiting until running requests are done."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from stellwerk.core.clock import Clock
from stellwerk.engines.admission import Resident
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import EngineOptions
from stellwerk.engines.slot import Slot, Tenant
from stellwerk.engines.supervisor import Supervisor

log = logging.getLogger("stellwerk.engines")

_LONGEST_NAP = 0.5
"""Between two looks at something of which not every change is announced."""


class Residents:
    """Owns the slots and who is in them. For the event loop's thread alone."""

    def __init__(
        self,
        ports: Iterable[int],
        clock: Clock,
        engine: Callable[[Slot, Tenant], Supervisor],
        moved: Callable[[], None],
    ) -> None:
        """`engine` makes the supervisor of a tenant; `moved` is called when somebody has moved in or left."""
        self.slots = [Slot(port) for port in ports]
        self._clock = clock
        self._engine = engine
        self._moved = moved
        self._by_model: dict[str, Slot] = {}
        self._leaving: dict[asyncio.Task[None], Tenant] = {}
        self._stirred = asyncio.Event()

    def slot_at(self, port: int) -> Slot | None:
        return next((slot for slot in self.slots if slot.port == port), None)

    def slot_of(self, model: str) -> Slot | None:
        return self._by_model.get(model)

    def tenant_of(self, model: str) -> Tenant | None:
        slot = self._by_model.get(model)
        return slot.tenant if slot is not None else None

    def tenants(self) -> Iterator[Tenant]:
        return (slot.tenant for slot in self.slots if slot.tenant is not None)

    def ports(self) -> Mapping[int, str]:
        """The model at each port that has one."""
        return {slot.port: slot.tenant.file.id for slot in self.slots if slot.tenant is not None}

    def reserved_mib(self) -> float:
        """Of all engines, those that are about to end included."""
        return sum(tenant.memory_mib for tenant in (*self.tenants(), *self._leaving.values()))

    def for_admission(self) -> Sequence[Resident]:
        """Those who run."""
        now = self._clock.monotonic()
        return [
            Resident(
                name=tenant.file.id,
                mib=tenant.memory_mib,
                idle_seconds=now - tenant.used,
                busy=tenant.leases > 0,
                pinned=tenant.pinned,
            )
            for tenant in self.tenants()
            if not tenant.failed
        ]

    def move_in(self, slot: Slot, file: ModelFile, options: EngineOptions) -> Tenant:
        """A new engine for `file` in `slot`, which ends what is in it first; it still has to be started."""
        leaving = self.leave(slot)
        tenant = Tenant(file, options, self._clock, self._stirred.set)
        supervisor = self._engine(slot, tenant)
        tenant.attach(supervisor)
        slot.tenant = tenant
        self._by_model[file.id] = slot
        supervisor.start(after=leaving)
        self._moved()
        return tenant

    def leave(self, slot: Slot) -> asyncio.Task[None] | None:
        """Empties the slot at once and returns the task that ends what was in it."""
        tenant = slot.vacate()
        if tenant is None:
            return None
        del self._by_model[tenant.file.id]
        log.info("engine %s leaves port %d", tenant.file.id, slot.port)
        leaving = asyncio.create_task(tenant.supervisor.stop(), name=f"end of engine {tenant.file.id}")
        self._leaving[leaving] = tenant
        leaving.add_done_callback(self._leaving.pop)
        self._moved()
        return leaving

    def leave_tenant(self, tenant: Tenant) -> asyncio.Task[None] | None:
        """The same for a tenant, unless it has left already."""
        slot = self._by_model.get(tenant.file.id)
        return self.leave(slot) if slot is not None and slot.tenant is tenant else None

    async def send_away(self, tenant: Tenant, seconds: float) -> None:
        """Lets no new request in, gives the running ones `seconds` to end, and returns when the engine has ended.

        Cancelled before that, the model stays.
        """
        tenant.leaving = tenant.wanted = tenant.dismissed = True
        end = self._clock.monotonic() + seconds
        try:
            while tenant.leases and not tenant.failed and (left := end - self._clock.monotonic()) > 0:
                await self.stir(left)
        except asyncio.CancelledError:
            tenant.leaving = tenant.wanted = tenant.dismissed = False
            raise
        leaving = self.leave_tenant(tenant)
        if leaving is not None:
            await asyncio.wait({leaving})

    def spare_all(self) -> None:
        """Those who should have made room for somebody may stay, but for those who leave in any case."""
        for tenant in self.tenants():
            if not tenant.dismissed:
                tenant.leaving = tenant.wanted = False

    def clear_idle(self) -> None:
        """Ends every engine that nobody uses and nobody has pinned."""
        for tenant in list(self.tenants()):
            if not tenant.leases and not tenant.pinned:
                self.leave_tenant(tenant)

    async def stir(self, longest: float = _LONGEST_NAP) -> None:
        """Returns when a model that somebody wants gone is idle, and now and then."""
        self._stirred.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(longest, _LONGEST_NAP)):
                await self._stirred.wait()

    async def settle(self) -> None:
        """Returns when every engine that has to leave has ended."""
        while self._leaving:
            await asyncio.wait(set(self._leaving))
