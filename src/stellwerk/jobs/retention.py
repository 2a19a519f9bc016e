"""Keeps the table of jobs small: results first, then the jobs themselves."""

from sqlalchemy import Connection, delete, select, update

from stellwerk.jobs.tables import jobs

PRUNED_AT_ONCE = 200

_jobs = jobs.c
_parents = jobs.alias("parents")
_NEEDED = (
    select(_parents.c.number)
    .where(_parents.c.number == _jobs.parent_number, _parents.c.finished_at.is_(None))
    .correlate(jobs)
    .exists()
)
"""A batch that takes longer than results are kept still puts those of its first lines into its file."""


def prune(connection: Connection, now: float, *, history_seconds: float) -> int:
    """Deletes results that are kept no longer, and jobs that ended so long ago; returns how many of both.

    It is called again soon when it returns PRUNED_AT_ONCE or more: much at once would keep others from writing.
    """
    expired = select(_jobs.number).where(_jobs.result_expires_at <= now, ~_NEEDED).limit(PRUNED_AT_ONCE)
    results = update(jobs).where(_jobs.number.in_(expired)).values(result=None, result_expires_at=None)
    old = select(_jobs.number).where(_jobs.finished_at < now - history_seconds).limit(PRUNED_AT_ONCE)
    forgotten = delete(jobs).where(_jobs.number.in_(old))
    return connection.execute(results).rowcount + connection.execute(forgotten).rowcount


def forget(connection: Connection, job_id: str) -> bool:
    """Deletes a job that has ended, with its result and the log of its attempts."""
    return connection.execute(delete(jobs).where(_jobs.id == job_id, _jobs.finished_at.is_not(None))).rowcount > 0
