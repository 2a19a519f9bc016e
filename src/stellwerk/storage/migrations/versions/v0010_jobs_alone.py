"""Counts waiting jobs that are no part of another one."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_ALONE = sa.text("state = 'queued' AND parent_id IS NULL")


def upgrade() -> None:
    columns = ["queue", "state", "parent_id"]
    op.create_index("ix_jobs_queue_alone", "jobs", columns, sqlite_where=_ALONE)
