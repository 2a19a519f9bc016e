"""What the console knows of a gateway at one moment. Times are Unix seconds."""

import msgspec

RESOLUTIONS = ("tiny", "small", "base", "large", "gundam")
LIVE = "live"
"""The kind of a request whose client waits for it; the others are stored."""
WAITING_STATES = frozenset({"queued", "leased", "running"})


class Model(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: str
    """running, loading, draining, crashed, stopped or unusable; a newer gateway may have more."""
    port: int | None = None
    uptime: float | None = None
    resolution: str = ""
    healthy: bool | None = None
    memory_mib: float | None = None
    error: str = ""

    @property
    def loaded(self) -> bool:
        return self.state not in {"stopped", "unusable"}


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    processing: int = 0
    waiting: int = 0
    max_concurrent: int = 0
    """0 when there is no bound."""
    max_waiting: int = 0
    processed: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    dead: int = 0
    paused: bool = False

    @property
    def utilization(self) -> float:
        """From 0 to 1; 0 without a bound."""
        return min(1.0, self.processing / self.max_concurrent) if self.max_concurrent else 0.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    client: str = ""
    state: str = "queued"
    kind: str = ""
    position: int | None = None
    created: float | None = None
    attempts: int = 0
    error: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""

    @property
    def ended(self) -> bool:
        return self.state not in WAITING_STATES


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    reason: str
    at: float | None = None
    last_lines: tuple[str, ...] = ()


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is empty when nothing should change."""

    model: str = ""
    replaces: str = ""
    reasons: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """None where the gateway does not tell."""

    at: float
    version: str = ""
    models: tuple[Model, ...] = ()
    queues: tuple[Queue, ...] | None = None
    jobs: tuple[Job, ...] | None = None
    crashes: tuple[Crash, ...] | None = None
    advice: Advice | None = None
    in_flight: int | None = None
    memory_used_mib: float | None = None
    memory_capacity_mib: float | None = None
