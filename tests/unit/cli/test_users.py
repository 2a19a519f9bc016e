import asyncio
import re
import time

import pytest

from stellwerk.auth.passwords import verify_password
from stellwerk.auth.users import read_password
from stellwerk.cli import keys, users
from stellwerk.core.secrets import Secret
from stellwerk.records.audit import read
from tests.gateway_process import away_from_midnight

PASSWORD = "lamp oyster violin 41"


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(users.app, *arguments, **how)


@pytest.fixture
def shown(parsed):
    return lambda *arguments: parsed(users.app, *arguments)


@pytest.fixture
def stored_password(database):
    return lambda email: database.read(lambda connection: read_password(connection, email))[1]


def test_a_new_user_pays_from_a_balance_and_is_no_admin(run, shown):
    done = run("create", " Anna@Example.org ")
    assert done.stdout == ""
    assert "anna@example.org (payg, user) is user 1" in done.stderr
    (user,) = shown("list")
    assert user == {
        "id": 1, "email": "anna@example.org", "name": "", "role": "user", "tier": "payg", "active": True,
        "balance": 0, "held": 0, "currency": "EUR", "key_count": 0, "has_password": False, "models": None,
        "requests_per_minute": None, "burst": None, "tokens_per_minute": None, "concurrent_requests": None,
        "budget": None, "created": user["created"],
    }  # fmt: skip


def test_a_user_carries_everything_that_was_asked_for(shown):
    user = shown(
        "create", "b@x.org", "--tier", "sub", "--role", "viewer", "--name", "Bert", "--balance", "10,50", "--models",
        "b, a", "--requests-per-minute", "9", "--burst", "3", "--tokens-per-minute", "8000", "--concurrent-requests",
        "2", "--budget", "5.00/day",
    )  # fmt: skip
    assert (user["tier"], user["role"], user["name"], user["models"]) == ("sub", "viewer", "Bert", ["a", "b"])
    assert (user["balance"], user["requests_per_minute"], user["burst"]) == (10.5, 9, 3)
    assert (user["tokens_per_minute"], user["concurrent_requests"]) == (8000, 2)
    assert (user["budget"]["amount"], user["budget"]["window"], user["budget"]["spent"]) == (5, "day", 0)
    assert shown("show", "b@x.org") == user | {"keys": []}


def test_the_tier_admin_makes_an_admin_and_leaving_it_unmakes_him(shown):
    assert shown("create", "a@x.org", "--tier", "admin")["role"] == "admin"
    assert shown("create", "spare@x.org", "--role", "admin")["tier"] == "payg"
    assert shown("update", "a@x.org", "--tier", "sub")["role"] == "user"
    assert shown("update", "a@x.org", "--tier", "admin", "--role", "viewer")["role"] == "viewer"


def test_an_address_is_had_by_one_user_only(run, shown):
    run("create", "a@x.org")
    assert "already exists" in run("create", "A@X.org", "--balance", "5", expect=1).stderr
    assert [user["balance"] for user in shown("list")] == [0]


@pytest.mark.parametrize("email", ["", "nobody", "a@b@c", "a b@x.org", "a\x1b[2J@x.org"])
def test_what_is_no_address_is_refused_and_cannot_steer_the_terminal(run, shown, email):
    done = run("create", email, expect=1)
    assert "not an e-mail address" in done.stderr
    assert "\x1b" not in done.output
    assert shown("list") == []


@pytest.mark.parametrize(
    "options",
    [
        ["--balance", "0"],
        ["--balance", "-5"],
        ["--balance", "1.0000001"],
        ["--tier", "gold"],
        ["--role", "root"],
        ["--name", "a\nb"],
        ["--burst", "none at all"],
        ["--budget", "5/hour"],
        ["--models", ","],
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_no_user(run, shown, options):
    run("create", "a@x.org", *options, expect=2)
    assert shown("list") == []


def test_programs_get_one_line_a_user_and_people_a_table_that_fits(run, monkeypatch):
    assert "no users yet" in run("list").stderr
    run("create", "anna@example.org", "--balance", "3")
    run("create", "somebody.with.a.long.name@department.example.org", "--tier", "sub", "--name", "[red]x[/red]")
    title, newest, oldest = run("list").stdout.splitlines()
    assert title.split("\t") == ["id", "e-mail", "name", "role", "tier", "state", "balance", "keys", "created"]
    assert newest.split("\t")[2:8] == ["[red]x[/red]", "user", "sub", "active", "–", "0"]
    assert oldest.split("\t")[:8] == ["1", "anna@example.org", "", "user", "payg", "active", "3.00 EUR", "0"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", run("list").stdout)
    assert max(len(line) for line in drawn.splitlines()) <= 80
    assert "[red]" in drawn


def test_all_that_is_known_of_a_user_is_shown_with_the_keys(run, command, german):
    run("create", "anna@example.org", "--balance", "10,50", "--budget", "2/month")
    secret = command(keys.app, "create", "laptop", "--user", "1").stdout.strip()
    output = run("show", "anna@example.org").stdout
    fields = dict(line.split("\t") for line in output.split("\n\n")[0].splitlines())
    assert (fields["Guthaben"], fields["Zustand"], fields["Passwort"]) == ("10,50 EUR", "aktiv", "nein")
    assert (fields["Budget"], fields["Schlüssel"]) == ("2,00 EUR im Monat", "1")
    assert f"{secret[6:16]}\tlaptop\tanna@example.org" in output
    assert secret[17:-4] not in output


def test_what_was_spent_of_a_budget_is_shown(run, shown, record_call):
    asyncio.run(away_from_midnight())
    user = shown("create", "anna@example.org", "--budget", "2/month")
    record_call(user_id=user["id"], at=time.time(), cost=250_000)
    assert shown("show", "1")["budget"]["spent"] == 0.25
    assert "1.75 EUR, until" in run("show", "1").stdout


def test_a_change_changes_what_was_given_and_nothing_else(run, shown):
    before = shown("create", "a@x.org", "--name", "A", "--models", "m", "--burst", "4", "--budget", "1/day")
    after = shown("update", "1", "--email", "b@x.org", "--models", "none", "--burst", "none", "--budget", "none")
    assert after == before | {"email": "b@x.org", "models": None, "burst": None, "budget": None}
    assert shown("update", "b@x.org", "--name", "none", "--concurrent-requests", "0") == after | {
        "name": "",
        "concurrent_requests": 0,
    }
    assert "b@x.org is changed" in run("update", "1", "--role", "viewer").stderr
    assert shown("show", "1")["role"] == "viewer"


@pytest.mark.parametrize("who", ["nobody@x.org", "7", "9" * 40, "²", "\x1b[2J", "\udcff"])
def test_a_user_who_does_not_exist_is_said_to_be_missing(run, who):
    for arguments in (["show", who], ["update", who], ["disable", who], ["enable", who], ["password", who, "--remove"]):
        done = run(*arguments, expect=1)
        assert "No user has the e-mail address or the number" in done.stderr
        assert "\x1b" not in done.stderr


def test_a_user_is_disabled_and_enabled(run, shown, german):
    run("create", "a@x.org")
    assert "gesperrt" in run("disable", "a@x.org").stderr
    assert shown("show", "1")["active"] is False
    assert "gesperrt" in run("list").stdout
    assert "freigegeben" in run("enable", "1").stderr
    assert shown("list")[0]["active"] is True


def test_the_last_admin_and_the_built_in_one_stay(run, command):
    run("create", "a@x.org", "--tier", "admin")
    assert "last active administrator" in run("disable", "a@x.org", expect=1).stderr
    command(keys.app, "create", "root", "--role", "admin")
    assert "built-in" in run("disable", "admin", expect=1).stderr


def test_a_password_comes_from_standard_input_and_is_stored_encoded(run, shown, stored_password):
    run("create", "a@x.org", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert verify_password(stored_password("a@x.org"), Secret(PASSWORD))
    assert shown("show", "1")["has_password"] is True


def test_a_password_is_asked_for_twice_and_never_shown(run, stored_password):
    run("create", "a@x.org")
    done = run("password", "a@x.org", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    assert PASSWORD not in done.output
    assert verify_password(stored_password("a@x.org"), Secret(PASSWORD))


def test_two_passwords_that_differ_set_none(run, stored_password):
    run("create", "a@x.org")
    done = run("password", "a@x.org", stdin=f"{PASSWORD}\nsomething else\n", expect=1)
    assert "not the same" in done.stderr
    assert stored_password("a@x.org") is None


def test_a_weak_password_makes_no_user(run, shown):
    assert "12 to 256 characters" in run("create", "a@x.org", "--password-stdin", stdin="short\n", expect=1).stderr
    assert shown("list") == []


def test_a_password_is_removed(run, stored_password):
    run("create", "a@x.org", "--password-stdin", stdin=PASSWORD)
    assert "no password any more" in run("password", "a@x.org", "--remove").stderr
    assert stored_password("a@x.org") is None


def test_every_change_is_audited_without_any_secret(run, database):
    run("create", "a@x.org", "--balance", "2", "--password-stdin", stdin=PASSWORD)
    run("update", "1", "--burst", "1")
    run("password", "1", "--password-stdin", stdin="another lamp violin 7")
    run("disable", "1")
    records = database.read(lambda connection: read(connection, limit=10))
    actions = ["user.change", "user.password", "user.change", "balance.top_up", "user.create"]
    assert [record.action for record in records] == actions
    assert all(record.actor.startswith("cli:") and record.subject == "user:1" for record in records)
    assert not any(word in str(records) for word in (PASSWORD, "another lamp", "argon2"))


def test_every_text_has_both_languages_and_the_same_places():
    for key, texts in users.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
