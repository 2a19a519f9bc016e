"""Subscriptions to events, the outbox of messages and the log of their deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhook_subscriptions",
        sa.Column("id", row_number, nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String(200), nullable=True),
        sa.Column("with_images", sa.Boolean(), nullable=False),
        sa.Column("with_key", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", sa.Double(), nullable=True),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
        sqlite_autoincrement=True,
    )
    _create_messages()
    _create_attempts()


def _create_messages() -> None:
    op.create_table(
        "webhook_messages",
        sa.Column("number", row_number, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("subscription_id", row_number, nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("lease", sa.String(32), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("settled_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_webhook_messages"),
        sa.UniqueConstraint("id", name="uq_webhook_messages_id"),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["webhook_subscriptions.id"],
            name="fk_webhook_messages_subscription_id_webhook_subscriptions",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_webhook_messages_subscription_id_state_due_at_number_size",
        "webhook_messages",
        ["subscription_id", "state", "due_at", "number", "size"],
    )
    op.create_index("ix_webhook_messages_subscription_id_number", "webhook_messages", ["subscription_id", "number"])


def _create_attempts() -> None:
    op.create_table(
        "webhook_attempts",
        sa.Column("number", row_number, nullable=False),
        sa.Column("message_number", row_number, nullable=False),
        sa.Column("subscription_id", row_number, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_webhook_attempts"),
        sa.ForeignKeyConstraint(
            ["message_number"],
            ["webhook_messages.number"],
            name="fk_webhook_attempts_message_number_webhook_messages",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["webhook_subscriptions.id"],
            name="fk_webhook_attempts_subscription_id_webhook_subscriptions",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_webhook_attempts_message_number", "webhook_attempts", ["message_number"])
    op.create_index("ix_webhook_attempts_subscription_id_number", "webhook_attempts", ["subscription_id", "number"])
