import json
import re
import sqlite3

import pytest
from typer.testing import CliRunner

from stellwerk.auth.keys import list_keys
from stellwerk.cli import keys
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.folder import FolderLock


@pytest.fixture(autouse=True)
def english(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")


@pytest.fixture
def run(folder):
    def run(*arguments, expect=0):
        done = CliRunner().invoke(keys.app, [*arguments, "--data", str(folder)])
        assert done.exit_code == expect, done.output
        return done

    return run


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
    assert title.split("\t") == ["id", "name", "role", "key", "models", "created", "expires", "state"]
    cells = line.split("\t")
    assert cells[:5] == [secret[6:16], "laptop", "user", f"sk-sw-…{secret[-4:]}", "all"]
    assert cells[6:] == ["never", "active"]


def test_a_terminal_gets_a_table_that_fits(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    run("create", "a rather long name with [red]marks[/red] in it", "--models", "a,b,c")
    output = re.sub(r"\x1b\[[0-9;]*m", "", run("list").stdout)
    assert max(len(line) for line in output.splitlines()) <= 80
    assert "[red]" in output
    assert "active" in output


def test_everything_can_be_said_in_german(run, monkeypatch):
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
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
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_no_key(run, listed, arguments):
    run(*arguments, expect=2)
    assert listed() == []


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
