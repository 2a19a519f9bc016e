"""What a running gateway looks like from outside: obstacles, details, metrics, and the look for the uptime history."""

from collections.abc import Callable, Mapping
from typing import Any

from stellwerk import __version__
from stellwerk.app.listeners import Listeners
from stellwerk.app.providers import Providers
from stellwerk.engines.slots import Slots
from stellwerk.limits.gate import Gates, GateStatus
from stellwerk.pipeline.gateway import Gateway
from stellwerk.records.uptime import Look
from stellwerk.routing.breaker import Breakers
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.discovery import Discovery
from stellwerk.storage.writer import Writer
from stellwerk.telemetry.logs import LogWriter
from stellwerk.telemetry.metrics import MAX_LABEL_SETS, Metrics

_CRASHED = "failed"


class Observation:
    """Asks the parts when somebody looks; owns nothing."""

    def __init__(
        self,
        *,
        listeners: Listeners,
        writer: Writer,
        gateway: Gateway,
        catalogue: Catalogue,
        discovery: Discovery,
        engines: Slots,
        breakers: Breakers,
        gates: Gates,
        providers: Providers,
        reader: Callable[[], Mapping[str, Any]],
        logs: LogWriter,
    ) -> None:
        self._listeners = listeners
        self._writer = writer
        self._gateway = gateway
        self._catalogue = catalogue
        self._discovery = discovery
        self._engines = engines
        self._breakers = breakers
        self._gates = gates
        self._providers = providers
        self._reader = reader
        self._logs = logs

    def obstacles(self) -> list[str]:
        """Code words for what keeps the gateway from working; none when it is ready."""
        obstacles = []
        if self._listeners.draining:
            obstacles.append("draining")
        if not self._writer.healthy:
            obstacles.append("storage_unavailable")
        return obstacles

    def details(self) -> Mapping[str, Any]:
        return {
            "version": __version__,
            "obstacles": self.obstacles(),
            "in_flight": self._gateway.in_flight,
            "listeners": self._listeners.status(),
            "models": len(self._catalogue.models()),
            "providers": self._discovery.status(),
            "breakers": self._breakers.status(),
            "gates": self._gates.status(),
            "keys": self._providers.key_states(),
            "slots": self._engines.status(),
            "broken_models": dict(self._engines.broken()),
            "ocr": self._reader(),
            "ledger": {"backlog": self._writer.backlog, "dropped": self._writer.dropped},
        }

    async def look(self) -> Look:
        """For the uptime history; draining is no fault."""
        slots = self._engines.status()
        crashed = any(slot.state == _CRASHED for slot in slots)
        return Look(
            degraded=crashed or not self._writer.healthy,
            active_models=sum(slot.model is not None for slot in slots) or len(self._catalogue.models()),
        )

    def register(self, metrics: Metrics) -> None:
        """Adds what has to be asked for to the metrics."""
        gauges: tuple[tuple[str, str, Callable[[], float | dict[str, float]]], ...] = (
            ("in_flight", "Calls that are being answered.", lambda: self._gateway.in_flight),
            ("connections_open", "Open connections of clients.", lambda: self._listeners.connections),
            ("local_slots", "Engine slots by state.", self._slots_by_state),
            ("ledger_queue_depth", "Ledger rows that wait for their commit.", lambda: self._writer.backlog),
            ("log_queue_depth", "Log lines that wait to be written.", lambda: self._logs.waiting),
        )
        for name, description, read in gauges:
            metrics.watch(name, description, read)
        running, waiting = "Calls that have their turn, by gate.", "Calls that wait for their turn, by gate."
        metrics.watch("gate_running", running, lambda: self._by_gate(lambda gate: gate.running), label="gate")
        metrics.watch("gate_waiting", waiting, lambda: self._by_gate(lambda gate: gate.waiting), label="gate")
        dropped = "Ledger rows that were lost."
        metrics.watch("ledger_rows_dropped_total", dropped, lambda: self._writer.dropped, kind="counter")
        metrics.watch(
            "log_lines_dropped_total", "Log lines that were lost.", lambda: self._logs.dropped, kind="counter"
        )

    def _by_gate(self, read: Callable[[GateStatus], int]) -> dict[str, float]:
        return {gate.name: read(gate) for gate in self._gates.status()[:MAX_LABEL_SETS]}

    def _slots_by_state(self) -> dict[str, float]:
        states: dict[str, float] = {}
        for slot in self._engines.status():
            states[slot.state] = states.get(slot.state, 0) + 1
        return states
