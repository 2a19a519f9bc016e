"""Gives jobs to those who work on them, and takes them back from those who are not heard of any more.

A lease names its owner and a fence, which counts how often the job was given away. Every later step names both, so that
a worker that was given up for dead changes nothing any more.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from stellwerk.jobs.ending import End, close_attempt, end
from stellwerk.jobs.job import Job, JobError, Lease, State
from stellwerk.jobs.reading import running_by_queue
from stellwerk.jobs.schedule import Candidate, Line, assign
from stellwerk.jobs.tables import RANKS, SHOWN, job_attempts, job_queues, jobs, read_job

EXPIRED_AT_ONCE = 500
LOST_AT_ONCE = 500

_jobs = jobs.c


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its sealed body, for who is to perform it."""

    job: Job
    body: bytes | None
    lease: Lease
    attempt: int


_TAKE = (
    update(jobs)
    .where(_jobs.number == bindparam("taken"), _jobs.state == State.QUEUED)
    .values(
        state=State.LEASED,
        owner=bindparam("taker"),
        lease_until=bindparam("until"),
        fence=_jobs.fence + 1,
        attempts=_jobs.attempts + 1,
        started_at=bindparam("now"),
    )
    .returning(*SHOWN, _jobs.number, _jobs.fence, _jobs.body)
)


def lease(
    connection: Connection, owner: str, *, widths: Mapping[str, int], count: int, now: float, until: float
) -> list[Given]:
    """Takes up to `count` jobs of the queues in `widths`, and at most so many of each that that many run.

    The attempt is on the disk with the lease, before anybody upstream hears of it.
    """
    running = running_by_queue(connection)
    lines = [
        Line(
            queue=row.queue,
            running=running.get(row.queue, 0),
            width=widths[row.queue],
            turns=row.turns,
            candidates=_candidates(connection, row.queue, count, now),
        )
        for row in connection.execute(select(job_queues).where(~job_queues.c.paused)).all()
        if running.get(row.queue, 0) < widths.get(row.queue, 0)
    ]
    given = []
    for queue, candidate in assign(lines, count=count, now=now):
        taken = {"taken": candidate.number, "taker": owner, "until": until, "now": now}
        # Asked for again in the update: on a shared database somebody else may have taken it in between.
        row = connection.execute(_TAKE, taken).one_or_none()
        if row is not None:
            given.append(_begin(connection, row, owner, now))
            turn = update(job_queues).where(job_queues.c.queue == queue)
            connection.execute(turn.values(turns=job_queues.c.turns + 1))
    return given


def heartbeat(connection: Connection, owner: str, *, until: float) -> set[tuple[int, int]]:
    """Renews the leases of an owner; returns number and fence of those that it still has."""
    held = _held_by(owner)
    renewed = update(jobs).where(*held).values(lease_until=until).returning(_jobs.number, _jobs.fence)
    return {(row.number, row.fence) for row in connection.execute(renewed)}


def held(connection: Connection, owner: str) -> set[tuple[int, int]]:
    """Number and fence of the leases that an owner has."""
    query = select(_jobs.number, _jobs.fence).where(*_held_by(owner))
    return {(row.number, row.fence) for row in connection.execute(query)}


def give_back(connection: Connection, owner: str, now: float, *, only: Collection[int] | None = None) -> list[str]:
    """Queues again what an owner has not finished, or `only` these numbers: it is next, and the attempt does not count.

    Returns the ids of the jobs.
    """
    conditions = _held_by(owner)
    if only is not None:
        conditions = *conditions, _jobs.number.in_(list(only))
    statement = (
        update(jobs)
        .where(*conditions)
        .values(state=State.QUEUED, owner=None, lease_until=None, attempts=_jobs.attempts - 1)
        .returning(_jobs.number, _jobs.fence, _jobs.id)
    )
    returned = connection.execute(statement).all()
    for row in returned:
        close_attempt(connection, row.number, row.fence, "returned", now)
    return [row.id for row in returned]


def take_back_lost(connection: Connection, now: float, *, but: str, attempts: int, at_once: bool = False) -> list[Job]:
    """Queues the jobs again whose owner has missed its heartbeats; those that had their last attempt are dead.

    `at_once` takes from every owner except `but`: for a start, when all others are known to be gone. None are left
    when it returns fewer than LOST_AT_ONCE.
    """
    lost = [_jobs.state == State.LEASED, _jobs.owner != but]
    if not at_once:
        lost.append(_jobs.lease_until <= now)
    query = select(_jobs.number, _jobs.fence, _jobs.attempts).where(*lost).order_by(_jobs.number).limit(LOST_AT_ONCE)
    back = []
    for row in connection.execute(query).all():
        same = _jobs.number == row.number, _jobs.fence == row.fence, *lost
        if row.attempts >= attempts:
            error = JobError(code="crashed", message="The gateway ended while it worked on this, every time.")
            job = end(connection, same, End(state=State.DEAD, status=500, error=error, outcome="dead"), now)
        else:
            job = _queue_again(connection, same)
            close_attempt(connection, row.number, row.fence, "lost", now)
        if job is not None:
            back.append(job)
    return back


def expire(connection: Connection, now: float) -> list[Job]:
    """Ends jobs whose deadline passed before they began; none are left when it returns fewer than EXPIRED_AT_ONCE."""
    late = _jobs.state == State.QUEUED, _jobs.deadline_at <= now
    error = JobError(code="deadline_exceeded", message="The job did not begin before its deadline.")
    ended = End(state=State.FAILED, status=504, error=error, timed_out=True, outcome="failed")
    numbers = connection.scalars(select(_jobs.number).where(*late).limit(EXPIRED_AT_ONCE)).all()
    jobs_ended = (end(connection, (_jobs.number == number, *late), ended, now) for number in numbers)
    return [job for job in jobs_ended if job is not None]


def holding(given: Lease) -> tuple[Any, ...]:
    """The job, as long as this is its latest lease."""
    return (
        _jobs.number == given.number,
        _jobs.state == State.LEASED,
        _jobs.owner == given.owner,
        _jobs.fence == given.fence,
    )


def _held_by(owner: str) -> tuple[Any, ...]:
    return _jobs.state == State.LEASED, _jobs.owner == owner


def _candidates(connection: Connection, queue: str, count: int, now: float) -> list[Candidate]:
    """Who may be next: of each priority the lowest tags, and those that have waited the longest."""
    found: dict[int, Candidate] = {}
    for rank in RANKS.values():
        query = select(_jobs.number, _jobs.rank, _jobs.tag, _jobs.queued_at, _jobs.deadline_at).where(
            _jobs.state == State.QUEUED, _jobs.queue == queue, _jobs.rank == rank
        )
        # Late ones are left out here: asked for, they would lead the database to another index.
        for order in (_jobs.tag, _jobs.queued_at):
            for row in connection.execute(query.order_by(order).limit(count)):
                if row.deadline_at > now:
                    found[row.number] = Candidate(
                        number=row.number, rank=row.rank, tag=row.tag, queued_at=row.queued_at
                    )
    return list(found.values())


def _begin(connection: Connection, row: Row[Any], owner: str, now: float) -> Given:
    attempt = {"job_number": row.number, "fence": row.fence, "number": row.attempts, "owner": owner, "started_at": now}
    connection.execute(insert(job_attempts).values(attempt))
    return Given(
        job=read_job(row),
        body=row.body,
        lease=Lease(number=row.number, job_id=row.id, owner=owner, fence=row.fence),
        attempt=row.attempts,
    )


def _queue_again(connection: Connection, conditions: tuple[Any, ...]) -> Job | None:
    statement = (
        update(jobs).where(*conditions).values(state=State.QUEUED, owner=None, lease_until=None).returning(*SHOWN)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else read_job(row)
