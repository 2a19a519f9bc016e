"""What is remembered of engines that crashed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "engine_crashes",
        sa.Column("id", row_number, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("engine", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.String(32), nullable=True),
        sa.Column("memory_mib", sa.Double(), nullable=True),
        sa.Column("uptime", sa.Double(), nullable=False),
        sa.Column("had_served", sa.Boolean(), nullable=False),
        sa.Column("last_lines", sa.JSON(), nullable=False),
        sa.Column("request_ids", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_engine_crashes"),
        sqlite_autoincrement=True,
    )
