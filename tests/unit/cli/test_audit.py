import re

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from stellwerk.cli import audit, keys, ledger, users
from stellwerk.records.audit import Actor, append


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(audit.app, *arguments, **how)


@pytest.fixture
def shown(parsed):
    return lambda *arguments, **how: parsed(audit.app, *arguments, **how)


@pytest.fixture
def changed(command):
    command(users.app, "create", "anna@example.org", "--name", "Anna")
    command(users.app, "update", "1", "--burst", "5", "--models", "a,b")
    command(keys.app, "create", "laptop", "--user", "1")


@pytest.fixture
def forge(database):
    """Changes the record as somebody with the file in hands would."""

    def forge(statement):
        def work(connection):
            for verb in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER audit_log_no_{verb}"))
            connection.execute(text(statement))

        database.write(work)

    return forge


def test_changes_are_listed_newest_first(run, shown, changed):
    assert [record["action"] for record in shown()] == ["key.create", "user.change", "user.create"]
    assert [record["id"] for record in shown("--limit", "1")] == [3]
    assert [record["id"] for record in shown("--before", "2")] == [1]
    assert [record["id"] for record in shown("--subject", "user:1")] == [2, 1]
    assert shown("--subject", "\udcff") == []
    assert shown("--limit", "1")[0]["at"].endswith("Z")


def test_people_read_what_was_before_and_after(run, changed, german):
    title, _, change, _ = (line.split("\t") for line in run().stdout.splitlines())
    assert title == ["Nr.", "wann", "wer", "von wo", "was", "woran", "Einzelheiten"]
    assert change[4:6] == ["user.change", "user:1"]
    assert "burst" in change[6]
    assert "models: – → a b" in change[6]


def test_people_read_amounts_times_and_prices_as_they_write_them(run, command, changed):
    command(ledger.app, "top-up", "1", "25.50")
    command(ledger.app, "prices", "add", "demo", "--input-per-1m", "1.25", "--from", "2026-12-01")
    command(keys.app, "update", "laptop", "--budget", "5/day")
    _, budget, price, money, *_ = run().stdout.splitlines()
    assert "amount: 25.50, currency: EUR" in money
    assert "valid_from: 2026-12-01 00:00 UTC" in price
    assert "price.input_per_1m: 1.25, price.currency: EUR" in price
    assert "budget: – → (amount: 5.00, window: day)" in budget


def test_nothing_is_said_to_be_nothing(run, shown):
    assert "Nothing was changed" in run().stderr
    assert shown() == []
    assert "records: 0," in run("verify").stdout


def test_a_whole_chain_is_said_to_be_whole(run, shown, changed):
    assert "The chain is whole; records: 3," in run("verify").stdout
    report = shown("verify")
    assert (report["intact"], report["broken_at"], report["newest"]["id"]) == (True, None, 3)
    assert len(report["newest"]["digest"]) == 64


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET actor = 'nobody' WHERE id = 2", "DELETE FROM audit_log WHERE id = 2"]
)
def test_a_broken_chain_ends_with_1(run, shown, changed, forge, statement):
    forge(statement)
    assert "breaks at record 2" in run("verify", expect=1).stderr
    assert shown("verify", expect=1)["broken_at"] == 2


def test_the_folder_may_be_named_before_or_after_verify(folder, changed, tmp_path, monkeypatch):
    monkeypatch.setenv("STELLWERK_DATA", str(tmp_path / "other"))
    done = CliRunner().invoke(audit.app, ["--data", str(folder), "verify"])
    assert "records: 3," in done.stdout


def test_who_is_recorded_cannot_steer_the_terminal(run, database):
    actor = Actor(name="\x1b[2Jroot", peer="a\tb")
    database.write(
        lambda connection: append(connection, actor, "x", "user:1", {"name": "\x1b]0;x\x07\n\u202e"}, now=1.0)
    )
    for done in (run(), run("--json")):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.stdout)
    assert len(run().stdout.splitlines()) == 2


def test_every_text_has_both_languages_and_the_same_places():
    for key, texts in audit.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
