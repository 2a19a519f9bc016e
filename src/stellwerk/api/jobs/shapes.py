"""How jobs and queues look in JSON."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from stellwerk.api._shapes import Instant, show_instant
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Attempt, Job, JobEvent, Progress, QueueCounts, Standing, State

JobId = Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="Id of a job.")]
QueueName = Annotated[str, Meta(min_length=1, max_length=256, description="The model whose queue it is.")]
Status = Literal["queued", "running", "completed", "failed", "cancelled", "dead"]
_STATUSES: Final[dict[State, Status]] = {
    State.QUEUED: "queued",
    State.LEASED: "running",
    State.DONE: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.DEAD: "dead",
}
STATES: Final = {status: state for state, status in _STATUSES.items()}
_JSON_TYPE = "application/json"


class ProgressShape(msgspec.Struct, kw_only=True):
    """How far a job is."""

    done: int
    total: int | None
    unit: str


class JobErrorShape(msgspec.Struct, kw_only=True):
    """Why a job was not answered."""

    code: str
    message: str


class AttemptShape(msgspec.Struct, kw_only=True):
    """One time that a job was begun."""

    number: int
    started_at: Instant
    ended_at: Instant | None
    outcome: Annotated[str | None, Meta(description="Null while it runs.")]
    status: Annotated[int | None, Meta(description="HTTP status of its answer.")]
    error: str | None


class JobShape(msgspec.Struct, kw_only=True):
    """A request that is answered later."""

    id: JobId
    object: Literal["job"]
    status: Annotated[
        Status, Meta(description="`dead` was given up after its last attempt and can be queued again by hand.")
    ]
    kind: Annotated[str, Meta(description="What is done: `call` is a call of a model.")]
    model: Annotated[str, Meta(description="The model in whose queue it is.")]
    path: str
    priority: Priority
    client_id: str
    key_id: str
    labels: dict[str, str]
    created_at: Instant
    started_at: Annotated[Instant | None, Meta(description="Of the latest attempt.")]
    finished_at: Instant | None
    deadline_at: Annotated[Instant, Meta(description="When it is given up if it has not begun by then.")]
    waited_seconds: Annotated[float | None, Meta(description="From being queued to its latest beginning.")]
    ran_seconds: Annotated[float | None, Meta(description="From its latest beginning to its end.")]
    attempts: int
    position: Annotated[int | None, Meta(description="Its place in the line; 1 is next.")] = None
    estimated_start: Instant | None = None
    progress: ProgressShape | None = None
    http_status: Annotated[int | None, Meta(description="HTTP status of its answer.")] = None
    error: JobErrorShape | None = None
    result: Annotated[
        Any, Meta(description="The answer, once it is there and is JSON; others are at `result_url`.")
    ] = None
    result_expires_at: Instant | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    attempt_log: list[AttemptShape] | None = None
    status_url: str
    events_url: str
    result_url: str | None = None


class JobListShape(msgspec.Struct, kw_only=True):
    """Jobs, newest first; `before` set to `last_id` lists the next ones."""

    object: Literal["list"]
    data: list[JobShape]
    has_more: bool
    last_id: str | None


class QueueShape(msgspec.Struct, kw_only=True):
    """The jobs of one model; totals count since the beginning."""

    name: str
    model: str
    processing: int
    waiting: int
    max_concurrent: Annotated[int | None, Meta(description="Jobs that run at a time; null is as many as workers.")]
    max_waiting: int
    paused: bool
    dead: int
    total_processed: int
    total_failed: int
    total_timeout: int
    total_cancelled: int


def show_status(state: State) -> Status:
    return _STATUSES[state]


def show_job(
    job: Job, standing: Standing | None = None, attempts: "list[Attempt] | None" = None, *, with_result: bool = False
) -> JobShape:
    url = f"/api/requests/{job.id}"
    return JobShape(
        id=job.id,
        object="job",
        status=_STATUSES[job.state],
        kind=job.kind,
        model=job.queue,
        path=job.path,
        priority=job.priority,
        client_id=job.client_id,
        key_id=job.key_id,
        labels=job.labels,
        created_at=show_instant(job.created_at),
        started_at=_instant(job.started_at),
        finished_at=_instant(job.finished_at),
        deadline_at=show_instant(job.deadline_at),
        waited_seconds=_between(job.created_at, job.started_at),
        ran_seconds=_between(job.started_at, job.finished_at),
        attempts=job.attempts,
        position=None if standing is None else standing.position,
        estimated_start=None if standing is None else _instant(standing.estimated_start),
        progress=show_progress(job.progress),
        http_status=job.status,
        error=None if job.error is None else JobErrorShape(code=job.error.code, message=job.error.message),
        result=_read_result(job) if with_result else None,
        result_expires_at=_instant(job.result_expires_at),
        batch_id=job.batch_id,
        parent_id=job.parent_id,
        attempt_log=None if attempts is None else [_show_attempt(attempt) for attempt in attempts],
        status_url=url,
        events_url=f"{url}/events",
        result_url=f"{url}/result" if job.result_kept else None,
    )


def show_progress(progress: Progress | None) -> ProgressShape | None:
    return None if progress is None else ProgressShape(done=progress.done, total=progress.total, unit=progress.unit)


def show_queue(counts: QueueCounts, width: int | None, max_waiting: int) -> QueueShape:
    fields = msgspec.structs.asdict(counts)
    name = fields.pop("queue")
    return QueueShape(name=name, model=name, max_concurrent=width, max_waiting=max_waiting, **fields)


def facts_of_job(job: Job) -> dict[str, Any]:
    """What a webhook is told of a job that has ended; never what was asked or answered."""
    shape = show_job(job)
    left_out = ("object", "position", "estimated_start", "result", "attempt_log")
    return {name: value for name, value in msgspec.to_builtins(shape).items() if name not in left_out}


def show_event(event: JobEvent) -> tuple[str, dict[str, Any]]:
    """Name and data of a server-sent event; the text of a piece is added by who knows what came before it."""
    if event.job is not None:
        return event.type, msgspec.to_builtins(show_job(event.job))
    if event.standing is not None:
        standing = event.standing
        return event.type, {"position": standing.position, "estimated_start": _instant(standing.estimated_start)}
    return event.type, msgspec.to_builtins(show_progress(event.progress)) or {}


def _show_attempt(attempt: Attempt) -> AttemptShape:
    return AttemptShape(
        number=attempt.number,
        started_at=show_instant(attempt.started_at),
        ended_at=_instant(attempt.ended_at),
        outcome=attempt.outcome,
        status=attempt.status,
        error=attempt.error,
    )


def _read_result(job: Job) -> Any:
    if job.result is None or (job.result_type or _JSON_TYPE).partition(";")[0].strip() != _JSON_TYPE:
        return None
    try:
        # It must fit in unread: a result is as large as an answer may be.
        msgspec.json.decode(job.result, type=msgspec.Raw)
    except msgspec.DecodeError:
        return None
    return msgspec.Raw(job.result)


def _instant(at: float | None) -> str | None:
    return None if at is None else show_instant(at)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(end - start, 0.0), 3)


JOB: Final[dict[str, Any]] = {
    "id": "550e8400-e29b-41d4-a716-446655440000",
    "object": "job",
    "status": "queued",
    "kind": "call",
    "model": "openai/gpt-5-mini",
    "path": "/v1/chat/completions",
    "priority": "normal",
    "client_id": "my_app",
    "key_id": "k7d3m2q5xa",
    "labels": {},
    "created_at": "2026-11-21T09:30:00.000Z",
    "started_at": None,
    "finished_at": None,
    "deadline_at": "2026-11-22T09:30:00.000Z",
    "waited_seconds": None,
    "ran_seconds": None,
    "attempts": 0,
    "position": 3,
    "estimated_start": "2026-11-21T09:30:12.000Z",
    "progress": None,
    "http_status": None,
    "error": None,
    "result": None,
    "result_expires_at": None,
    "batch_id": None,
    "parent_id": None,
    "attempt_log": None,
    "status_url": "/api/requests/550e8400-e29b-41d4-a716-446655440000",
    "events_url": "/api/requests/550e8400-e29b-41d4-a716-446655440000/events",
    "result_url": None,
}
QUEUE: Final[dict[str, Any]] = {
    "name": "openai/gpt-5-mini",
    "model": "openai/gpt-5-mini",
    "processing": 1,
    "waiting": 3,
    "max_concurrent": None,
    "max_waiting": 10_000,
    "paused": False,
    "dead": 0,
    "total_processed": 120,
    "total_failed": 2,
    "total_timeout": 0,
    "total_cancelled": 1,
}
