"""How jobs end, each exactly once; and how an ended one of the dead is queued again."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, String, bindparam, case, func, select, update

from stellwerk.core.errors import Conflict
from stellwerk.jobs.job import Job, JobError, Progress, State
from stellwerk.jobs.reading import find, job_not_found
from stellwerk.jobs.tables import SHOWN, job_attempts, job_queues, jobs, read_job

_OPEN = (State.QUEUED, State.LEASED)
_CANCELLED = JobError(code="cancelled", message="The job was cancelled.")

_GATHER_SECONDS = 3600.0
"""A job whose children have ended has at least so long to be performed for the last time."""

_jobs = jobs.c


def ends(*conditions: Any) -> Any:
    """A statement for `end`: ends the one job of which `conditions` are true.

    Made once where jobs end all the time: making it takes longer than running it.
    """
    columns: dict[Any, Any] = {
        _jobs.state: bindparam("new_state"),
        _jobs.owner: None,
        _jobs.lease_until: None,
        _jobs.finished_at: bindparam("new_finished_at"),
        _jobs.status: bindparam("new_status"),
        _jobs.error: bindparam("new_error"),
        _jobs.result: bindparam("new_result"),
        _jobs.result_type: bindparam("new_result_type"),
        _jobs.result_expires_at: bindparam("new_result_expires_at"),
        # A dead job may be queued again, and is the only one that needs it.
        _jobs.body: case((bindparam("new_state", type_=String) == State.DEAD.value, _jobs.body), else_=None),
    }
    statement = update(jobs).where(*conditions).values(columns)
    return statement.returning(*SHOWN, _jobs.number, _jobs.parent_number)


_END_OPEN = ends(_jobs.number == bindparam("one"), _jobs.state.in_(_OPEN))
_CLOSE_ATTEMPT = (
    update(job_attempts)
    .where(
        job_attempts.c.job_number == bindparam("of_job"),
        job_attempts.c.fence == bindparam("of_fence"),
        job_attempts.c.ended_at.is_(None),
    )
    .values(
        ended_at=bindparam("new_ended_at"),
        outcome=bindparam("new_outcome"),
        status=bindparam("new_status"),
        error=bindparam("new_error"),
    )
)
_COUNT = (
    update(job_queues)
    .where(job_queues.c.queue == bindparam("of_queue"))
    .values(
        {
            job_queues.c[name]: job_queues.c[name] + bindparam(f"more_{name}", type_=BigInteger)
            for name in ("processed", "failed", "timeouts", "cancelled")
        }
    )
)


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


_CANCELLED_END = End(state=State.CANCELLED, status=499, error=_CANCELLED, outcome="cancelled")
_CHILDREN_BY_STATE = (
    select(_jobs.state, func.count()).where(_jobs.parent_number == bindparam("one")).group_by(_jobs.state)
)
_CANCEL_CHILDREN = (
    update(jobs)
    .where(_jobs.parent_number == bindparam("one"), _jobs.state.in_(_OPEN))
    .values(
        state=State.CANCELLED,
        owner=None,
        lease_until=None,
        finished_at=bindparam("new_finished_at"),
        status=_CANCELLED_END.status,
        error=msgspec.to_builtins(_CANCELLED),
        body=None,
    )
    .returning(*SHOWN)
)
_CLOSE_ATTEMPTS_OF_CHILDREN = (
    update(job_attempts)
    .where(
        job_attempts.c.job_number.in_(select(_jobs.number).where(_jobs.parent_number == bindparam("one"))),
        job_attempts.c.ended_at.is_(None),
    )
    .values(
        ended_at=bindparam("new_ended_at"),
        outcome=_CANCELLED_END.outcome,
        status=_CANCELLED_END.status,
        error=f"{_CANCELLED.code}: {_CANCELLED.message}",
    )
)


def end(connection: Connection, statement: Any, parameters: Mapping[str, Any], ending: End, now: float) -> Job | None:
    """Ends the one job that `statement`, made by `ends`, finds; None, and nothing happens, when there is none any more.

    What it holds for its work goes with it, except for a dead one's, which may be queued again. Its children that have
    not ended are cancelled, and its parent learns of it.
    """
    columns: dict[str, Any] = {
        "new_state": ending.state.value,
        "new_finished_at": now,
        "new_status": ending.status,
        "new_error": None if ending.error is None else msgspec.to_builtins(ending.error),
        "new_result": ending.result,
        "new_result_type": ending.result_type,
        "new_result_expires_at": None if ending.result is None else ending.result_until,
    }
    row = connection.execute(statement, columns | dict(parameters)).one_or_none()
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
    row = connection.execute(select(_jobs.number, _jobs.state).where(_jobs.id == job_id)).one_or_none()
    if row is None:
        raise job_not_found()
    if State(row.state).ended:
        return []
    children = _cancel_children(connection, row.number, now)
    job = end(connection, _END_OPEN, {"one": row.number}, _CANCELLED_END, now)
    return [] if job is None else [job, *children]


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
    total, ended = 0, 0
    # An index answers this alone: a batch has thousands of children, and each of them asks at its end.
    for state, count in connection.execute(_CHILDREN_BY_STATE, {"one": parent_number}):
        total += count
        ended += count if State(state).ended else 0
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
    error = None if ending is None or ending.error is None else f"{ending.error.code}: {ending.error.message}"[:200]
    told = {
        "of_job": number,
        "of_fence": fence,
        "new_ended_at": now,
        "new_outcome": outcome,
        "new_status": None if ending is None else ending.status,
        "new_error": error,
    }
    connection.execute(_CLOSE_ATTEMPT, told)


def _cancel_children(connection: Connection, parent_number: int, now: float) -> list[Job]:
    """All at once, as there may be thousands. One generation: children have none of their own."""
    rows = connection.execute(_CANCEL_CHILDREN, {"one": parent_number, "new_finished_at": now}).all()
    if not rows:
        return []
    connection.execute(_CLOSE_ATTEMPTS_OF_CHILDREN, {"one": parent_number, "new_ended_at": now})
    for queue, count in Counter(row.queue for row in rows).items():
        _count(connection, queue, _CANCELLED_END, count)
    return [read_job(row) for row in rows]


def _count(connection: Connection, queue: str, ending: End, times: int = 1) -> None:
    is_done, is_cancelled = ending.state is State.DONE, ending.state is State.CANCELLED
    counted = {
        "of_queue": queue,
        "more_processed": times * is_done,
        "more_cancelled": times * is_cancelled,
        "more_failed": times * (not is_done and not is_cancelled),
        "more_timeouts": times * ending.timed_out,
    }
    connection.execute(_COUNT, counted)
