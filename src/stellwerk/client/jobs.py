"""Jobs as this package hands them out: requests that the gateway answers later."""

from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import msgspec

from stellwerk.client.errors import JobFailed, StellwerkError, StillRunning
from stellwerk.client.events import Event
from stellwerk.client.shapes import not_understood

Status = Literal["queued", "running", "completed", "failed", "cancelled", "dead"]
ENDED: Final[frozenset[str]] = frozenset({"completed", "failed", "cancelled", "dead"})

Shape = TypeVar("Shape")


class Progress(msgspec.Struct, frozen=True):
    done: int
    total: int | None = None
    unit: str = ""


class JobError(msgspec.Struct, frozen=True):
    code: str
    message: str


class JobAttempt(msgspec.Struct, frozen=True):
    number: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    """None while it runs."""
    status: int | None = None
    error: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was when the gateway was asked."""

    id: str
    status: Status
    """`queued` and `running` lead to one of the others; a dead one can be queued again by hand."""
    kind: str = "call"
    model: str = ""
    path: str = ""
    priority: str = "normal"
    client_id: str = ""
    key_id: str = ""
    labels: dict[str, str] = {}
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    waited_seconds: float | None = None
    ran_seconds: float | None = None
    attempts: int = 0
    position: int | None = None
    """Its place in the line; 1 is next."""
    estimated_start: datetime | None = None
    progress: Progress | None = None
    http_status: int | None = None
    """Of its answer."""
    error: JobError | None = None
    result_expires_at: datetime | None = None
    result_url: str | None = None
    """None when no result is kept."""
    batch_id: str | None = None
    parent_id: str | None = None
    attempt_log: list[JobAttempt] | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def check(self) -> None:
        """Raises JobFailed when it has ended otherwise than well, and StillRunning when it has not."""
        if not self.ended:
            raise StillRunning(f"Job {self.id} is {self.status}.", self)
        if self.status != "completed":
            message = self.error.message if self.error else f"Job {self.id} was {self.status}."
            raise JobFailed(message, self, status=self.http_status, code=self.error.code if self.error else "")


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, newest first."""

    data: list[Job]
    has_more: bool = False
    last_id: str | None = None
    """What `before` has to be for the next page."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one model; totals count since the beginning."""

    model: str
    processing: int = 0
    waiting: int = 0
    max_concurrent: int | None = None
    max_waiting: int = 0
    paused: bool = False
    dead: int = 0
    total_processed: int = 0
    total_failed: int = 0
    total_timeout: int = 0
    total_cancelled: int = 0


class QueueList(msgspec.Struct, frozen=True):
    data: list[Queue]


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    type: str
    """`state`, `position`, `progress`, `piece` or `end`, which is the last one."""
    job: Job | None = None
    """Of `state` and `end`."""
    progress: Progress | None = None
    position: int | None = None
    estimated_start: datetime | None = None
    text: str = ""
    """Part of the answer, of `piece`."""
    offset: int = 0
    """Where in the answer `text` begins; a jump says that something is missing, a return to 0 that another attempt
    has begun."""


class JobResult(msgspec.Struct, frozen=True):
    """The answer to the request that the job was."""

    data: bytes
    content_type: str

    def json(self) -> Any:
        """Raises NotUnderstood when it is no JSON."""
        return self.read(Any)

    def read(self, shape: type[Shape]) -> Shape:
        """The answer as a `Chat`, `Embeddings`, `Ranking` or another type. Raises NotUnderstood."""
        try:
            return msgspec.json.decode(self.data, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise not_understood() from None


class _Standing(msgspec.Struct):
    position: int | None = None
    estimated_start: datetime | None = None


class _Piece(msgspec.Struct):
    text: str = ""
    offset: int = 0


def read_job_event(event: Event) -> JobEvent | None:
    """None for kinds of events that this version does not know."""
    try:
        if event.name in {"state", "end"}:
            return JobEvent(type=event.name, job=msgspec.json.decode(event.data, type=Job))
        if event.name == "position":
            standing = msgspec.json.decode(event.data, type=_Standing)
            return JobEvent(type="position", position=standing.position, estimated_start=standing.estimated_start)
        if event.name == "progress":
            return JobEvent(type="progress", progress=msgspec.json.decode(event.data, type=Progress))
        if event.name == "piece":
            piece = msgspec.json.decode(event.data, type=_Piece)
            return JobEvent(type="piece", text=piece.text, offset=piece.offset)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise not_understood() from None
    return None


def still_running(job: Job, seconds: float) -> StellwerkError:
    return StillRunning(f"Job {job.id} is still {job.status} after {seconds:g} s.", job)
