"""One slot: a port, the model that lives there, and the leases on it."""

import asyncio
import socket

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.supervisor import EngineState, Supervisor

HOST = "127.0.0.1"


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One slot, for health and metrics."""

    port: int
    state: str
    """`empty` or a state of the engine; `failed` without a model when the port belongs to another program."""
    model: str | None = None
    pid: int | None = None
    leases: int = 0
    restarts: int = 0
    """Since the gateway started; never falls."""
    error: str | None = None
    """The last failure, also when it was repaired: one line without paths."""


class Tenant:
    """A model in a slot, with its engine."""

    def __init__(self, file: ModelFile, supervisor: Supervisor, places: int, clock: Clock) -> None:
        self.file = file
        self.supervisor = supervisor
        self.leases = 0
        """Given and awaited ones; the slot is not taken away while there are any."""
        self.used = clock.monotonic()
        self._places = asyncio.Semaphore(places)
        self._clock = clock

    @property
    def failed(self) -> bool:
        return self.supervisor.state is EngineState.FAILED

    async def lease(self) -> "Lease":
        """Waits for a place and for the engine. Raises EngineFailed."""
        self.leases += 1
        try:
            await self._places.acquire()
        except BaseException:
            self.leases -= 1
            raise
        try:
            return Lease(await self.supervisor.ready(), self)
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        self._places.release()
        self.leases -= 1
        self.used = self._clock.monotonic()


class Lease:
    """A place at a loaded model; fills the port `EngineLease`."""

    def __init__(self, address: EngineAddress, tenant: Tenant) -> None:
        self.address = address
        self._tenant = tenant
        self._released = False

    def doubt(self) -> None:
        """To be called when the engine refused or broke the connection: it is probed before anybody gets it again."""
        self._tenant.supervisor.doubt()

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._tenant.give_back()


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

    def status(self) -> SlotStatus:
        if self.tenant is None:
            state = EngineState.FAILED.value if self.fault else "empty"
            return SlotStatus(port=self.port, state=state, restarts=self._past_restarts, error=self.fault)
        supervisor = self.tenant.supervisor
        return SlotStatus(
            port=self.port,
            state=supervisor.state.value,
            model=self.tenant.file.id,
            pid=supervisor.pid,
            leases=self.tenant.leases,
            restarts=self._past_restarts + supervisor.restarts,
            error=supervisor.failure.reason if supervisor.failure is not None else None,
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
