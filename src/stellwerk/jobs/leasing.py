"""Gives jobs to those who work on them, and takes them back from those who are not heard of any more.

A lease names its owner and a fence, which counts how often the job was given away. Every later step names both, so that
a worker that was given up for dead changes nothing any more.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, Integer, Row, bindparam, insert, select, update

from stellwerk.jobs.ending import End, close_attempt, end, ends
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
    .returning(*SHOWN, _jobs.number, _jobs.body)
)


_OPEN_QUEUES = select(job_queues).where(~job_queues.c.paused)
_TURN = (
    update(job_queues)
    .where(job_queues.c.queue == bindparam("of_queue"))
    .values(turns=job_queues.c.turns + bindparam("given", type_=BigInteger))
)
HOLDING = (
    _jobs.number == bindparam("held"),
    _jobs.state == State.LEASED,
    _jobs.owner == bindparam("held_by"),
    _jobs.fence == bindparam("held_fence"),
)
"""The job, as long as a lease, given as `lease_parameters`, is its latest one."""


def _next_by(order: Any, *more: Any) -> Any:
    columns = _jobs.number, _jobs.rank, _jobs.tag, _jobs.queued_at, _jobs.deadline_at
    of_queue = _jobs.state == State.QUEUED, _jobs.queue == bindparam("of_queue"), _jobs.rank == bindparam("of_rank")
    return select(*columns).where(*of_queue, *more).order_by(order).limit(bindparam("count", type_=Integer))


_NEXT = _next_by(_jobs.tag), _next_by(_jobs.queued_at)
_NOT_RESTING = _jobs.key_id.not_in(bindparam("resting", expanding=True))
_NEXT_BUT_RESTING = _next_by(_jobs.tag, _NOT_RESTING), _next_by(_jobs.queued_at, _NOT_RESTING)


def lease(
    connection: Connection,
    owner: str,
    *,
    widths: Mapping[str, int],
    count: int,
    free: int,
    now: float,
    until: float,
    resting: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[Given]:
    """Takes up to `count` jobs of the queues in `widths`, and at most so many of each that that many run.

    `free` is how many workers have nothing to do. `resting` names, by queue, the keys whose jobs are left where they
    are.

    The attempt is on the disk with the lease, before anybody upstream hears of it.
    """
    running = running_by_queue(connection)
    lines = [
        Line(
            queue=row.queue,
            running=running.get(row.queue, 0),
            width=widths[row.queue],
            turns=row.turns,
            candidates=_candidates(connection, row.queue, count, now, resting.get(row.queue, ())),
        )
        for row in connection.execute(_OPEN_QUEUES).all()
        if running.get(row.queue, 0) < widths.get(row.queue, 0)
    ]
    given = []
    turns: Counter[str] = Counter()
    for queue, candidate in assign(lines, count=count, free=free, now=now):
        taken = {"taken": candidate.number, "taker": owner, "until": until, "now": now}
        # Asked for again in the update: on a shared database somebody else may have taken it in between.
        row = connection.execute(_TAKE, taken).one_or_none()
        if row is not None:
            given.append(_give(row, owner))
            turns[queue] += 1
    if given:
        connection.execute(insert(job_attempts), [_attempt(one, now) for one in given])
        connection.execute(_TURN, [{"of_queue": queue, "given": count} for queue, count in turns.items()])
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
            job = end(connection, ends(*same), {}, End(state=State.DEAD, status=500, error=error, outcome="dead"), now)
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
    late_one = ends(_jobs.number == bindparam("one"), *late)
    jobs_ended = (end(connection, late_one, {"one": number}, ended, now) for number in numbers)
    return [job for job in jobs_ended if job is not None]


def lease_parameters(given: Lease) -> dict[str, Any]:
    return {"held": given.number, "held_fence": given.fence, "held_by": given.owner}


def _held_by(owner: str) -> tuple[Any, ...]:
    return _jobs.state == State.LEASED, _jobs.owner == owner


def _candidates(
    connection: Connection, queue: str, count: int, now: float, resting: Collection[str]
) -> list[Candidate]:
    """Who may be next: of each priority the lowest tags, and those that have waited the longest."""
    found: dict[int, Candidate] = {}
    for rank in RANKS.values():
        asked: dict[str, Any] = {"of_queue": queue, "of_rank": rank, "count": count}
        if resting:
            asked["resting"] = list(resting)
        # Late ones are left out here: asked for, they would lead the database to another index.
        for query in _NEXT_BUT_RESTING if resting else _NEXT:
            for row in connection.execute(query, asked):
                if row.deadline_at > now:
                    found[row.number] = Candidate(
                        number=row.number, rank=row.rank, tag=row.tag, queued_at=row.queued_at
                    )
    return list(found.values())


def _attempt(given: Given, now: float) -> dict[str, Any]:
    lease = given.lease
    return {
        "job_number": lease.number,
        "fence": lease.fence,
        "number": given.attempt,
        "owner": lease.owner,
        "started_at": now,
    }


def _give(row: Row[Any], owner: str) -> Given:
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
