"""Users, logins, sign-ups, limits that last, double-entry money, the audit log and the uptime history."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

row_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_APPEND_ONLY = ("ledger_transactions", "ledger_entries", "audit_log")


def upgrade() -> None:
    _create_people()
    _create_ledger()
    _create_holds()
    _create_records()
    _extend_calls()
    _give_keys_to_users()
    _forbid_changes()


def _create_people() -> None:
    op.create_table(
        "users",
        sa.Column("id", row_number, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("tier", sa.String(10), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("password", sa.String(200), nullable=True),
        sa.Column("password_changed_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("models", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("burst", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("concurrent_requests", sa.Integer(), nullable=True),
        sa.Column("budget", sa.BigInteger(), nullable=True),
        sa.Column("budget_window", sa.String(5), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_users_revision", "users", ["revision"])
    op.create_table(
        "logins",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("user_id", row_number, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("refreshed_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("end_reason", sa.String(20), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_logins_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_logins"),
    )
    op.create_index("ix_logins_revision", "logins", ["revision"])
    op.create_index("ix_logins_user_id", "logins", ["user_id"])
    op.create_table(
        "signup_requests",
        sa.Column("id", row_number, nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("tier", sa.String(10), nullable=False),
        sa.Column("message", sa.String(2000), nullable=True),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=True),
        sa.Column("decided_by", sa.String(254), nullable=True),
        sa.Column("user_id", row_number, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_signup_requests_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_signup_requests"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_signup_requests_email", "signup_requests", ["email"])
    op.create_index("ix_signup_requests_status", "signup_requests", ["status"])
    op.create_table(
        "attempts",
        sa.Column("number", row_number, nullable=False),
        sa.Column("subject", sa.String(400), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_attempts"),
    )
    op.create_index("ix_attempts_at", "attempts", ["at"])
    op.create_index("ix_attempts_subject_at", "attempts", ["subject", "at"])


def _create_ledger() -> None:
    op.create_table(
        "ledger_accounts",
        sa.Column("id", row_number, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "balance >= 0 OR kind NOT IN ('available', 'held')", name=op.f("ck_ledger_accounts_never_below_zero")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_accounts"),
        sa.UniqueConstraint("kind", "user_id", name="uq_ledger_accounts_kind_user_id"),
    )
    op.create_table(
        "ledger_transactions",
        sa.Column("id", row_number, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("hold_id", sa.String(32), nullable=True),
        sa.Column("note", sa.String(500), nullable=False),
        sa.Column("actor", sa.String(254), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_transactions"),
        sa.UniqueConstraint("hold_id", "kind", name="uq_ledger_transactions_hold_id_kind"),
    )
    op.create_index("ix_ledger_transactions_user_id_id", "ledger_transactions", ["user_id", "id"])
    op.create_table(
        "ledger_entries",
        sa.Column("id", row_number, nullable=False),
        sa.Column("transaction_id", row_number, nullable=False),
        sa.Column("account_id", row_number, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["ledger_accounts.id"], name="fk_ledger_entries_account_id_ledger_accounts"
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["ledger_transactions.id"], name="fk_ledger_entries_transaction_id_ledger_transactions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_entries"),
    )
    op.create_index("ix_ledger_entries_account_id", "ledger_entries", ["account_id"])
    op.create_index("ix_ledger_entries_transaction_id", "ledger_entries", ["transaction_id"])


def _create_holds() -> None:
    op.create_table(
        "ledger_holds",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("call_id", sa.String(128), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("from_balance", sa.Boolean(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("input_amount", sa.BigInteger(), nullable=False),
        sa.Column("budgets", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("cost", sa.BigInteger(), nullable=True),
        sa.Column("estimated", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_holds"),
    )
    op.create_index("ix_ledger_holds_state", "ledger_holds", ["state"])
    op.create_table(
        "budget_windows",
        sa.Column("subject", sa.String(80), nullable=False),
        sa.Column("beginning", sa.Double(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "beginning", name="pk_budget_windows"),
    )
    op.create_table(
        "prices",
        sa.Column("id", row_number, nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("valid_from", sa.Double(), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("input", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.BigInteger(), nullable=False),
        sa.Column("cache_read", sa.BigInteger(), nullable=True),
        sa.Column("cache_write", sa.BigInteger(), nullable=True),
        sa.Column("request", sa.BigInteger(), nullable=False),
        sa.Column("audio_second", sa.BigInteger(), nullable=False),
        sa.Column("character", sa.BigInteger(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(254), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prices"),
    )
    op.create_index("ix_prices_model_valid_from", "prices", ["model", "valid_from"])


def _create_records() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", row_number, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(254), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.create_index("ix_audit_log_subject", "audit_log", ["subject"])
    op.create_table(
        "uptime_checks",
        sa.Column("id", row_number, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("active_models", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uptime_checks"),
    )
    op.create_index("ix_uptime_checks_at", "uptime_checks", ["at"])
    op.create_table(
        "changed_settings",
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("value", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("changed_by", sa.String(254), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_changed_settings"),
    )


def _extend_calls() -> None:
    with op.batch_alter_table("calls") as batch:
        batch.add_column(sa.Column("user_id", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("audio_milliseconds", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("characters", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("pages", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("estimated", sa.Boolean(), nullable=False, server_default="0"))
        batch.create_index("ix_calls_user_id_at", ["user_id", "at"])
    # The defaults were for the rows of before: who writes a new one says what it is.
    with op.batch_alter_table("calls") as batch:
        batch.alter_column("user_id", server_default=None)
        batch.alter_column("estimated", server_default=None)


def _give_keys_to_users() -> None:
    """Keys used to belong to nobody: now to one of the two accounts that every gateway has."""
    connection = op.get_bind()
    if connection.scalar(sa.text("SELECT count(*) FROM api_keys")):
        connection.execute(
            sa.text(
                "INSERT INTO users (id, revision, email, name, role, tier, active, created_at) "
                "SELECT 1, 1, 'admin', 'admin', 'admin', 'admin', 1, min(created_at) FROM api_keys UNION ALL "
                "SELECT 2, 2, 'local', 'local', 'user', 'admin', 1, min(created_at) FROM api_keys"
            )
        )
    _create_keys("api_keys_new")
    connection.execute(
        sa.text(
            "INSERT INTO api_keys_new (id, revision, user_id, name, role, models, priority, requests_per_minute, "
            "concurrent_requests, created_at, expires_at, revoked_at, digest, last_four) "
            "SELECT id, revision, CASE role WHEN 'user' THEN 2 ELSE 1 END, name, role, models, 'high', "
            "requests_per_minute, concurrent_requests, created_at, expires_at, revoked_at, digest, last_four "
            "FROM api_keys"
        )
    )
    op.drop_table("api_keys")
    op.rename_table("api_keys_new", "api_keys")
    op.create_index("ix_api_keys_revision", "api_keys", ["revision"])
    op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    connection.execute(
        sa.text("UPDATE calls SET user_id = coalesce((SELECT user_id FROM api_keys WHERE id = calls.key_id), 1)")
    )


def _create_keys(name: str) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.String(10), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("user_id", row_number, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("models", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("networks", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("priority", sa.String(6), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("burst", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("concurrent_requests", sa.Integer(), nullable=True),
        sa.Column("budget", sa.BigInteger(), nullable=True),
        sa.Column("budget_window", sa.String(5), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("last_four", sa.String(4), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )


def _forbid_changes() -> None:
    """What was booked or recorded stays as it is, even for who has a way to run SQL through the gateway."""
    for table in _APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
