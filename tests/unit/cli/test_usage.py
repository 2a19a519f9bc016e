import re
import time
from datetime import UTC, datetime

import pytest

from stellwerk.cli import keys, usage, users

DAY = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(usage.app, *arguments, **how)


@pytest.fixture
def rows(parsed):
    return lambda *arguments: parsed(usage.app, *arguments)["rows"]


@pytest.fixture
def november(record_call, command, parsed):
    """Two calls of anna with her key, one that failed of bert; gives the key's id."""
    command(users.app, "create", "anna@example.org")
    command(users.app, "create", "bert@example.org")
    key_id = parsed(keys.app, "create", "phone", "--user", "1")["id"]
    record_call(at=DAY, user_id=1, key_id=key_id, cost=1_500_000)
    record_call(at=DAY + 86_400, user_id=1, key_id=key_id, model="other", cost=None)
    record_call(at=DAY + 86_400, user_id=2, key_id="login-9", status=502, error="upstream_error", cost=0)
    return key_id


def test_calls_are_summed_by_day_newest_first(rows, november):
    newest, oldest = rows("--since", "2026-11-01")
    assert newest == {
        "day": "2026-11-02", "calls": 2, "failed": 1, "input_tokens": 20, "output_tokens": 10, "cached_tokens": 0,
        "cost": 0, "average_duration": 0.5,
    }  # fmt: skip
    assert (oldest["day"], oldest["calls"], oldest["cost"]) == ("2026-11-01", 1, 1.5)


def test_calls_are_summed_by_user_key_and_model(rows, november):
    since = ("--since", "2026-11-01")
    assert [(row["user"], row["user_id"], row["calls"]) for row in rows("--by", "user", *since)] == [
        ("anna@example.org", 1, 2),
        ("bert@example.org", 2, 1),
    ]
    assert [(row["key"], row["key_id"]) for row in rows("--by", "key", *since)] == [
        ("phone", november),
        (None, "login-9"),
    ]
    assert [(row["model"], row["calls"]) for row in rows("--by", "model", *since)] == [("demo", 2), ("other", 1)]


def test_only_the_calls_that_were_asked_for_are_counted(rows, november):
    def counted(*arguments):
        return sum(row["calls"] for row in rows("--since", "2026-11-01", *arguments))

    assert counted("--until", "2026-11-01") == 1
    assert counted("--until", "2026-11-02") == 3
    assert counted("--user", "bert@example.org") == 1
    assert counted("--key", november) == 2
    assert counted("--model", "other") == 1


def test_an_age_counts_from_now(rows, record_call):
    record_call(at=time.time() - 3 * 3600)
    assert rows("--since", "2h") == []
    assert len(rows("--since", "4h")) == 1
    assert len(rows()) == 1
    assert rows("--until", "1d") == []


def test_people_get_a_table_and_the_sum(run, november):
    done = run("--since", "2026-11-01", "--by", "key")
    title, first, _ = done.stdout.splitlines()
    assert title.split("\t") == ["key", "calls", "failed", "tokens in", "tokens out", "cost"]
    assert first.split("\t") == [f"phone ({november})", "2", "0", "20", "10", "1.50 EUR"]
    assert "Together: calls 3, failed 1, tokens 45, cost 1.50 EUR." in done.stderr
    assert "No calls" in run("--since", "1h").stderr


def test_it_can_be_said_in_german(run, november, german):
    done = run("--since", "2026-11-01")
    assert done.stdout.startswith("Tag\tAnfragen\tgescheitert")
    assert "1,50 EUR" in done.stdout
    assert "Zusammen: Anfragen 3" in done.stderr


def test_the_name_of_a_model_cannot_steer_the_terminal(run, parsed, record_call):
    record_call(at=time.time(), model="\x1b[2Jx\ty")
    for arguments in ([], ["--json"]):
        assert "\x1b" not in run("--by", "model", *arguments).output
    assert parsed(usage.app, "--by", "model")["rows"][0]["model"] == "\x1b[2Jx\ty"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--since", "0d"],
        ["--since", "2026-13-01"],
        ["--until", "9999-12-31x"],
        ["--until", "9999-12-31"],
        ["--since", "1d", "--until", "2d"],
        ["--by", "colour"],
    ],
)
def test_what_is_no_time_is_refused(run, arguments):
    run(*arguments, expect=2)


def test_bytes_that_are_no_text_find_nothing(run):
    assert "No calls" in run("--model", "\udcff", "--key", "\udcff").stderr


def test_nobody_unknown_has_usage(run):
    assert "No user has" in run("--user", "nobody", expect=1).stderr


def test_every_text_has_both_languages_and_the_same_places():
    for key, texts in usage.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
