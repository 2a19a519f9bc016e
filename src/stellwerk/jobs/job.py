"""A job and everything that is said about one. Times are Unix seconds."""

from enum import StrEnum
from typing import Literal

import msgspec

from stellwerk.core.principal import Priority


class State(StrEnum):
    """`queued` and `leased` lead to one of the others, which are ends; a dead one can be queued again by hand."""

    QUEUED = "queued"
    LEASED = "leased"
    """Somebody works on it, or on its children."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"
    """Given up after the last attempt; its body is kept."""

    @property
    def ended(self) -> bool:
        return self not in (State.QUEUED, State.LEASED)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    done: int
    total: int | None = None
    unit: str = ""


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way into the queue."""

    kind: str
    queue: str
    """The model that it counts against."""
    path: str
    body: bytes
    key_id: str
    user_id: int = 0
    client_id: str = ""
    """Whom the key's owner runs it for; clients of one holder share its turns."""
    holder: str = ""
    """Whose waiting jobs are bounded and between whom turns are fair; empty is the key."""
    priority: Priority = Priority.NORMAL
    deadline_seconds: float | None = None
    idempotency_key: str | None = None
    parent_id: str | None = None
    batch_id: str | None = None
    labels: dict[str, str] = {}
    """A few words of the caller's that everybody may see who sees the job."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    queue: str
    path: str
    key_id: str
    user_id: int
    client_id: str
    priority: Priority
    labels: dict[str, str]
    created_at: float
    queued_at: float
    """Since when it waits, or when it last began to wait."""
    deadline_at: float
    """If it has not begun by then it never will."""
    state: State
    attempts: int
    fence: int = 0
    """How often it was given to somebody. Attempts that do not count have one of their own too."""
    started_at: float | None = None
    finished_at: float | None = None
    status: int | None = None
    """The HTTP status of its answer."""
    error: JobError | None = None
    progress: Progress | None = None
    idempotency_key: str | None = None
    parent_id: str | None = None
    batch_id: str | None = None
    result_type: str | None = None
    """Media type of its result."""
    result_kept: bool = False
    result_expires_at: float | None = None
    result: bytes | None = None
    """Only where it was asked for."""
    replayed: bool = False
    """It was there already: an idempotency key was used again."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to work on a job. Whoever has been given it later has a higher `fence`."""

    number: int
    job_id: str
    owner: str
    fence: int


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be performed."""

    job: Job
    body: bytes
    lease: Lease
    attempt: int
    """1 is the first since it was last queued by hand."""


class Performed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt."""

    status: int
    result: bytes = b""
    result_type: str = "application/json"
    error: JobError | None = None
    retry: bool = False
    """Another attempt may do better."""
    retry_after: float | None = None
    park: bool = False
    unit: str = ""
    postponed: Literal["key", "queue"] | None = None
    """Whose turn it is not yet: that of its key's jobs in this queue, or of all in it."""

    @classmethod
    def not_yet(cls, seconds: float, whose: Literal["key", "queue"]) -> "Performed":
        """Nobody was asked, and the attempt does not count: the job is next again, after a rest of so many seconds."""
        return cls(status=0, retry_after=seconds, postponed=whose)

    @classmethod
    def wait_for_children(cls, unit: str = "") -> "Performed":
        """The job gives its worker back and is performed again, with new attempts, when all of its children ended.

        `unit` is what its progress calls them.
        """
        return cls(status=0, park=True, unit=unit)

    @property
    def good(self) -> bool:
        return self.error is None and 200 <= self.status < 300


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as the log has it."""

    number: int
    started_at: float
    ended_at: float | None
    outcome: str | None
    """done, failed, retried, parked, cancelled, lost, returned or dead; None while it runs."""
    status: int | None
    error: str | None


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one model; totals count since the beginning."""

    queue: str
    processing: int
    waiting: int
    paused: bool
    dead: int
    """Of the dead ones that are still remembered."""
    total_processed: int
    total_failed: int
    """Failed or dead."""
    total_timeout: int
    """Those among the failed and dead that ran out of time."""
    total_cancelled: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands in the line, as it would be served if nobody came any more."""

    position: int
    """1 is next."""
    estimated_start: float | None
    """None as long as nothing in this queue has ended lately."""


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["state", "position", "progress", "piece", "end"]
    job: Job | None = None
    standing: Standing | None = None
    progress: Progress | None = None
    data: bytes = b""
    """Part of the answer, as it arrives."""
    offset: int = 0
    """Bytes of the answer before `data`; a jump says that the listener was too slow or came too late. A return to 0
    says that another attempt has begun."""
