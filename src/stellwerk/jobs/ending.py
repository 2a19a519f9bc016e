"""How jobs end, each exactly once; and how an ended one of the dead is queued again."""

from typing import Any

import msgspec
from sqlalchemy import Connection, case, func, select, update

from stellwerk.core.errors import Conflict
from stellwerk.jobs.job import Job, JobError, Progress, State
from stellwerk.jobs.reading import find, job_not_found
from stellwerk.jobs.tables import SHOWN, job_attempts, job_queues, jobs, read_job

_OPEN = (State.QUEUED, State.LEASED)
_CANCELLED = JobError(code="cancelled", message="The job was cancelled.")

_GATHER_SECONDS = 3600.0
"""A job whose children have ended has at least so long to be performed for the last time."""

_jobs = jobs.c


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ends. `result` is sealed."""

    state: State
    status: int | None
    outcome: str
    """What the log says of the attempt that ends with it."""
    error: JobError | None = None
    result: bytes | None = None
    result_type: str | None = None
    result_until: float | None = None
    timed_out: bool = False


def end(connection: Connection, conditions: tuple[Any, ...], ending: End, now: float) -> Job | None:
    """Ends the one job that `conditions` name; None, and nothing happens, when there is none any more.

    What it holds for its work goes with it, except for a dead one's, which may be queued again. Its children that have
    not ended are cancelled, and its parent learns of it.
    """
    columns: dict[str, Any] = {
        "state": ending.state,
        "owner": None,
        "lease_until": None,
        "finished_at": now,
        "status": ending.status,
        "error": None if ending.error is None else msgspec.to_builtins(ending.error),
        "result": ending.result,
        "result_type": ending.result_type,
        "result_expires_at": None if ending.result is None else ending.result_until,
    }
    if ending.state is not State.DEAD:
        columns["body"] = None
    statement = update(jobs).where(*conditions).values(columns)
    returned = statement.returning(*SHOWN, _jobs.number, _jobs.fence, _jobs.parent_number)
    row = connection.execute(returned).one_or_none()
    if row is None:
        return None
    close_attempt(connection, row.number, row.fence, ending.outcome, now, ending)
    _count(connection, row.queue, ending)
    _cancel_children(connection, row.number, now)
    if row.parent_number is not None:
        tell_parent(connection, row.parent_number, now)
    return read_job(row)


def cancel(connection: Connection, job_id: str, now: float) -> list[Job]:
    """Cancels a job and its children. Returns those that this has ended: the job first, if it had not ended before.

    Raises NotFound, code `job_not_found`.
    """
    number = connection.scalar(select(_jobs.number).where(_jobs.id == job_id))
    if number is None:
        raise job_not_found()
    open_children = select(_jobs.id).where(_jobs.parent_number == number, _jobs.state.in_(_OPEN))
    children = connection.scalars(open_children).all()
    job = end(connection, (_jobs.number == number, _jobs.state.in_(_OPEN)), _cancelled(), now)
    return [] if job is None else [job, *(find(connection, child) for child in children)]


def cancel_batch(connection: Connection, batch_id: str, now: float, *, most: int) -> list[Job]:
    """Cancels up to `most` jobs of a batch; none are left when it returns none."""
    open_jobs = select(_jobs.id).where(_jobs.batch_id == batch_id, _jobs.state.in_(_OPEN)).limit(most)
    ended: list[Job] = []
    for job_id in connection.scalars(open_jobs).all():
        ended += cancel(connection, job_id, now)
    return ended


def revive(connection: Connection, job_id: str, now: float, *, deadline_at: float, tag: int) -> Job:
    """Queues a dead job again with all of its attempts.

    Raises NotFound, code `job_not_found`, and Conflict, code `job_not_dead`.
    """
    statement = (
        update(jobs)
        .where(_jobs.id == job_id, _jobs.state == State.DEAD, _jobs.body.is_not(None))
        .values(
            state=State.QUEUED,
            attempts=0,
            tag=tag,
            queued_at=now,
            deadline_at=deadline_at,
            finished_at=None,
            status=None,
            error=None,
            progress=None,
            result=None,
            result_type=None,
            result_expires_at=None,
        )
        .returning(*SHOWN)
    )
    row = connection.execute(statement).one_or_none()
    if row is not None:
        return read_job(row)
    find(connection, job_id)
    raise Conflict("Only a job that was given up can be queued again.", code="job_not_dead")


def tell_parent(connection: Connection, parent_number: int, now: float) -> None:
    """Renews the progress of a parent; one that only waits for its children is queued when all have ended."""
    query = select(func.count(), func.count(_jobs.finished_at)).where(_jobs.parent_number == parent_number)
    total, ended = connection.execute(query).one()
    known = connection.scalar(select(_jobs.progress).where(_jobs.number == parent_number))
    unit = known["unit"] if known is not None else ""
    progress = msgspec.to_builtins(Progress(done=ended, total=total, unit=unit))
    parent = update(jobs).where(_jobs.number == parent_number)
    connection.execute(parent.where(_jobs.state.in_(_OPEN)).values(progress=progress))
    if ended == total:
        parked = parent.where(_jobs.state == State.LEASED, _jobs.owner.is_(None))
        # It has begun long ago: what is left is to put the pieces together.
        deadline = case((_jobs.deadline_at < now + _GATHER_SECONDS, now + _GATHER_SECONDS), else_=_jobs.deadline_at)
        connection.execute(parked.values(state=State.QUEUED, deadline_at=deadline))


def close_attempt(
    connection: Connection, number: int, fence: int, outcome: str, now: float, ending: End | None = None
) -> None:
    """Writes into the log how an attempt ended; one that has ended already stays as it is."""
    columns = job_attempts.c
    error = None if ending is None or ending.error is None else f"{ending.error.code}: {ending.error.message}"[:200]
    connection.execute(
        update(job_attempts)
        .where(columns.job_number == number, columns.fence == fence, columns.ended_at.is_(None))
        .values(ended_at=now, outcome=outcome, status=None if ending is None else ending.status, error=error)
    )


def _cancel_children(connection: Connection, parent_number: int, now: float) -> None:
    """One generation: children have none of their own."""
    query = select(_jobs.number).where(_jobs.parent_number == parent_number, _jobs.state.in_(_OPEN))
    for number in connection.scalars(query).all():
        end(connection, (_jobs.number == number, _jobs.state.in_(_OPEN)), _cancelled(), now)


def _cancelled() -> End:
    return End(state=State.CANCELLED, status=499, error=_CANCELLED, outcome="cancelled")


def _count(connection: Connection, queue: str, ending: End) -> None:
    columns = job_queues.c
    counted: dict[str, Any] = {}
    if ending.state is State.DONE:
        counted["processed"] = columns.processed + 1
    elif ending.state is State.CANCELLED:
        counted["cancelled"] = columns.cancelled + 1
    else:
        counted["failed"] = columns.failed + 1
    if ending.timed_out:
        counted["timeouts"] = columns.timeouts + 1
    connection.execute(update(job_queues).where(columns.queue == queue).values(counted))
