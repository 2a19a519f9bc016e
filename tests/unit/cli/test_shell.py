import re
import subprocess
import time

import pytest

from stellwerk.auth.keys import list_keys
from stellwerk.cli import keys, shell, shell_keys, shell_webhooks
from stellwerk.core.principal import Role
from stellwerk.records.audit import read
from tests.gateway_process import COMMAND, environment_for
from tests.terminal_process import PROMPT, on_a_terminal

KEY = r"sk-sw-[a-z2-7]{10}-[\w-]{43}"


@pytest.fixture
def run(command, folder, monkeypatch):
    """Pipes lines into the shell."""
    monkeypatch.setenv("STELLWERK_EGRESS__ALLOWED_ORIGINS", "[http://127.0.0.1:9000]")
    return lambda *lines, **how: command(shell.app, stdin="".join(f"{line}\n" for line in lines), **how)


@pytest.fixture
def stored(database):
    return lambda: database.read(list_keys)


def test_a_key_is_generated_and_shown_once(run, stored):
    done = run("generatekey", "listkeys")
    key, title, row = done.stdout.splitlines()
    assert re.fullmatch(KEY, key)
    assert title.split("\t") == ["id", "key", "created", "last used", "per minute", "active", "description"]
    [record] = stored()
    assert row.split("\t")[:2] == [record.id, f"…{key[-4:]}"]
    assert row.split("\t")[3:] == ["never", "10", "yes", "shell"]
    assert (record.role, record.allowance.requests_per_minute) == (Role.USER, 10)
    assert f"Key {record.id}, 10 requests a minute" in done.stderr
    assert key[17:-4] not in done.stderr + row


def test_several_keys_are_generated_at_once(run, stored):
    made = run("generatekeys 3").stdout.splitlines()
    assert len({key for key in made if re.fullmatch(KEY, key)}) == 3
    assert len(stored()) == 3
    for wrong in ("0", "-1", "x", "1001", "²"):
        assert "whole number from 1 to 1000" in run(f"generatekeys {wrong}").stderr
    assert len(stored()) == 3


def test_how_many_requests_a_new_key_may_make_can_be_chosen(command, stored):
    command(shell.app, "--requests-per-minute", "0", stdin="generatekey\n")
    assert stored()[0].allowance.requests_per_minute == 0


@pytest.mark.parametrize(
    "name",
    [
        lambda key: key,
        lambda key: key[6:16],
        lambda key: key[:16],
        lambda key: key[6:12],
        lambda key: f"{key[:17]}…{key[-4:]}",
    ],
    ids=["the key", "its id", "its prefix", "the beginning of its id", "as it is listed"],
)
def test_a_key_is_removed_by_whatever_names_it(run, stored, name):
    key, other = run("generatekeys 2").stdout.splitlines()
    assert "is removed" in run(f"removekey {name(key)}").stderr
    assert {record.id: record.state(0) for record in stored()} == {key[6:16]: "revoked", other[6:16]: "active"}
    assert key[6:16] not in run("listkeys").stdout
    assert "was removed before" in run(f"removekey {key}").stderr


def test_a_key_that_is_wrong_in_its_secret_removes_nothing(run, stored):
    key = run("generatekey").stdout.strip()
    for wrong in (f"{key[:-1]}x", key[:-1], f"{key}x", "a", "sk-sw-", "…", f"{key[6:15]}1"):
        assert "No such key" in run(f"removekey {wrong}").stderr
    assert stored()[0].revoked_at is None


def test_a_beginning_of_several_keys_removes_none(run, stored, database):
    made = run("generatekeys 1000").stdout.splitlines()
    beginnings = [key[6:9] for key in made]
    several = next((beginning for beginning in beginnings if beginnings.count(beginning) > 1), None)
    assert several is not None
    assert f"Several keys begin so: {several}" in run(f"removekey {several}").stderr
    assert all(record.revoked_at is None for record in stored())


def test_the_last_admin_key_is_neither_removed_nor_deactivated(run, command, stored):
    admin = command(keys.app, "create", "me", "--role", "admin").stdout.strip()
    for line in (f"removekey {admin}", f"disablekey {admin[:16]}"):
        assert "last admin key" in run(line).stderr
    assert stored()[0].state(time.time()) == "active"


def test_a_key_is_limited_switched_off_and_on_and_described(run, stored):
    key_id = run("generatekey").stdout[6:16]
    assert "99 requests a minute" in run(f"setlimit {key_id} 99").stderr
    assert stored()[0].allowance.requests_per_minute == 99
    assert "deactivated" in run(f"disablekey {key_id}").stderr
    assert stored()[0].state(time.time()) == "expired"
    assert run("listkeys").stdout.splitlines()[1].split("\t")[5] == "no"
    assert "active" in run(f"enablekey {key_id}").stderr
    assert stored()[0].state(time.time()) == "active"
    assert "my old  script" not in run(f"describe {key_id} my old  script").stderr
    assert stored()[0].name == "my old script"
    assert "whole number" in run(f"setlimit {key_id} -5").stderr
    run(f"removekey {key_id}")
    for line in (f"setlimit {key_id} 5", f"enablekey {key_id}", f"describe {key_id} x"):
        assert "removed before" in run(line).stderr


def test_webhooks_are_added_listed_and_deleted(run):
    done = run("addwebhook http://127.0.0.1:9000/hook", "listwebhooks", "deletewebhook 1", "listwebhooks")
    secret, _, row = done.stdout.splitlines()
    assert re.fullmatch(r"whsec_[\w+/]{43}=", secret)
    assert row.split("\t")[:4] == ["1", "http://127.0.0.1:9000/hook", "generate.requested", "active"]
    assert "There are no webhooks" in done.stderr
    assert "no such webhook" in run("deletewebhook 1").stderr
    assert "by its number" in run("deletewebhook http://127.0.0.1:9000/hook").stderr


def test_a_webhook_in_a_private_network_is_refused(run):
    for url in ("http://127.0.0.1:9001/", "http://10.0.0.1/", "http://localhost:9000/", "file:///etc/passwd", "x"):
        assert run(f"addwebhook {url}", "listwebhooks").stdout == ""


def test_what_is_no_command_is_said_and_the_next_line_is_obeyed(run):
    done = run("frobnicate", "generate", "", "   ", "removekey", "listkeys now", "help")
    unknown, near, *usages = done.stderr.splitlines()
    assert unknown.startswith("Unknown command")
    assert "did you mean generatekey" in near
    assert usages == ["Usage: removekey <key>", "Usage: listkeys"]
    for line in ("generatekeys <count>", "removekey <key>", "addwebhook <url>", "deletewebhook <id>", "exit"):
        assert f"  {line} " in done.stdout


def test_nothing_after_exit_is_obeyed(run, stored):
    assert run("exit", "generatekey").output == ""
    assert stored() == []


def test_lines_that_are_too_long_or_no_text_are_not_obeyed(folder, tmp_path):
    lines = b"x" * 20_000 + b" generatekey\n\xff\xfe generatekey\ngeneratekey"
    environment = environment_for(tmp_path) | {"LC_ALL": "C.UTF-8"}
    command = [*COMMAND, "shell", "--data", str(folder)]
    done = subprocess.run(command, input=lines, env=environment, capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert b"too long" in done.stderr
    assert b"Unknown command" in done.stderr


def test_piped_lines_leave_no_history_and_get_no_prompt(run, folder):
    assert run("listwebhooks", "exit").stdout == ""
    assert not (folder / shell.HISTORY_FILE).exists()


def test_changes_are_audited_without_secrets(run, database):
    done = run("generatekey", "addwebhook http://127.0.0.1:9000/hook?token=Canary77")
    records = database.read(lambda connection: read(connection, limit=9))
    assert [record.action for record in records] == ["webhook.create", "key.create"]
    assert all(secret not in str(records) for secret in (*done.stdout.split(), "Canary77"))


def test_it_speaks_german(run, german):
    done = run("generatekey", "foo", "help", "addwebhook http://10.0.0.1/")
    assert "Anfragen je Minute" in done.stderr
    assert "Unbekannter Befehl" in done.stderr
    assert "wird nicht gerufen" in done.stderr
    assert "diese Befehle zeigen" in done.stdout


@pytest.mark.parametrize("module", [shell, shell_keys, shell_webhooks])
def test_every_text_has_both_languages_and_the_same_places(module):
    for key, texts in module.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key


# --- on a terminal


@pytest.fixture
def environment(tmp_path, folder):
    return environment_for(tmp_path) | {"STELLWERK_DATA": str(folder)}


@pytest.fixture
def typed(environment, tmp_path):
    with on_a_terminal("shell", environment=environment, folder=tmp_path) as process:
        process.wait_for(PROMPT)
        yield process


def test_on_a_terminal_words_are_completed(typed, stored):
    typed.obey("generatekey")
    assert "There are no webhooks" in typed.obey("listw\t")
    [record] = stored()
    assert f"Key {record.id}: 7 requests a minute" in typed.obey("setl\t\t7")
    assert f"Key {record.id} is removed" in typed.obey(f"removekey {record.id[:4]}\t")
    typed.type("exit\r")
    assert typed.wait_for_end() == 0


def test_ctrl_c_throws_the_line_away_and_ctrl_d_ends(typed, stored):
    typed.type("generatekey\x03")
    typed.wait_for(PROMPT)
    assert "There are no keys" in typed.obey("listkeys")
    typed.type("\x04")
    assert typed.wait_for_end() == 0
    assert stored() == []
    assert typed.is_echoing()


def test_sigterm_leaves_the_terminal_as_it_was(typed):
    assert not typed.is_echoing()
    typed.process.terminate()
    assert typed.wait_for_end() == 143
    assert typed.is_echoing()


def test_the_history_is_private_and_holds_no_secret(typed, environment, tmp_path, folder):
    key = re.search(KEY, typed.obey("generatekey"))[0]
    key_id = key[6:16]
    for line, answer in (
        (f"setlimit {key} 5", "5 requests"),
        (f"removekey {key_id}", "is removed"),
        ("addwebhook http://127.0.0.1/Canary", "does not lead"),
        (f"remvekey {key}", "Unknown command"),
        (f"describe {key_id} {key}", "removed before"),
        ("help", "exit"),
    ):
        assert answer in typed.obey(line)
    typed.type("\x04")
    typed.wait_for_end()
    file = folder / shell.HISTORY_FILE
    assert file.read_text().splitlines() == ["generatekey", f"removekey {key_id}", "help"]
    assert file.stat().st_mode & 0o777 == 0o600
    with on_a_terminal("shell", environment=environment, folder=tmp_path) as again:
        again.wait_for(PROMPT)
        # Twice one line back.
        assert f"Key {key_id} was removed before" in again.obey("\x10\x10")


def test_a_line_that_the_locale_cannot_hold_ends_nothing(environment, tmp_path):
    narrow = environment | {"LC_ALL": "C"}
    for _ in range(2):
        # The second time it stands in the history.
        with on_a_terminal("shell", environment=narrow, folder=tmp_path) as process:
            process.wait_for(PROMPT)
            assert "No such key" in process.obey("describe abc Käse")
            process.type("exit\r")
            assert process.wait_for_end() == 0


def test_the_list_of_keys_is_whole_on_a_terminal_of_eighty_columns(typed, stored):
    typed.obey("generatekey")
    listed = typed.obey("listkeys")
    [record] = stored()
    for part in (record.id, f"…{record.last_four}", "per minute", "active", "description", "shell"):
        assert part in listed


def test_a_closed_input_ends_it_at_once(environment):
    for closing in ("<&-", "</dev/null"):
        line = ["sh", "-c", f'exec "$@" {closing}', "sh", *COMMAND, "shell"]
        done = subprocess.run(line, env=environment, capture_output=True, check=True, timeout=60)
        assert (done.stdout, done.stderr) == (b"", b"")
