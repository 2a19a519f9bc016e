"""What becomes of a job after an attempt."""

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select, update

from stellwerk.jobs.admission import seal_result, tag_now
from stellwerk.jobs.ending import End, close_attempt, end, ends, tell_parent
from stellwerk.jobs.job import Job, JobError, Lease, Performed, Progress, State
from stellwerk.jobs.leasing import HOLDING, lease_parameters
from stellwerk.jobs.tables import SHOWN, job_attempts, jobs, read_job
from stellwerk.storage.sealing import Seal

TIMED_OUT = "attempt_timeout"
_LONGEST_MESSAGE = 2_000

_jobs = jobs.c
_ATTEMPTS = select(_jobs.attempts).where(*HOLDING)
_END = ends(*HOLDING)
_LINE = select(_jobs.queue, _jobs.rank, _jobs.holder, _jobs.client_id).where(*HOLDING)


class FinishRules(msgspec.Struct, frozen=True, kw_only=True):
    attempts: int
    result_bytes: int
    result_seconds: float


def finish(
    connection: Connection, given: Lease, performed: Performed, rules: FinishRules, seal: Seal, now: float
) -> Job | None:
    """Ends the job, queues it for another attempt or lets it wait for its children.

    None, and nothing happens, when the lease is lost or the job was cancelled.
    """
    attempts = connection.scalar(_ATTEMPTS, lease_parameters(given))
    if attempts is None:
        return None
    if performed.postponed is not None:
        return _postpone(connection, given, attempts)
    if performed.park:
        return _park(connection, given, performed.unit, now)
    if performed.retry and not performed.good and attempts < rules.attempts:
        return _try_again(connection, given, performed, now)
    return end(connection, _END, lease_parameters(given), _ending(given, performed, rules, seal, now), now)


def set_progress(connection: Connection, given: Lease, progress: Progress) -> bool:
    """False when the lease is lost."""
    statement = update(jobs).where(*HOLDING).values(progress=msgspec.to_builtins(progress))
    return connection.execute(statement, lease_parameters(given)).rowcount > 0


def _ending(given: Lease, performed: Performed, rules: FinishRules, seal: Seal, now: float) -> End:
    error, result = performed.error, performed.result
    if len(result) > rules.result_bytes:
        error = JobError(code="result_too_large", message=f"The result has more than {rules.result_bytes} bytes.")
        result = b""
    elif error is not None:
        error = JobError(code=error.code[:100], message=error.message[:_LONGEST_MESSAGE])
    good = performed.good and error is None
    state = State.DONE if good else State.DEAD if performed.retry else State.FAILED
    return End(
        state=state,
        status=performed.status,
        outcome=state.value,
        error=error,
        result=seal_result(seal, given.job_id, result) if result else None,
        result_type=performed.result_type[:100] if result else None,
        result_until=now + rules.result_seconds,
        timed_out=error is not None and error.code == TIMED_OUT,
    )


def _try_again(connection: Connection, given: Lease, performed: Performed, now: float) -> Job | None:
    """At the end of its client's line: others may do better meanwhile."""
    line = connection.execute(_LINE, lease_parameters(given)).one()
    tag = tag_now(connection, queue=line.queue, rank=line.rank, holder=line.holder, client_id=line.client_id)
    _close(connection, given, performed, now)
    return _move(connection, given, {"state": State.QUEUED, "owner": None, "tag": tag, "queued_at": now})


def _postpone(connection: Connection, given: Lease, attempts: int) -> Job | None:
    """It keeps its place. The log forgets it: who waits for a limit all day would have thousands of lines there."""
    log = job_attempts.c
    connection.execute(delete(job_attempts).where(log.job_number == given.number, log.fence == given.fence))
    columns = {"state": State.QUEUED, "owner": None, "attempts": attempts - 1}
    return _move(connection, given, columns | ({"started_at": None} if attempts == 1 else {}))


def _park(connection: Connection, given: Lease, unit: str, now: float) -> Job | None:
    if unit:
        set_progress(connection, given, Progress(done=0, unit=unit))
    close_attempt(connection, given.number, given.fence, "parked", now)
    job = _move(connection, given, {"owner": None, "attempts": 0})
    children = select(func.count()).where(_jobs.parent_number == given.number)
    if connection.scalar(children):
        tell_parent(connection, given.number, now)
    else:
        connection.execute(update(jobs).where(_jobs.number == given.number).values(state=State.QUEUED))
    return job


def _move(connection: Connection, given: Lease, columns: dict[str, Any]) -> Job | None:
    statement = update(jobs).where(*HOLDING).values(columns | {"lease_until": None}).returning(*SHOWN)
    row = connection.execute(statement, lease_parameters(given)).one_or_none()
    return None if row is None else read_job(row)


def _close(connection: Connection, given: Lease, performed: Performed, now: float) -> None:
    told = End(state=State.QUEUED, status=performed.status, outcome="retried", error=performed.error)
    close_attempt(connection, given.number, given.fence, told.outcome, now, told)
