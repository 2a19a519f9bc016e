import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import stellwerk
from stellwerk.auth import keys, logins, signups, users
from stellwerk.engines import crashes
from stellwerk.jobs import tables as job_tables
from stellwerk.ledger import accounts, budget_notices, budgets, calls, holds, tariff, upstream_usage
from stellwerk.limits import attempts
from stellwerk.records import audit, batches, files, missing_models, settings, uptime
from stellwerk.sessions import sql_store
from stellwerk.storage.failures import DatabaseCorrupt, DatabaseTooNew, FolderInUse, MigrationFailed, StorageRefused
from stellwerk.storage.folder import FolderLock
from stellwerk.storage.schema import (
    NEW_DATABASE,
    SCHEMA,
    Schema,
    check_integrity,
    ensure_schema,
    read_version,
    write_new_database_script,
)
from stellwerk.storage.tables import metadata
from stellwerk.webhooks import outbox, subscriptions

NEXT = f"{int(SCHEMA.head) + 1:04}"
LATER = f"""
from alembic import op
import sqlalchemy as sa
revision = "{NEXT}"
down_revision = "{SCHEMA.head}"
def upgrade():
    op.create_table("later", sa.Column("id", sa.Integer()))
"""


OWNERS = (
    keys,
    logins,
    signups,
    users,
    crashes,
    job_tables,
    accounts,
    budget_notices,
    budgets,
    calls,
    holds,
    tariff,
    upstream_usage,
    attempts,
    audit,
    batches,
    files,
    missing_models,
    settings,
    uptime,
    sql_store,
    subscriptions,
    outbox,
)
"""Modules that define tables: importing them is what makes the tables known."""


@pytest.fixture
def path(folder):
    return folder / "stellwerk.db"


@pytest.fixture
def next_schema(tmp_path):
    """Makes a schema that is one revision further than ours."""

    def make(revision=LATER):
        folder = tmp_path / "migrations"
        shutil.copytree(SCHEMA.folder, folder, ignore=shutil.ignore_patterns("__pycache__", NEW_DATABASE))
        (folder / "versions" / f"v{NEXT}_later.py").write_text(revision)
        return Schema(head=NEXT, folder=folder)

    return make


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_the_newest_revision_is_the_one_that_the_code_expects():
    settings = Config()
    settings.set_main_option("script_location", str(SCHEMA.folder))
    settings.set_main_option("path_separator", "os")
    revisions = [script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()]
    assert revisions == [f"{n:04}" for n in range(len(revisions), 0, -1)]
    assert revisions[0] == SCHEMA.head


def test_the_migrations_make_exactly_the_tables_of_the_code(database, notes):
    assert OWNERS
    database.write(notes.drop)
    with database.reading.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_script_for_new_databases_says_what_the_revisions_do(tmp_path):
    """To renew it, write what this test expects to the file."""
    assert (SCHEMA.folder / NEW_DATABASE).read_text() == write_new_database_script(tmp_path / "made.db")


def test_a_new_database_is_made_without_alembic(path):
    program = f"""
import sys
from pathlib import Path
from stellwerk.storage.schema import ensure_schema
ensure_schema(Path({str(path)!r}), owner=True)
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert read_version(path) == SCHEMA.head


def test_a_database_that_is_up_to_date_is_opened_without_alembic(path):
    program = f"""
import sys
from pathlib import Path
from stellwerk.storage.schema import ensure_schema
ensure_schema(Path({str(path)!r}), owner=True)
print("alembic" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_an_installed_package_that_nobody_may_write_makes_a_database(tmp_path):
    package = Path(stellwerk.__file__).parent
    shutil.copytree(package, tmp_path / "site" / "stellwerk", ignore=shutil.ignore_patterns("__pycache__"))
    for entry in (tmp_path / "site").rglob("*"):
        entry.chmod(0o500 if entry.is_dir() else 0o400)
    program = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
    program += (
        "from stellwerk.storage import database as d; d.open_database(Path(sys.argv[2])).close(); print(d.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-B", "-c", program, str(tmp_path / "site"), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert run.stdout.startswith(str(tmp_path / "site"))
    assert read_version(tmp_path / "data" / "stellwerk.db") == SCHEMA.head


def test_an_older_database_is_copied_and_then_migrated(path, next_schema):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO storage_probe VALUES (1, 2.0)")
        connection.commit()
    ensure_schema(path, owner=True, schema=next_schema())
    assert "later" in tables(path)
    copy = path.with_name(f"stellwerk.db.schema-{SCHEMA.head}.backup")
    assert "later" not in tables(copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT at FROM storage_probe").fetchall() == [(2.0,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_migration_that_fails_changes_nothing(path, next_schema):
    broken = next_schema(LATER + "    op.execute('INSERT INTO nowhere VALUES (1)')\n")
    with pytest.raises(MigrationFailed, match=r"is as it was before: .*no such table"):
        ensure_schema(path, owner=True, schema=broken)
    assert "later" not in tables(path)
    assert read_version(path) == SCHEMA.head


def test_nobody_migrates_below_a_running_gateway(path, next_schema):
    schema = next_schema()
    with FolderLock(path.parent):
        with pytest.raises(FolderInUse):
            ensure_schema(path, owner=False, schema=schema)
        assert "later" not in tables(path)
        ensure_schema(path, owner=True, schema=schema)
    assert "later" in tables(path)


def test_a_database_of_a_newer_version_is_refused(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.commit()
    with pytest.raises(DatabaseTooNew, match=rf"newer Stellwerk \(schema 0999, this one knows {SCHEMA.head}\)"):
        ensure_schema(path, owner=True)


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_file_is_refused_by_name_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(DatabaseCorrupt, match=r"stellwerk\.db"):
        ensure_schema(path, owner=True)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_is_refused(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(DatabaseCorrupt, match="not one of Stellwerk's"):
        ensure_schema(path, owner=True)


def test_a_folder_in_the_place_of_the_file_is_refused(path):
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageRefused, match="cannot be opened"):
        ensure_schema(path, owner=True)


def test_a_process_killed_while_it_makes_the_database_leaves_no_half_of_one(path):
    path.unlink()
    fresh = path.with_name("stellwerk.db.new")
    fresh.write_bytes(b"half")
    ensure_schema(path, owner=True)
    assert read_version(path) == SCHEMA.head
    assert not fresh.exists()


def test_a_large_file_is_not_read_through(path):
    check_integrity(path, up_to_bytes=1 << 20)
    content = bytearray(path.read_bytes())
    content[5 * 4096 : 6 * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    check_integrity(path, up_to_bytes=1000)
    with pytest.raises(DatabaseCorrupt, match="is damaged"):
        check_integrity(path, up_to_bytes=1 << 20)


def test_a_file_that_cannot_even_be_read_through_is_refused(path):
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(DatabaseCorrupt, match="is damaged"):
        check_integrity(path, up_to_bytes=1 << 20)


def test_a_database_that_has_lost_its_version_is_refused(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.commit()
    with pytest.raises(DatabaseCorrupt, match="schema version is missing"):
        ensure_schema(path, owner=True)


def test_a_database_that_cannot_be_copied_first_is_not_migrated(path, next_schema):
    path.with_name("stellwerk.db.backup.new").mkdir()
    with pytest.raises(MigrationFailed, match="cannot be copied"):
        ensure_schema(path, owner=True, schema=next_schema())
    assert "later" not in tables(path)
