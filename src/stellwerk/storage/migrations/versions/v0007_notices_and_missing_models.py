"""What has been said of budgets, and the models that clients asked for in vain."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "budget_notices",
        sa.Column("subject", sa.String(80), nullable=False),
        sa.Column("beginning", sa.Double(), nullable=False),
        sa.Column("percent", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "beginning", "percent", name="pk_budget_notices"),
    )
    op.create_table(
        "missing_models",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.String(128), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("nearest", sa.String(256), nullable=True),
        sa.PrimaryKeyConstraint("name", "key_id", name="pk_missing_models"),
    )
