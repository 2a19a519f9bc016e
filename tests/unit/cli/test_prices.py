import pytest

from stellwerk.cli import ledger
from stellwerk.records.audit import read


@pytest.fixture
def run(command):
    return lambda *arguments, **how: command(ledger.app, "prices", *arguments, **how)


@pytest.fixture
def shown(parsed):
    return lambda *arguments: parsed(ledger.app, "prices", *arguments)


def test_a_price_is_stated_by_the_thousand_or_the_million_and_kept_exactly(shown):
    row = shown("add", "my/model", "--input-per-1k", "0,00015", "--output-per-1m", "0.6", "--note", "list price")
    assert row["prices"] == {"input_per_1m": 0.15, "output_per_1m": 0.6}
    assert (row["model"], row["currency"], row["withdrawn"], row["note"]) == ("my/model", "EUR", False, "list price")
    assert row["created_by"].startswith("cli:")
    assert shown("list") == [row]


def test_everything_that_is_metered_has_a_price(shown):
    row = shown(
        "add", "*", "--per-request", "1", "--per-second", "0.0001", "--per-character", "0.00003", "--per-page",
        "0.05", "--cache-read-per-1m", "0.1", "--cache-write-per-1m", "0.2", "--currency", "usd",
    )  # fmt: skip
    assert row["currency"] == "USD"
    assert row["prices"] == {
        "cache_read_per_1m": 0.1, "cache_write_per_1m": 0.2, "per_request": 1, "per_audio_second": 0.0001,
        "per_1m_characters": 30, "per_page": 0.05,
    }  # fmt: skip


def test_people_read_prices_in_their_language(run, german):
    assert "keine eigenen Preise" in run("list").stderr
    done = run("add", "demo", "--input-per-1m", "1,5", "--per-page", "0,001", "--from", "2026-01-01")
    assert "demo: Eingabe 1,50 EUR je 1 Mio. Tokens, 0,001 EUR je Seite, ab 2026-01-01 00:00 UTC." in done.stderr
    title, row = run("list").stdout.splitlines()
    assert title.split("\t") == ["Nr.", "Modell", "ab", "Preis", "Notiz", "von"]
    assert row.split("\t")[1:3] == ["demo", "2026-01-01 00:00 UTC"]
    run("add", "demo", "--input-per-1m", "0")
    assert "kostenlos" in run("list").stdout


def test_a_price_counts_from_its_date_and_may_be_withdrawn(run, shown):
    run("add", "demo", "--input-per-1m", "1", "--from", "2026-01-01")
    run("add", "demo", "--input-per-1m", "2", "--from", "2999-01-01T08:00")
    assert [row["prices"] for row in shown("list")] == [{"input_per_1m": 1}]
    assert [row["valid_from"] for row in shown("list", "--all")] == ["2999-01-01T08:00:00Z", "2026-01-01T00:00:00Z"]
    assert "end at" in run("withdraw", "demo").stderr
    assert shown("list") == []
    assert "withdrawn" in run("list", "--all").stdout


def test_a_price_that_is_not_there_cannot_be_withdrawn(run):
    assert "no price of its own" in run("withdraw", "demo", expect=1).stderr


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 1),
        (["--input-per-1m", "cheap"], 1),
        (["--input-per-1m", "-1"], 1),
        (["--input-per-1m", "1,000.5"], 1),
        (["--input-per-1m", "0.0000001"], 1),
        (["--input-per-1m", "1", "--input-per-1k", "1"], 1),
        (["--input-per-1m", "1", "--currency", "GBP"], 1),
        (["--input-per-1m", "1", "--from", "tomorrow"], 2),
        (["--input-per-1m", "1", "--note", "a\nb"], 2),
    ],
)
def test_what_is_no_price_is_refused(run, shown, options, status):
    run("add", "demo", *options, expect=status)
    assert shown("list", "--all") == []


def test_every_price_is_audited(run, database):
    run("add", "demo", "--per-page", "1")
    run("withdraw", "demo")
    records = database.read(lambda connection: read(connection, limit=9))
    assert [record.subject for record in records] == ["price:demo", "price:demo"]
