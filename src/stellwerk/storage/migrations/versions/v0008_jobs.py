"""Jobs, the log of their attempts, and what is counted of each queue."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_INDEXES = (
    ("state", "queue", "rank", "tag"),
    ("state", "queue", "rank", "queued_at"),
    ("state", "holder", "queue", "rank", "client_id", "tag"),
    ("state", "deadline_at"),
    ("queue", "finished_at"),
    ("finished_at",),
    ("result_expires_at",),
    ("parent_number", "state"),
    ("batch_id", "state"),
    ("key_id", "number"),
    ("user_id", "number"),
)


def upgrade() -> None:
    _create_jobs()
    _create_attempts()
    op.create_table(
        "job_queues",
        sa.Column("queue", sa.String(256), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("turns", sa.BigInteger(), nullable=False),
        sa.Column("processed", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("timeouts", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("queue", name="pk_job_queues"),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", row_number, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("queue", sa.String(256), nullable=False),
        sa.Column("path", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.String(128), nullable=False),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("tag", sa.BigInteger(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=False),
        sa.Column("deadline_at", sa.Double(), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("idempotency_key", sa.String(200), nullable=True),
        sa.Column("parent_number", row_number, nullable=True),
        sa.Column("parent_id", sa.String(36), nullable=True),
        sa.Column("batch_id", sa.String(64), nullable=True),
        sa.Column("result_type", sa.String(100), nullable=True),
        sa.Column("result_expires_at", sa.Double(), nullable=True),
        sa.Column("request_digest", sa.LargeBinary(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["parent_number"], ["jobs.number"], name="fk_jobs_parent_number_jobs", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sqlite_autoincrement=True,
    )
    for columns in _INDEXES:
        op.create_index(f"ix_jobs_{'_'.join(columns)}", "jobs", list(columns))
    op.create_index("ix_jobs_key_id_idempotency_key", "jobs", ["key_id", "idempotency_key"], unique=True)


def _create_attempts() -> None:
    op.create_table(
        "job_attempts",
        sa.Column("job_number", row_number, nullable=False),
        sa.Column("fence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(9), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(200), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_job_attempts_job_number_jobs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_number", "fence", name="pk_job_attempts"),
    )
