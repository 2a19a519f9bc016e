import json
import os
import pwd
import re
import sqlite3

import pytest

from stellwerk.auth.keys import list_keys
from stellwerk.cli import keys, users
from stellwerk.records.audit import read
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.folder import FolderLock


@pytest.fixture
def run(command):
    return lambda *arguments, expect=0: command(keys.app, *arguments, expect=expect)


@pytest.fixture
def listed(run):
    return lambda: json.loads(run("list", "--json").stdout)


def test_a_new_key_alone_goes_to_standard_output(run):
    done = run("create", "laptop")
    assert re.fullmatch(r"sk-sw-[a-z2-7]{10}-[A-Za-z0-9_-]{43}\n", done.stdout)
    assert "laptop (user), id " in done.stderr


def test_a_key_carries_everything_that_was_asked_for(run, listed):
    made = json.loads(
        run(
            "create", "ci", "--role", "viewer", "--models", "b, a", "--expires", "30d",
            "--requests-per-minute", "60", "--concurrent-requests", "0", "--json",
        ).stdout
    )  # fmt: skip
    (found,) = listed()
    assert found == made | {"key": f"sk-sw-…{made['key'][-4:]}"}
    assert (found["user"], found["networks"], found["priority"], found["last_used"]) == ("admin", None, "high", None)
    assert (found["name"], found["role"], found["models"], found["state"]) == ("ci", "viewer", ["a", "b"], "active")
    assert (found["requests_per_minute"], found["concurrent_requests"], found["revoked"]) == (60, 0, None)
    assert found["expires"] > found["created"]


def test_a_key_is_never_shown_again(run):
    secret = run("create", "laptop").stdout.strip()
    for output in (run("list").output, run("list", "--json").output, run("revoke", "laptop").output):
        assert secret[:-4] not in output
        assert secret[17:-4] not in output


def test_programs_get_one_line_a_key(run):
    assert "no keys yet" in run("list").stderr
    secret = run("create", "laptop").stdout.strip()
    title, line = run("list").stdout.splitlines()
    columns = ["id", "name", "user", "role", "key", "models", "expires", "last used", "state"]
    assert title.split("\t") == columns
    hint = f"…{secret[-4:]}"
    assert line.split("\t") == [secret[6:16], "laptop", "local", "user", hint, "all", "never", "never", "active"]


def test_a_terminal_gets_a_table_that_fits(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    run("create", "a rather long name with [red]marks[/red] in it", "--models", "a,b,c")
    output = re.sub(r"\x1b\[[0-9;]*m", "", run("list").stdout)
    assert max(len(line) for line in output.splitlines()) <= 80
    assert "[red]" in output
    assert "active" in output


def test_everything_can_be_said_in_german(run, german):
    run("create", "Laptop")
    assert "widerrufen" in run("revoke", "Laptop").stderr
    assert "widerrufen" in run("list").stdout


def test_every_text_has_both_languages_and_the_same_places():
    for key, texts in keys.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key


def test_a_key_is_revoked_by_its_id_or_by_its_name(run, listed):
    first, second = (json.loads(run("create", name, "--json").stdout)["id"] for name in ("one", "two"))
    run("revoke", first)
    run("revoke", "two")
    assert {key["id"]: key["state"] for key in listed()} == {first: "revoked", second: "revoked"}
    assert "was revoked before" in run("revoke", first).stderr


def test_a_name_that_several_keys_have_revokes_none(run, listed):
    ids = [json.loads(run("create", "twin", "--json").stdout)["id"] for _ in range(2)]
    assert all(key_id in run("revoke", "twin", expect=1).stderr for key_id in ids)
    assert [key["state"] for key in listed()] == ["active", "active"]
    run("revoke", ids[0])
    run("revoke", "twin")
    assert [key["state"] for key in listed()] == ["revoked", "revoked"]


def test_a_key_that_does_not_exist_cannot_be_revoked(run):
    assert "No key has the id or the name nobody" in run("revoke", "nobody", expect=1).stderr


def test_a_whole_key_in_the_place_of_its_id_is_not_repeated(run):
    key = run("create", "program").stdout.strip()
    finished = run("revoke", key, expect=1)
    assert "sk-sw-…" in finished.stderr
    assert key[17:] not in finished.stderr + finished.stdout


def test_the_last_admin_key_is_revoked_only_with_yes(run, listed):
    run("create", "root", "--role", "admin")
    run("create", "spare", "--role", "admin")
    run("revoke", "spare")
    assert "--yes" in run("revoke", "root", expect=1).stderr
    assert listed()[0]["state"] == "active"
    run("revoke", "root", "--yes")
    assert listed()[0]["state"] == "revoked"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", ""],
        ["create", " "],
        ["create", "a\nb"],
        ["create", "x" * 101],
        ["create", "a", "--role", "root"],
        ["create", "a", "--models", ""],
        ["create", "a", "--models", "a,,b"],
        ["create", "a", "--expires", "soon"],
        ["create", "a", "--expires", "0d"],
        ["create", "a", "--expires", "-1d"],
        ["create", "a", "--expires", "999999999w"],
        ["create", "a", "--requests-per-minute", "-1"],
        ["create", "a", "--concurrent-requests", "1e9"],
        ["create", "a", "--budget", "5"],
        ["create", "a", "--budget", "5/year"],
        ["create", "a", "--priority", "highest"],
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_no_key(run, listed, arguments):
    run(*arguments, expect=2)
    assert listed() == []


@pytest.mark.parametrize("networks", ["", "10.0.0.0/8,", "10.0.0.0/40", "example.org"])
def test_what_is_no_network_is_refused_and_makes_no_key(run, listed, networks):
    run("create", "a", "--networks", networks, expect=1)
    assert listed() == []


def test_a_key_of_a_user_is_his_and_has_limits_of_its_own(run, listed, parsed):
    command_of_users = parsed(users.app, "create", "anna@example.org")
    made = parsed(
        keys.app, "create", "phone", "--user", "Anna@example.org", "--networks", "10.0.0.7,2001:db8::/32",
        "--priority", "low", "--burst", "3", "--tokens-per-minute", "9000", "--budget", "2,50/week",
    )  # fmt: skip
    run("create", "other")
    (found,) = parsed(keys.app, "list", "--user", str(command_of_users["id"]))
    assert (found["user"], found["user_id"]) == ("anna@example.org", command_of_users["id"])
    assert (found["networks"], found["priority"]) == (["10.0.0.7/32", "2001:db8::/32"], "low")
    assert (found["burst"], found["tokens_per_minute"], found["requests_per_minute"]) == (3, 9000, None)
    budget = {name: found["budget"][name] for name in ("amount", "window", "currency", "spent", "held")}
    assert budget == {"amount": 2.5, "window": "week", "currency": "EUR", "spent": 0, "held": 0}
    assert found["id"] == made["id"]
    assert len(listed()) == 2


def test_a_user_without_keys_has_none_to_list(run, command):
    command(users.app, "create", "anna@example.org")
    assert "no keys yet" in run("list", "--user", "anna@example.org").stderr
    assert "No user has" in run("list", "--user", "nobody", expect=1).stderr


def test_nobody_gets_a_key_who_does_not_exist_or_is_disabled(run, command):
    assert (
        "No user has the e-mail address or the number nobody@x"
        in run("create", "a", "--user", "nobody@x", expect=1).stderr
    )
    command(users.app, "create", "anna@example.org")
    command(users.app, "disable", "anna@example.org")
    assert "disabled" in run("create", "a", "--user", "anna@example.org", expect=1).stderr


def test_all_that_is_known_of_a_key_is_shown(run, german):
    run("create", "laptop", "--networks", "10.0.0.0/8", "--requests-per-minute", "0", "--budget", "1.5/day")
    shown = dict(line.split("\t") for line in run("show", "laptop").stdout.splitlines())
    assert (shown["Name"], shown["Netze"], shown["Zustand"]) == ("laptop", "10.0.0.0/8", "gültig")
    assert (shown["Anfragen/Minute"], shown["Tokens/Minute"]) == ("unbegrenzt", "wie konfiguriert")
    assert shown["Budget"] == "1,50 EUR am Tag"
    assert re.fullmatch(r"1,50 EUR, bis .* 00:00 UTC", shown["davon übrig"])


def test_when_a_key_was_last_used_is_shown(run, listed, record_call):
    key_id = json.loads(run("create", "laptop", "--json").stdout)["id"]
    record_call(key_id=key_id, at=1_700_000_000.0)
    assert listed()[0]["last_used"] == "2023-11-14T22:13:20Z"
    assert "2023-11-14" in run("list").stdout or "2023-11-15" in run("list").stdout


def test_a_change_changes_what_was_given_and_nothing_else(run, listed, parsed):
    run("create", "old", "--models", "a", "--requests-per-minute", "5", "--burst", "2", "--expires", "1d")
    (before,) = listed()
    assert "new" in run(
        "update", "old", "--name", "new", "--requests-per-minute", "none", "--tokens-per-minute", "7",
        "--models", "none", "--expires", "none", "--networks", "::1", "--priority", "normal", "--budget", "3/day",
    ).stderr  # fmt: skip
    (after,) = listed()
    assert after["budget"]["amount"] == 3
    assert after == before | {
        "name": "new", "requests_per_minute": None, "tokens_per_minute": 7, "models": None, "expires": None,
        "networks": ["::1/128"], "priority": "normal", "budget": after["budget"],
    }  # fmt: skip
    assert parsed(keys.app, "update", "new", "--budget", "none", "--networks", "none") == after | {
        "budget": None,
        "networks": None,
    }
    run("update", "nobody", "--name", "x", expect=1)
    run("update", "new", "--burst", "-1", expect=2)


def test_every_change_is_audited_by_who_was_logged_in_and_holds_no_key(run, database):
    secret = run("create", "laptop").stdout.strip()
    run("update", "laptop", "--burst", "3")
    run("update", "laptop", "--burst", "3")
    run("revoke", "laptop")
    run("revoke", "laptop")
    records = database.read(lambda connection: read(connection, limit=10))
    assert [record.action for record in records] == ["key.revoke", "key.change", "key.create"]
    assert {record.actor for record in records} == {f"cli:{pwd.getpwuid(os.getuid()).pw_name}"}
    assert {record.subject for record in records} == {f"key:{secret[6:16]}"}
    assert secret[17:] not in str(records)


def test_the_key_of_a_user_who_is_no_admin_any_more_is_no_admin_key(run, command):
    command(users.app, "create", "anna@example.org", "--tier", "admin")
    run("create", "hers", "--user", "anna@example.org", "--role", "admin")
    run("create", "root", "--role", "admin")
    command(users.app, "update", "anna@example.org", "--tier", "payg")
    run("revoke", "hers")
    assert "last admin key" in run("revoke", "root", expect=1).stderr


def test_it_works_beside_a_running_gateway(run, folder, listed):
    with FolderLock(folder) as lock:
        serving = open_database(folder, lock=lock)
        run("create", "laptop")
        assert [record.name for record in serving.read(list_keys)] == ["laptop"]
        run("revoke", "laptop")
        assert serving.read(list_keys)[0].revoked_at is not None
        serving.close()


def test_a_damaged_database_is_named_and_not_replaced(run, folder):
    (folder / FILE_NAME).write_bytes(b"garbage")
    assert str(folder / FILE_NAME) in run("list", expect=78).stderr
    assert (folder / FILE_NAME).read_bytes() == b"garbage"


def test_a_lost_pepper_is_not_replaced(run, folder):
    run("create", "laptop")
    (folder / "secrets" / "pepper").unlink()
    assert "pepper is missing" in run("create", "other", expect=78).stderr


@pytest.mark.slow
def test_a_database_that_stays_locked_is_said_to_be(run, folder):
    connection = sqlite3.connect(folder / FILE_NAME, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert "cannot be reached" in run("create", "laptop", expect=75).stderr
    connection.close()
