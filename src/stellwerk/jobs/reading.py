"""What is asked about jobs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, case, func, or_, select

from stellwerk.core.errors import NotFound
from stellwerk.jobs.job import Attempt, Job, QueueCounts, Standing, State
from stellwerk.jobs.tables import SHOWN, job_attempts, job_queues, jobs, read_job

MOST_LISTED = 1_000
_RECENT_ENDS = 50
_RECENT_SECONDS = 3600.0
_IDS_AT_ONCE = 500

_jobs = jobs.c

# Made once: workers ask these all the time.
_WAITING = select(job_queues.c.queue).where(
    ~job_queues.c.paused,
    select(_jobs.number).where(_jobs.state == State.QUEUED, _jobs.queue == job_queues.c.queue).exists(),
)
_RUNNING = (
    select(_jobs.queue, func.count().label("running"))
    .where(_jobs.state == State.LEASED, _jobs.owner.is_not(None))
    .group_by(_jobs.queue)
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows; None and empty show everything."""

    key_id: str | None = None
    user_id: int | None = None
    queue: str | None = None
    states: Collection[State] = ()
    batch_id: str | None = None
    parent_id: str | None = None
    before: str | None = None
    """Id of a job: only those that were queued before it."""
    limit: int = 100


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A queue in which something waits."""

    queue: str
    running: int


class Sight(msgspec.Struct, frozen=True):
    """What somebody who watches a job must hear of when it changes."""

    state: str
    attempts: int
    progress: Any


def find(connection: Connection, job_id: str) -> Job:
    """Raises NotFound, code `job_not_found`."""
    row = connection.execute(select(*SHOWN).where(_jobs.id == job_id)).one_or_none()
    if row is None:
        raise job_not_found()
    return read_job(row)


def find_result(connection: Connection, job_id: str) -> bytes | None:
    """The sealed result; None when there is none, or not any more."""
    return connection.scalar(select(_jobs.result).where(_jobs.id == job_id))


def find_body(connection: Connection, job_id: str) -> bytes:
    """The sealed body. Raises NotFound when there is none any more."""
    body: bytes | None = connection.scalar(select(_jobs.body).where(_jobs.id == job_id))
    if body is None:
        raise job_not_found()
    return body


def list_jobs(connection: Connection, wanted: Filter) -> list[Job]:
    """The newest first."""
    conditions = [
        column == value
        for column, value in (
            (_jobs.key_id, wanted.key_id),
            (_jobs.user_id, wanted.user_id),
            (_jobs.queue, wanted.queue),
            (_jobs.batch_id, wanted.batch_id),
            (_jobs.parent_id, wanted.parent_id),
        )
        if value is not None
    ]
    if wanted.states:
        conditions.append(_jobs.state.in_(list(wanted.states)))
    if wanted.before is not None:
        number = connection.scalar(select(_jobs.number).where(_jobs.id == wanted.before))
        if number is None:
            raise job_not_found()
        conditions.append(_jobs.number < number)
    limit = max(0, min(wanted.limit, MOST_LISTED))
    query = select(*SHOWN).where(*conditions).order_by(_jobs.number.desc()).limit(limit)
    return [read_job(row) for row in connection.execute(query)]


def children(connection: Connection, job_id: str) -> list[Job]:
    """In the order in which they were queued."""
    query = select(*SHOWN).where(_jobs.parent_number == _number_of(job_id)).order_by(_jobs.number)
    return [read_job(row) for row in connection.execute(query)]


def attempts(connection: Connection, job_id: str) -> list[Attempt]:
    """Oldest first."""
    columns = job_attempts.c
    query = select(job_attempts).where(columns.job_number == _number_of(job_id)).order_by(columns.fence)
    return [
        Attempt(
            number=row.number,
            started_at=row.started_at,
            ended_at=row.ended_at,
            outcome=row.outcome,
            status=row.status,
            error=row.error,
        )
        for row in connection.execute(query)
    ]


def batch_counts(connection: Connection, batch_id: str) -> dict[State, int]:
    """How many jobs of a batch are in each state; states without any are left out."""
    query = select(_jobs.state, func.count()).where(_jobs.batch_id == batch_id).group_by(_jobs.state)
    return {State(state): count for state, count in connection.execute(query)}


def count_queues(connection: Connection, queue: str | None = None) -> list[QueueCounts]:
    """Every queue that there ever was a job in, or one of them; by name."""
    query = select(job_queues).order_by(job_queues.c.queue)
    if queue is not None:
        query = query.where(job_queues.c.queue == queue)
    return [
        QueueCounts(
            queue=row.queue,
            processing=_count(connection, row.queue, State.LEASED),
            waiting=_count(connection, row.queue, State.QUEUED),
            paused=row.paused,
            dead=_count(connection, row.queue, State.DEAD),
            total_processed=row.processed,
            total_failed=row.failed,
            total_timeout=row.timeouts,
            total_cancelled=row.cancelled,
        )
        for row in connection.execute(query).all()
    ]


def standing(connection: Connection, job_id: str, now: float) -> Standing | None:
    """None when the job does not wait. That jobs grow more urgent with time is not foreseen."""
    query = select(_jobs.queue, _jobs.rank, _jobs.tag, _jobs.state).where(_jobs.id == job_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise job_not_found()
    if row.state != State.QUEUED:
        return None
    same_queue = _jobs.state == State.QUEUED, _jobs.queue == row.queue
    ahead = select(func.count()).where(
        *same_queue, or_(_jobs.rank < row.rank, (_jobs.rank == row.rank) & (_jobs.tag < row.tag))
    )
    position = (connection.scalar(ahead) or 0) + 1
    rate = throughput(connection, row.queue, now)
    return Standing(position=position, estimated_start=None if rate is None else now + position / rate)


def throughput(connection: Connection, queue: str, now: float) -> float | None:
    """Jobs that end in a second lately; None when nobody knows."""
    query = (
        select(_jobs.finished_at)
        .where(_jobs.queue == queue, _jobs.finished_at > now - _RECENT_SECONDS)
        .order_by(_jobs.finished_at.desc())
        .limit(_RECENT_ENDS)
    )
    ends: Sequence[float] = connection.scalars(query).all()
    if len(ends) < 2:
        return None
    return len(ends) / max(now - ends[-1], 0.001)


def waiting_queues(connection: Connection) -> list[Waiting]:
    """Queues that are not paused and in which something waits."""
    names = connection.scalars(_WAITING).all()
    running = running_by_queue(connection) if names else {}
    return [Waiting(queue=name, running=running.get(name, 0)) for name in names]


def running_by_queue(connection: Connection) -> Mapping[str, int]:
    """Those that only wait for their children are left out."""
    return {row.queue: row.running for row in connection.execute(_RUNNING)}


def has_overdue(connection: Connection, owner: str, now: float) -> bool:
    """Whether a deadline has passed, or the lease of somebody other than `owner`."""
    late = select(_jobs.number).where(_jobs.state == State.QUEUED, _jobs.deadline_at <= now)
    lost = select(_jobs.number).where(_jobs.state == State.LEASED, _jobs.owner != owner, _jobs.lease_until <= now)
    return any(connection.scalar(query.limit(1)) is not None for query in (late, lost))


def look_at(connection: Connection, ids: Iterable[str]) -> dict[str, Sight]:
    """What those who watch these jobs would see now; forgotten jobs are left out."""
    wanted = list(ids)
    seen: dict[str, Sight] = {}
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        query = select(_jobs.id, _jobs.state, _jobs.attempts, _jobs.progress).where(
            _jobs.id.in_(wanted[start : start + _IDS_AT_ONCE])
        )
        for row in connection.execute(query):
            seen[row.id] = Sight(row.state, row.attempts, row.progress)
    return seen


def job_not_found() -> NotFound:
    return NotFound("There is no such job.", code="job_not_found")


def _count(connection: Connection, queue: str, state: State) -> int:
    parked = case((_jobs.owner.is_(None), 1), else_=0)
    counted = func.count() - func.sum(parked) if state is State.LEASED else func.count()
    return connection.scalar(select(counted).where(_jobs.state == state, _jobs.queue == queue)) or 0


def _number_of(job_id: str) -> Any:
    return select(_jobs.number).where(_jobs.id == job_id).scalar_subquery()
