import json
import sqlite3
from contextlib import closing

import pytest

from stellwerk.auth.keys import list_keys
from stellwerk.auth.tokens import load_pepper, make_digest
from stellwerk.cli import import_data, users
from stellwerk.ledger.reports import last_used, usage_by
from stellwerk.ledger.upstream_usage import hours_of_use
from stellwerk.records.audit import read
from stellwerk.webhooks.subscriptions import list_subscriptions
from tests.old_databases import API_KEYS, USAGE, make

ANNE, BERT = "5f0c1d7be2" * 4, "a1" * 8 + "0b9f3c77de4421aa8c03e911"
MAY = 1_716_386_400.0
"""2024-05-22 14:00 UTC."""


@pytest.fixture
def import_keys(command, tmp_path, database):
    """Imports an apiKeys.db with these rows; with --json it gives the rows' fates."""

    def import_keys(*arguments, script=API_KEYS, expect=0, **tables):
        file = tmp_path / "apiKeys.db"
        if tables:
            file.unlink(missing_ok=True)
            make(file, script, **tables)
        return json.loads(command(import_data.app, "api-keys", str(file), "--json", *arguments, expect=expect).stdout)

    return import_keys


@pytest.fixture
def import_usage(command, tmp_path, database):
    def import_usage(*arguments, expect=0, rows=None):
        file = tmp_path / "usage.db"
        if rows is not None:
            make(file, USAGE, usage=rows)
        return json.loads(command(import_data.app, "usage", str(file), "--json", *arguments, expect=expect).stdout)

    return import_usage


def fates(done, table):
    return [(row["row"], row["result"]) for row in done["rows"] if row["table"] == table]


def stored(database):
    return {record.name: record for record in database.read(list_keys)}


# --- keys


def test_a_key_keeps_its_text_limit_name_and_age(import_keys, database, folder):
    done = import_keys(
        apiKeys=[
            {"key": ANNE, "created_at": "2024-05-22 14:00:00", "rate_limit": 25, "description": "Anne's laptop"},
            {"key": BERT, "created_at": "2024-05-22 16:00:00.123456789+02:00"},
        ]
    )
    assert fates(done, "apiKeys") == [(1, "imported"), (2, "imported")]
    records = stored(database)
    anne, bert = records["Anne's laptop"], records["go-ollama-api …e911"]
    digest = make_digest(load_pepper(folder, has_keys=True))
    assert (anne.digest, bert.digest) == (digest(ANNE.encode()), digest(BERT.encode()))
    assert (anne.created_at, round(bert.created_at)) == (MAY, MAY)
    assert (anne.allowance.requests_per_minute, bert.allowance.requests_per_minute) == (25, 10)
    assert (anne.state(MAY), anne.hint, anne.role) == ("active", "…7be2", "user")


def test_a_key_that_was_deactivated_stays_so_until_somebody_says_otherwise(import_keys, database):
    done = import_keys(apiKeys=[{"key": ANNE, "active": 0}, {"key": BERT, "rate_limit": 0}])
    assert all("stays so until" in row["reason"] for row in done["rows"])
    for record in database.read(list_keys):
        assert record.state(record.created_at + 1e9) == "expired"
        # 0 would be no limit at all here.
        assert record.allowance.requests_per_minute >= 1


def test_keys_belong_to_nobody_or_to_whom_they_are_given(import_keys, command, database):
    user = json.loads(command(users.app, "create", "anne@example.org", "--json").stdout)["id"]
    import_keys("--user", "anne@example.org", apiKeys=[{"key": ANNE}])
    assert [record.user_id for record in database.read(list_keys)] == [user]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"key": ""}, "no key in it"),
        ({"key": None}, "no key in it"),
        ({"key": b"\xff\x00"}, "no key in it"),
        ({"key": "short-key"}, "can be guessed"),
        ({"key": "a" * 40}, "easy to guess"),
        ({"key": "x" * 600}, "too long"),
        ({"key": "5f0c1d7be2 5f0c1d7be3 line"}, "blanks or characters"),
        ({"key": "schlüssel-5f0c1d7be2-0b9f3c"}, "blanks or characters"),
        ({"key": ANNE, "rate_limit": "many"}, "rate_limit is not a whole number"),
        ({"key": ANNE, "active": "no"}, "active is not a whole number"),
        ({"key": ANNE, "rate_limit": 10**12}, "requests_per_minute is a number from 0"),
        ({"key": ANNE, "description": "x" * 2_000_000}, "damaged or too large"),
    ],
)
def test_a_row_that_makes_no_key_is_refused_and_the_others_go_on(import_keys, database, row, reason):
    done = import_keys(apiKeys=[row, {"key": BERT}], expect=1)
    refused, taken = done["rows"]
    assert (refused["result"], taken["result"]) == ("refused", "imported")
    assert reason in refused["reason"]
    assert len(database.read(list_keys)) == 1
    assert done["tables"]["apiKeys"] == {"imported": 1, "present": 0, "refused": 1}


def test_odd_descriptions_and_times_cost_no_key(import_keys, database):
    import_keys(apiKeys=[{"key": ANNE, "description": "\x1b[31mred\n" + "x" * 200, "created_at": "yesterday"}])
    (record,) = database.read(list_keys)
    assert record.name == ("?[31mred?" + "x" * 200)[:100]
    assert record.created_at > MAY


def test_a_table_with_fewer_columns_is_good_enough(import_keys, database):
    done = import_keys(script="CREATE TABLE APIKEYS (key TEXT PRIMARY KEY)", apiKeys=[{"key": ANNE}])
    assert fates(done, "apiKeys") == [(1, "imported")]
    assert [note.partition(":")[0] for note in done["notes"]] == ["apiUsage", "webhooks"]


def test_an_import_is_recorded_and_holds_no_key(import_keys, database, folder, tmp_path):
    import_keys(apiKeys=[{"key": ANNE, "description": "anne"}])
    (record,) = [row for row in database.read(lambda connection: read(connection, limit=9)) if "import" in row.action]
    assert (record.action, record.details["name"]) == ("key.import", "anne")
    database.close()
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert ANNE.encode() not in content


# --- calls and webhooks


def test_calls_are_those_of_their_keys(import_keys, database):
    moment = "2024-05-22 14:00:00"
    done = import_keys(
        apiKeys=[{"key": ANNE}],
        apiUsage=[
            {"key": ANNE, "timestamp": moment},
            {"key": ANNE, "timestamp": moment},
            {"key": ANNE, "timestamp": "2024-05-22T15:00:00Z"},
            {"key": "gone", "timestamp": moment},
            {"key": ANNE, "timestamp": "soon"},
            {"key": None, "timestamp": moment},
        ],
        expect=1,
    )
    assert [fate for _, fate in fates(done, "apiUsage")] == ["imported"] * 3 + ["refused"] * 3
    (key,) = database.read(list_keys)
    assert database.read(lambda connection: last_used(connection, [key.id])) == {key.id: MAY + 3600}
    (row,) = database.read(lambda connection: usage_by(connection, "key", MAY, MAY + 86_400))
    assert (row.value, row.calls, row.failed) == (key.id, 3, 0)


def test_webhooks_hear_of_requests_and_what_the_guard_refuses_is_told(import_keys, database, folder):
    (folder / "stellwerk.yaml").write_text(json.dumps({"egress": {"allowed_origins": ["http://127.0.0.1:8099"]}}))
    urls = ["http://127.0.0.1:8099/hook?secret=1", "http://127.0.0.1:8100/hook", "ftp://example.org", "", "nonsense"]
    urls.append(urls[0])
    done = import_keys(webhooks=[{"url": url} for url in urls], expect=1)
    assert [fate for _, fate in fates(done, "webhooks")] == ["imported"] + ["refused"] * 4 + ["present"]
    assert [row["what"] for row in done["rows"]][:2] == ["http://127.0.0.1:8099", "http://127.0.0.1:8100"]
    assert "egress.allowed_origins" in done["rows"][1]["reason"]
    (subscription,) = database.read(list_subscriptions)
    assert (subscription.url, subscription.events) == (urls[0], ("generate.requested",))
    assert (subscription.active, subscription.with_key, subscription.with_images) == (True, False, False)


# --- both


def test_a_second_run_imports_what_is_new_and_nothing_else(import_keys, database, folder, tmp_path):
    (folder / "stellwerk.yaml").write_text(json.dumps({"egress": {"allowed_origins": ["http://127.0.0.1:8099"]}}))
    call = {"key": ANNE, "timestamp": "2024-05-22 14:00:00"}
    import_keys(apiKeys=[{"key": ANNE}], apiUsage=[call, call], webhooks=[{"url": "http://127.0.0.1:8099/"}])
    again = import_keys()
    assert {row["result"] for row in again["rows"]} == {"present"}
    with closing(sqlite3.connect(tmp_path / "apiKeys.db")) as old, old:
        old.execute("DELETE FROM apiUsage")
        old.executemany("INSERT INTO apiUsage VALUES (?, ?)", [tuple(call.values())] * 3)
        old.execute("INSERT INTO apiKeys (key) VALUES (?)", (BERT,))
    assert import_keys()["tables"] == {
        "apiKeys": {"imported": 1, "present": 1, "refused": 0},
        "apiUsage": {"imported": 1, "present": 2, "refused": 0},
        "webhooks": {"imported": 0, "present": 1, "refused": 0},
    }


def test_a_key_that_was_revoked_here_does_not_come_back(import_keys, database):
    import_keys(apiKeys=[{"key": ANNE}])
    database.write(lambda connection: connection.exec_driver_sql("UPDATE api_keys SET revoked_at = 1, revision = 9"))
    assert fates(import_keys(), "apiKeys") == [(1, "present")]
    assert database.read(list_keys)[0].state(MAY) == "revoked"


def test_a_dry_run_says_the_same_and_changes_nothing(import_keys, import_usage, database):
    tables = {"apiKeys": [{"key": ANNE}, {"key": "short"}], "apiUsage": [{"key": ANNE}]}
    tried = import_keys("--dry-run", **tables, expect=1)
    assert tried["dry_run"] is True
    rows = [{"key_index": 0, "model": "m", "prompt_tokens": 1, "completion_tokens": 2}]
    assert import_usage("--dry-run", rows=rows)["tables"]["usage"]["imported"] == 1
    assert database.read(list_keys) == []
    assert database.read(lambda connection: hours_of_use(connection, "ollama-cloud", limit=9)) == []
    assert database.read(lambda connection: read(connection, limit=9)) == []
    assert import_keys(expect=1)["tables"] == tried["tables"]


def test_people_read_a_line_a_row_and_the_sums(command, tmp_path, database):
    file = make(tmp_path / "apiKeys.db", API_KEYS, apiKeys=[{"key": ANNE}, {"key": "short"}])
    done = command(import_data.app, "api-keys", str(file), "--dry-run", expect=1)
    assert done.stdout.splitlines() == [
        "apiKeys 1\t…7be2\twould be imported",
        "apiKeys 2\t…\trefused\tthe key is too short: fewer than 16 characters can be guessed",
    ]
    assert "1 would be imported, 0 are already there, 1 would be refused. Nothing was changed." in done.stderr
    done = command(import_data.app, "api-keys", str(file), "--only-refused", expect=1)
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == ["apiKeys 2"]
    assert "apiKeys: 1 imported, 0 already there, 1 refused." in done.stderr


def test_germans_read_german(command, tmp_path, database, german):
    file = make(tmp_path / "apiKeys.db", API_KEYS, apiKeys=[{"key": ANNE, "active": 0}, {"key": "short"}])
    done = command(import_data.app, "api-keys", str(file), expect=1)
    assert "abgeschaltet und bleibt es" in done.stdout
    assert "abgelehnt\tder Schlüssel ist zu kurz" in done.stdout
    assert "apiKeys: 1 übernommen, 0 schon vorhanden, 1 abgelehnt." in done.stderr


# --- usage.db


def test_usage_is_booked_on_its_hour_key_and_model(import_usage, database):
    rows = [
        {"timestamp": "2024-05-22 14:00:00", "key_index": 0, "model": "a", "prompt_tokens": 10, "completion_tokens": 1},
        {"timestamp": "2024-05-22 14:59:59", "key_index": 0, "model": "a", "prompt_tokens": 5, "completion_tokens": 2},
        {"timestamp": "2024-05-22 14:59:59", "key_index": 1, "model": "a", "prompt_tokens": None},
        {"timestamp": "2024-05-22 15:00:00", "key_index": 0, "model": "unknown", "prompt_tokens": 0},
    ]
    assert import_usage(rows=rows)["tables"]["usage"] == {"imported": 4, "present": 0, "refused": 0}
    assert import_usage()["tables"]["usage"] == {"imported": 0, "present": 4, "refused": 0}
    hours = database.read(lambda connection: hours_of_use(connection, "ollama-cloud", limit=9))
    assert [(hour.hour, hour.key_index, hour.model, hour.requests, hour.prompt_tokens) for hour in hours] == [
        (MAY + 3600, 0, "unknown", 1, 0),
        (MAY, 0, "a", 2, 15),
        (MAY, 1, "a", 1, 0),
    ]
    sums = database.read(lambda connection: usage_by(connection, "model", MAY, MAY + 86_400))
    assert {(row.value, row.calls, row.input_tokens, row.output_tokens) for row in sums} == {
        ("a", 3, 15, 3),
        ("unknown", 1, 0, 0),
    }


def test_usage_may_be_of_another_provider(import_usage, database):
    import_usage("--provider", "cloud", rows=[{"key_index": 0, "model": "m"}])
    assert len(database.read(lambda connection: hours_of_use(connection, "cloud", limit=9))) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"timestamp": "x", "key_index": 0, "model": "m"}, "time"),
        ({"timestamp": None, "key_index": 0, "model": "m"}, "time"),
        ({"key_index": -1, "model": "m"}, "key_index"),
        ({"key_index": None, "model": "m"}, "key_index"),
        ({"key_index": 2**40, "model": "m"}, "key_index"),
        ({"key_index": 0, "model": ""}, "model"),
        ({"key_index": 0, "model": "a\nb"}, "model"),
        ({"key_index": 0, "model": "m" * 300}, "model"),
        ({"key_index": 0, "model": "m", "prompt_tokens": -1}, "prompt_tokens"),
        ({"key_index": 0, "model": "m", "completion_tokens": "many"}, "completion_tokens"),
        ({"key_index": 0, "model": "m", "completion_tokens": 10**15}, "completion_tokens"),
    ],
)
def test_a_malformed_row_of_usage_is_refused_alone(import_usage, row, reason):
    done = import_usage(rows=[row, {"key_index": 0, "model": "m"}], expect=1)
    assert [each["result"] for each in done["rows"]] == ["refused", "imported"]
    assert reason in done["rows"][0]["reason"]


# --- files


def test_what_is_no_such_database_is_said(command, tmp_path, database):
    other = make(tmp_path / "other.db", "CREATE TABLE t (a)")
    for name, words in (("api-keys", "no table apiKeys"), ("usage", "no table usage")):
        assert words in command(import_data.app, name, str(other), expect=1).stderr
    assert "There is no file" in command(import_data.app, "usage", str(tmp_path / "none.db"), expect=1).stderr
    text = tmp_path / "text.db"
    text.write_text("SQLite, but not quite")
    assert "is no SQLite database" in command(import_data.app, "usage", str(text), expect=1).stderr
