import re

import pytest

from stellwerk.auth.signups import ask
from stellwerk.auth.users import find_user_by_email
from stellwerk.cli import signups
from stellwerk.core.principal import Tier
from stellwerk.records.audit import read


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(signups.app, *arguments, **how)


@pytest.fixture
def shown(parsed):
    return lambda *arguments: parsed(signups.app, *arguments)


@pytest.fixture
def asked(database):
    message = "Hello,\n\tI need \x1b[2Jaccess."
    for email, tier in (("anna@example.org", Tier.PAYG), ("bert@example.org", Tier.SUB)):
        database.write(lambda connection, email=email, tier=tier: ask(connection, email, tier, message, now=1000.0))


def test_who_waits_is_listed_in_one_line_each(run, shown, asked):
    title, bert, anna = run("list").stdout.splitlines()
    assert title.split("\t") == ["id", "e-mail", "tier", "asked", "state", "message"]
    assert anna.split("\t")[:3] == ["1", "anna@example.org", "payg"]
    assert bert.split("\t")[4] == "waiting"
    assert "\x1b" not in run("list", "--json").output
    assert [(signup["id"], signup["status"]) for signup in shown("list")] == [(2, "pending"), (1, "pending")]


def test_approving_makes_the_user_and_shows_the_key_once(run, asked, database):
    done = run("approve", "1", "--url", "https://llm.example.org")
    assert re.fullmatch(r"sk-sw-[a-z2-7]{10}-[A-Za-z0-9_-]{43}\n", done.stdout)
    secret = done.stdout.strip()
    assert secret[17:] not in done.stderr
    assert "anna@example.org (payg) is user 1 now" in done.stderr
    assert "Subject: Ihr Zugang zu Stellwerk" in done.stderr
    assert "Subject: Your access to Stellwerk" in done.stderr
    assert "https://llm.example.org/v1" in done.stderr
    user = database.read(lambda connection: find_user_by_email(connection, "anna@example.org"))
    assert user.tier is Tier.PAYG
    for again in (run("list", "--all"), run("list", "--all", "--json")):
        assert secret[17:-4] not in again.output


def test_the_key_stands_in_the_mail_only_when_that_is_asked_for(shown, asked):
    one, two = shown("approve", "1"), shown("approve", "2", "--key-in-mail")
    assert set(one["mails"]) == {"de", "en"}
    assert one["key"] not in one["mails"]["de"]["body"]
    assert two["key"] in two["mails"]["de"]["body"]
    assert (one["status"], one["user_id"], one["key_id"]) == ("approved", 1, one["key"][6:16])


def test_the_address_for_users_comes_from_the_config(shown, asked, monkeypatch):
    assert "http://127.0.0.1:4000/v1" in shown("approve", "1")["mails"]["en"]["body"]
    monkeypatch.setenv("STELLWERK_LISTEN__ALLOWED_HOSTS", "[llm.example.org]")
    monkeypatch.setenv("STELLWERK_LISTEN__BEHIND_PROXY", "true")
    assert "https://llm.example.org/v1" in shown("approve", "2")["mails"]["en"]["body"]


def test_rejecting_makes_nobody_and_gives_the_texts(run, shown, asked, german, database):
    done = run("reject", "2")
    assert "abgelehnt" in done.stderr
    assert "Betreff: Ihre Anfrage nach einem Zugang zu Stellwerk" in done.stderr
    assert database.read(lambda connection: find_user_by_email(connection, "bert@example.org")) is None
    assert [signup["status"] for signup in shown("list", "--all")] == ["rejected", "pending"]
    assert "abgelehnt" in run("list", "--all").stdout
    assert set(shown("reject", "1")["mails"]) == {"de", "en"}
    assert "Niemand wartet" in run("list").stderr


def test_a_request_is_decided_once_and_must_exist(run, asked):
    run("reject", "1")
    assert "already processed" in run("approve", "1", expect=1).stderr
    assert "already processed" in run("reject", "1", expect=1).stderr
    assert "no such" in run("approve", "99", expect=1).stderr
    run("approve", "anna", expect=2)


def test_decisions_are_audited_without_the_key(run, asked, database):
    secret = run("approve", "1").stdout.strip()
    run("reject", "2")
    records = database.read(lambda connection: read(connection, limit=9))
    assert [(record.action, record.subject) for record in records] == [
        ("signup.reject", "signup:2"),
        ("signup.approve", "signup:1"),
    ]
    assert secret[17:] not in str(records)


def test_every_text_has_both_languages_and_the_same_places():
    for key, texts in signups.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
