import re

import pytest
from sqlalchemy import update

from stellwerk.cli import ledger, prices, users
from stellwerk.ledger.accounts import accounts
from stellwerk.records.audit import read


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(ledger.app, *arguments, **how)


@pytest.fixture
def shown(parsed):
    return lambda *arguments, **how: parsed(ledger.app, *arguments, **how)


@pytest.fixture
def anna(command):
    command(users.app, "create", "anna@example.org")
    return "anna@example.org"


def test_money_that_came_in_is_booked_with_its_note(run, shown, anna):
    assert (
        "10.50 EUR is booked for anna@example.org, who has 10.50 EUR now."
        in run("top-up", anna, "10,50", "--note", "bank transfer").stderr
    )
    assert shown("top-up", "1", "0.000001") == {
        "id": 1, "email": anna, "available": 10.500001, "held": 0, "currency": "EUR", "booked": 1e-6,
    }  # fmt: skip
    last, first = shown("show", anna)["lines"]
    assert (first["kind"], first["amount"], first["note"]) == ("top_up", 10.5, "bank transfer")
    assert (last["amount"], last["note"], last["call_id"]) == (1e-6, "", None)
    assert first["actor"].startswith("cli:")
    assert first["at"].endswith("Z")


def test_a_correction_takes_away_but_never_below_zero(run, shown, anna):
    run("top-up", anna, "5")
    assert "-2.25 EUR and is 2.75 EUR now" in run("correct", anna, "-2,25", "--note", "typed wrongly").stderr
    assert shown("correct", anna, "+1", "--note", "too much")["available"] == 3.75
    assert "below 0" in run("correct", anna, "-3.76", "--note", "all", expect=1).stderr
    assert shown("balances") == [{"id": 1, "email": anna, "available": 3.75, "held": 0, "currency": "EUR"}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["top-up", "1", "0"],
        ["top-up", "1", "ten"],
        ["top-up", "1", "1.0000001"],
        ["top-up", "1", "1", "--note", "a\nb"],
        ["correct", "1", "1"],
        ["correct", "1", "1", "--note", " "],
        ["correct", "1", "0", "--note", "x"],
    ],
)
def test_what_is_no_booking_is_refused_and_books_nothing(run, shown, anna, arguments):
    run(*arguments, expect=2)
    assert shown("balances") == []


def test_nobody_unknown_is_booked_for(run):
    for arguments in (["top-up", "x@y", "1"], ["correct", "x@y", "1", "--note", "n"], ["show", "x@y"]):
        assert "No user has" in run(*arguments, expect=1).stderr


def test_a_statement_is_read_page_by_page(run, shown, anna):
    for amount in ("1", "2", "3"):
        run("top-up", anna, amount)
    newest = shown("show", anna, "--limit", "2")["lines"]
    assert [line["amount"] for line in newest] == [3, 2]
    assert [line["amount"] for line in shown("show", anna, "--before", str(newest[-1]["id"]))["lines"]] == [1]


def test_people_get_a_statement_in_their_language(run, anna, german):
    assert "Noch hat niemand ein Konto" in run("balances").stderr
    assert "nichts gebucht" in run("show", anna).stderr
    run("top-up", anna, "10,50", "--note", "Überweisung")
    run("correct", anna, "-0,5", "--note", "Gebühr")
    done = run("show", anna)
    assert "anna@example.org hat 10,00 EUR." in done.stderr
    title, last, first = (line.split("\t") for line in done.stdout.splitlines())
    assert title == ["Nr.", "wann", "was", "Betrag", "Notiz", "von", "Anfrage"]
    assert last[2:5] == ["Berichtigung", "-0,50 EUR", "Gebühr"]
    assert first[2:5] == ["Aufladung", "10,50 EUR", "Überweisung"]
    assert run("balances").stdout.splitlines()[1].split("\t") == ["1", anna, "10,00 EUR", "0,00 EUR"]


def test_accounts_that_add_up_are_said_to(run, shown, anna):
    assert "Everything adds up.\nAccounts: 0," in run("check").stdout
    run("top-up", anna, "10")
    said = run("check").stdout
    assert "Accounts: 5, transactions: 1, entries: 2, open holds: 0." in said
    assert "available 10.00 EUR" in said
    assert "outside -10.00 EUR" in said
    report = shown("check")
    assert (report["adds_up"], report["problems"], report["sums"]["available"]) == (True, [], 10)


def test_accounts_that_do_not_add_up_are_named_and_end_with_1(run, shown, anna, database):
    run("top-up", anna, "10")
    spoil = update(accounts).where(accounts.c.kind == "available").values(balance=11_000_000)
    database.write(lambda connection: connection.execute(spoil))
    done = run("check", expect=1)
    assert done.stdout == ""
    assert "wrong_balance" in done.stderr
    assert "do not add up" in done.stderr
    report = shown("check", expect=1)
    assert report["adds_up"] is False
    assert {"wrong_balance", "wrong_total"} <= {problem["kind"] for problem in report["problems"]}


def test_the_currency_is_that_of_the_config_until_there_are_accounts(run, shown, anna, monkeypatch):
    monkeypatch.setenv("STELLWERK_MONEY__CURRENCY", "CHF")
    assert shown("top-up", anna, "1")["currency"] == "CHF"
    monkeypatch.setenv("STELLWERK_MONEY__CURRENCY", "USD")
    assert shown("top-up", anna, "1")["currency"] == "CHF"


def test_every_booking_is_audited(run, anna, database):
    run("top-up", anna, "1", "--note", "cash")
    run("correct", anna, "-1", "--note", "not hers")
    last, first, _ = database.read(lambda connection: read(connection, limit=9))
    assert (first.action, first.details["amount"], first.details["note"]) == ("balance.top_up", 1_000_000, "cash")
    assert (last.action, last.details["amount"]) == ("balance.correct", -1_000_000)


@pytest.mark.parametrize("module", [ledger, prices])
def test_every_text_has_both_languages_and_the_same_places(module):
    for key, texts in module.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
