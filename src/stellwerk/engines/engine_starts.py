"""Makes the engines of tenants: what a supervisor starts, and whom it tells."""

import asyncio
import secrets
from collections.abc import Callable, Mapping

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.ports import EngineAddress
from stellwerk.engines import launching
from stellwerk.engines.crashes import Crash
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.holds import Holds
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.orphans import PidFiles
from stellwerk.engines.process import Launch
from stellwerk.engines.slot import HOST, Slot, Tenant
from stellwerk.engines.supervisor import Supervisor, SupervisorSettings


class EngineStarts:
    """`environment` is the gateway's own; engines receive the part of it that holds no secret."""

    def __init__(
        self,
        settings: SupervisorSettings,
        programs: EnginePrograms,
        environment: Mapping[str, str],
        *,
        holds: Holds,
        on_crash: Callable[[Crash], None],
        pids: PidFiles | None,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._programs = programs
        self._environment = environment
        self._holds = holds
        self._on_crash = on_crash
        self._pids = pids
        self._clock = clock

    def make(self, slot: Slot, tenant: Tenant) -> Supervisor:
        """The supervisor of a tenant that is about to move in; it is not started."""
        return Supervisor(
            tenant.file.id,
            launch=lambda: self._launch(slot, tenant),
            on_failure=lambda failure, had_served: self._note_failure(tenant, failure, had_served=had_served),
            settings=msgspec.structs.replace(self._settings, load_timeout=tenant.options.load_seconds),
            clock=self._clock,
            on_crash=self._on_crash,
            running=tenant.running,
            idle=tenant.holds_none,
            pids=self._pids,
        )

    async def _launch(self, slot: Slot, tenant: Tenant) -> Launch:
        """The command for the next start, after a last look at files and port. Raises EngineFailed."""
        await asyncio.to_thread(launching.check_files, tenant.file, tenant.options)
        if not slot.check_port():
            raise EngineFailed(str(slot.fault), port_taken=True)
        address = EngineAddress(host=HOST, port=slot.port, key=secrets.token_urlsafe(32))
        return launching.launch(tenant.file, tenant.options, address, self._environment, self._programs)

    def _note_failure(self, tenant: Tenant, failure: EngineFailed, *, had_served: bool) -> None:
        if not failure.port_taken:
            self._holds.note(tenant.file, failure.reason, self._clock.monotonic(), had_served=had_served)
