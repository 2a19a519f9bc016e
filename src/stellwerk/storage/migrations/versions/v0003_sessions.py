"""Questions and answers of sessions that are kept in the database."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "session_exchanges",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.String(20), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_session_exchanges"),
    )
    op.create_index(
        "ix_session_exchanges_owner_model_session_id_number",
        "session_exchanges",
        ["owner", "model", "session_id", "number"],
    )
