"""One slot: a port, the model that lives there, and the leases on it."""

import asyncio
import socket
from collections.abc import Callable

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import EngineOptions
from stellwerk.engines.supervisor import EngineState, Supervisor

HOST = "127.0.0.1"


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One slot, for operators, health and metrics. Holds no path."""

    port: int
    state: str
    """`empty`, `draining` or a state of the engine; `failed` without a model when the port belongs to another
    program."""
    model: str | None = None
    type: str | None = None
    engine: str | None = None
    pid: int | None = None
    leases: int = 0
    """Given and awaited."""
    waiting: int = 0
    """Of these the awaited ones."""
    restarts: int = 0
    """Since the gateway started; never falls."""
    error: str | None = None
    """The last failure, also when it was repaired: one line without paths."""
    memory_mib: float | None = None
    """Measured, with the files that the engine has mapped."""
    reserved_mib: float | None = None
    """What it counts with when another model needs room."""
    context: int | None = None
    threads: int | None = None
    """0 is every core but one."""
    parallel: int | None = None
    batch: int | None = None
    gpu_layers: int | None = None
    flash_attention: str | None = None
    kv_cache: str | None = None
    mlock: bool | None = None
    mmproj: str | None = None
    """Name of the projector's file."""
    pinned: bool = False
    loaded_at: float | None = None
    """Unix seconds, as the next two; None while it is loaded."""
    last_used: float | None = None
    expires_at: float | None = None
    """When it is unloaded if nobody asks until then; None never."""
    notes: tuple[str, ...] = ()
    """Wishes that were not granted, with the reason."""


class Tenant:
    """A model in a slot, with its engine. `attach` gives it the engine, which has to know whose requests it runs."""

    def __init__(self, file: ModelFile, options: EngineOptions, clock: Clock, stirred: Callable[[], None]) -> None:
        """`stirred` is called when the last lease is given back while somebody is out for the room."""
        self.file = file
        self.options = options
        self.reserved_mib = 0.0
        self.pinned = options.pinned
        self.keep_alive = options.keep_alive_seconds
        """Seconds without a request after which it leaves; None never."""
        self.opened_at: float | None = None
        """Monotonic seconds of the first time that it was ready; None before."""
        self.loaded_at: float | None = None
        self.load_seconds = 0.0
        self.used = clock.monotonic()
        self.used_at = clock.now()
        self.leaving = False
        """New requests wait for the next load, since this one has to make room."""
        self.dismissed = False
        """It leaves in any case; what `leaving` says may be taken back otherwise."""
        self.wanted = False
        """Somebody waits for the last lease to be given back."""
        self.awaited = 0
        self._held: dict[int, str] = {}
        self._numbers = 0
        self._places = asyncio.Semaphore(options.max_requests)
        self._clock = clock
        self._stirred = stirred

    def attach(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    @property
    def leases(self) -> int:
        """Given and awaited ones."""
        return len(self._held) + self.awaited

    @property
    def failed(self) -> bool:
        return self.supervisor.state is EngineState.FAILED

    @property
    def is_open(self) -> bool:
        """Whether a request may wait for a lease here: it has been ready, and is neither given up nor to leave."""
        return self.opened_at is not None and not self.leaving and not self.failed

    @property
    def memory_mib(self) -> float:
        """What it takes of the memory that there is: what was reserved, or more once it has grown."""
        return 0.0 if self.failed else max(self.reserved_mib, self.supervisor.memory_mib or 0.0)

    def running(self) -> tuple[str, ...]:
        """Ids of the requests that the engine works on."""
        return tuple(name for name in self._held.values() if name)

    def holds_none(self) -> bool:
        return not self._held

    def book(self) -> None:
        """Keeps the model for somebody who will call `lease` with `booked` in a moment, or `give_up`."""
        self.awaited += 1

    def give_up(self) -> None:
        """Instead of the lease that was booked."""
        self.awaited -= 1
        self._look_idle()

    async def lease(self, request_id: str = "", *, booked: bool = False) -> "Lease":
        """Waits for a place and for the engine. Raises EngineFailed."""
        if not booked:
            self.awaited += 1
        try:
            await self._places.acquire()
            try:
                address = await self.supervisor.ready()
            except BaseException:
                self._places.release()
                raise
        except BaseException:
            self.give_up()
            raise
        self.awaited -= 1
        self._numbers += 1
        self._held[self._numbers] = request_id
        return Lease(address, self, self._numbers)

    def give_back(self, number: int) -> None:
        del self._held[number]
        self._places.release()
        self._look_idle()

    def _look_idle(self) -> None:
        self.used = self._clock.monotonic()
        self.used_at = self._clock.now()
        if self.wanted and not self.leases:
            self._stirred()

    def expires_at(self) -> float | None:
        if self.pinned or self.keep_alive is None or self.opened_at is None:
            return None
        return (self._clock.now() if self.leases else self.used_at) + self.keep_alive


class Lease:
    """A place at a loaded model; fills the port `EngineLease`."""

    def __init__(self, address: EngineAddress, tenant: Tenant, number: int) -> None:
        self.address = address
        self._tenant = tenant
        self._number = number
        self._released = False

    def doubt(self) -> None:
        """To be called when the engine refused or broke the connection: it is probed before anybody gets it again."""
        self._tenant.supervisor.doubt()

    def suspect(self) -> None:
        """To be called when the engine gave nothing in time: in use and giving nothing to anybody, it is replaced."""
        self._tenant.supervisor.suspect()

    def note_answer(self) -> None:
        """To be called for everything that comes from the engine."""
        self._tenant.supervisor.note_answer()

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._tenant.give_back(self._number)


class Slot:
    """`tenant` is None while it is empty; a failed tenant stays visible until the slot is needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tenant: Tenant | None = None
        self.fault: str | None = None
        """Why the port itself could not be used when it was last tried."""
        self._past_restarts = 0

    @property
    def vacant(self) -> bool:
        return self.tenant is None or self.tenant.failed

    def check_port(self) -> bool:
        """Whether nobody listens on the port. A program that does is never spoken to."""
        self.fault = None if _is_free(self.port) else f"port {self.port} is used by another program"
        return self.fault is None

    def vacate(self) -> Tenant | None:
        """Empties the slot; the caller stops the tenant that it returns."""
        tenant, self.tenant = self.tenant, None
        if tenant is not None:
            self._past_restarts += tenant.supervisor.restarts
        return tenant

    def status(self, waiting: int = 0) -> SlotStatus:
        """`waiting` requests wait for the model to be loaded."""
        tenant = self.tenant
        if tenant is None:
            state = EngineState.FAILED.value if self.fault else "empty"
            return SlotStatus(port=self.port, state=state, restarts=self._past_restarts, error=self.fault)
        supervisor, options = tenant.supervisor, tenant.options
        drains = tenant.leaving and supervisor.state is EngineState.READY
        return SlotStatus(
            port=self.port,
            state="draining" if drains else supervisor.state.value,
            model=tenant.file.id,
            type=options.type.value,
            engine=options.engine,
            pid=supervisor.pid,
            leases=tenant.leases + waiting,
            waiting=tenant.awaited + waiting,
            restarts=self._past_restarts + supervisor.restarts,
            error=supervisor.failure.reason if supervisor.failure is not None else None,
            memory_mib=None if supervisor.memory_mib is None else round(supervisor.memory_mib, 1),
            reserved_mib=round(tenant.memory_mib, 1),
            context=options.context,
            threads=options.threads,
            parallel=options.parallel,
            batch=options.batch,
            gpu_layers=options.gpu_layers,
            flash_attention=options.flash_attention,
            kv_cache=options.kv_cache,
            mlock=options.mlock,
            mmproj=options.mmproj.name if options.mmproj is not None else None,
            pinned=tenant.pinned,
            loaded_at=tenant.loaded_at,
            last_used=tenant.used_at if tenant.opened_at is not None else None,
            expires_at=tenant.expires_at(),
            notes=options.notes,
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the engine binds it: connections of its predecessor that still fade away do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True
