"""Stops and starts queues, and puts the dead back into them."""

from sqlalchemy import Connection, select, update

from stellwerk.jobs.admission import Bounds, check_room, open_queue, tag_now
from stellwerk.jobs.ending import revive
from stellwerk.jobs.job import Job, QueueCounts
from stellwerk.jobs.reading import count_queues, job_not_found
from stellwerk.jobs.tables import job_queues, jobs

_jobs = jobs.c


def queue_again(connection: Connection, job_id: str, bounds: Bounds, now: float) -> Job:
    """Queues a dead job again with all of its attempts and a new deadline.

    Raises NotFound, code `job_not_found`, Conflict, code `job_not_dead`, and Unavailable, code `queue_full`.
    """
    query = select(_jobs.queue, _jobs.rank, _jobs.holder, _jobs.client_id).where(_jobs.id == job_id)
    line = connection.execute(query).one_or_none()
    if line is None:
        raise job_not_found()
    check_room(connection, bounds, queue=line.queue, holder=line.holder, now=now)
    tag = tag_now(connection, queue=line.queue, rank=line.rank, holder=line.holder, client_id=line.client_id)
    return revive(connection, job_id, now, deadline_at=now + bounds.deadline_seconds, tag=tag)


def pause(connection: Connection, queue: str, *, paused: bool) -> QueueCounts:
    """Jobs of a paused queue are taken, but none begins; running ones go on."""
    if connection.scalar(select(job_queues.c.queue).where(job_queues.c.queue == queue)) is None:
        open_queue(connection, queue)
    connection.execute(update(job_queues).where(job_queues.c.queue == queue).values(paused=paused))
    return count_queues(connection, queue)[0]


def empty(queue: str) -> QueueCounts:
    return QueueCounts(
        queue=queue,
        processing=0,
        waiting=0,
        paused=False,
        dead=0,
        total_processed=0,
        total_failed=0,
        total_timeout=0,
        total_cancelled=0,
    )
