"""The tables of jobs, and how a row is read."""

from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    and_,
    literal_column,
)

from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, JobError, Progress, State
from stellwerk.storage.tables import metadata, row_number

RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
_PRIORITIES = {rank: priority for priority, rank in RANKS.items()}

jobs = Table(
    "jobs",
    metadata,
    Column("number", row_number, primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),
    Column("queue", String(256), nullable=False),
    Column("path", String(200), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("user_id", BigInteger, nullable=False),
    Column("client_id", String(128), nullable=False),
    Column("holder", String(128), nullable=False),
    Column("rank", Integer, nullable=False),
    # Its turn: jobs of one rank are served in ascending order.
    Column("tag", BigInteger, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("queued_at", Double, nullable=False),
    Column("deadline_at", Double, nullable=False),
    Column("state", String(9), nullable=False),
    Column("attempts", Integer, nullable=False),
    # Who works on it, until when it must be heard of, and how often the job was given away. A leased job without an
    # owner waits for its children.
    Column("owner", String(32)),
    Column("lease_until", Double),
    Column("fence", Integer, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("status", Integer),
    Column("error", JSON(none_as_null=True)),
    Column("progress", JSON(none_as_null=True)),
    Column("idempotency_key", String(200)),
    Column("parent_number", ForeignKey("jobs.number", ondelete="SET NULL")),
    Column("parent_id", String(36)),
    Column("batch_id", String(64)),
    Column("result_type", String(100)),
    Column("result_expires_at", Double),
    # Sealed. They come last: who reads the columns before them does not read through these.
    Column("request_digest", LargeBinary),
    Column("result", LargeBinary),
    Column("body", LargeBinary),
    Index(None, "key_id", "idempotency_key", unique=True),
    Index(None, "state", "queue", "rank", "tag"),
    Index(None, "state", "queue", "rank", "queued_at"),
    Index(None, "state", "holder", "queue", "rank", "client_id", "tag"),
    Index(None, "state", "deadline_at"),
    Index(None, "queue", "finished_at"),
    Index(None, "finished_at"),
    Index(None, "result_expires_at"),
    Index(None, "parent_number", "state"),
    Index(None, "batch_id", "state"),
    Index(None, "key_id", "number"),
    Index(None, "user_id", "number"),
    # A number is never given twice: a lease of a job that is forgotten fits no other one.
    sqlite_autoincrement=True,
)
# Its words stand in the index, so they may not be parameters.
WAITS_ALONE = and_(jobs.c.state == literal_column("'queued'"), jobs.c.parent_id.is_(None))
"""A waiting job that is no part of another one."""
Index("ix_jobs_queue_alone", jobs.c.queue, jobs.c.state, jobs.c.parent_id, sqlite_where=WAITS_ALONE)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("fence", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    Column("owner", String(32), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(9)),
    Column("status", Integer),
    Column("error", String(200)),
)

job_queues = Table(
    "job_queues",
    metadata,
    Column("queue", String(256), primary_key=True),
    Column("paused", Boolean, nullable=False),
    # How many turns were given.
    Column("turns", BigInteger, nullable=False),
    Column("processed", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("timeouts", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
)

SHOWN = tuple(
    jobs.c[name]
    for name in (
        "id",
        "kind",
        "queue",
        "path",
        "key_id",
        "user_id",
        "client_id",
        "rank",
        "labels",
        "created_at",
        "queued_at",
        "deadline_at",
        "state",
        "attempts",
        "fence",
        "started_at",
        "finished_at",
        "status",
        "error",
        "progress",
        "idempotency_key",
        "parent_id",
        "batch_id",
        "result_type",
        "result_expires_at",
    )
)
"""What makes a Job."""
_SHOWN_NAMES = tuple(str(column.name) for column in SHOWN)


def read_job(row: Any) -> Job:
    """A row with at least the columns SHOWN."""
    columns = {name: getattr(row, name) for name in _SHOWN_NAMES}
    columns["priority"] = _PRIORITIES[columns.pop("rank")]
    columns["state"] = State(columns["state"])
    if columns["error"] is not None:
        columns["error"] = msgspec.convert(columns["error"], JobError)
    if columns["progress"] is not None:
        columns["progress"] = msgspec.convert(columns["progress"], Progress)
    return Job(**columns, result_kept=columns["result_expires_at"] is not None)
