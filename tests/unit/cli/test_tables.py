import contextlib
import io
import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.cli import arguments, data, key_view, limits, user_view
from stellwerk.cli.tables import (
    Column,
    Wording,
    moment,
    money,
    number,
    print_entries,
    print_json,
    print_record,
    print_table,
    units,
    utc_time,
    visible,
)

FORGED = "\x1b[2Jroot\r\nadmin\t\x9b31m\u202eeno\x7f"


def test_what_steers_a_terminal_is_not_printed():
    assert visible(FORGED) == "?[2Jroot??admin??31m?eno?"
    assert visible("Zoë Müller 漢字 – €") == "Zoë Müller 漢字 – €"


@given(st.text())
def test_whatever_is_shown_is_printable_and_as_long(text):
    assert visible(text).isprintable()
    assert len(visible(text)) == len(text)


def test_a_cell_can_forge_neither_a_cell_nor_a_line(capsys):
    print_table([Column("a"), Column("b")], [[FORGED, "x"]])
    print_record([("name", FORGED)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("\t") for line in lines] == [1, 1, 1]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_columns_that_no_markup_can_colour(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table([Column("name", wraps=True), Column("cost", right=True)], [["[red]x[/red]" * 9, "1.00"]])
    print_record([("name", "[red]x[/red]" * 9)])
    output = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "[red]" in output
    assert max(len(line) for line in output.splitlines()) <= 60


@pytest.fixture
def terminal(capsys, monkeypatch):
    """Lines that were printed on a terminal of 40 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    return lambda: re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


def test_a_terminal_is_spared_a_column_in_which_nothing_is_unusual(terminal):
    columns = [Column("name"), Column("models", usual="all")]
    print_table(columns, [["a", "all"], ["b", "all"]])
    assert not any("models" in line for line in terminal())
    print_table(columns, [["a", "all"], ["b", "demo"]])
    assert any("models" in line for line in terminal())


def test_other_programs_always_get_every_column(capsys):
    print_table([Column("name"), Column("models", usual="all")], [["a", "all"]])
    assert capsys.readouterr().out == "name\tmodels\na\tall\n"


def test_what_a_terminal_is_too_narrow_for_stands_below_its_row(terminal):
    columns = [Column("message"), Column("at"), Column("state"), Column("error", wraps=True, usual="–")]
    rows = [["m" * 20, "2026-11-21 23:00", "waits", "refused"], ["n" * 20, "2026-11-21 23:01", "delivered", "–"]]
    print_table(columns, rows)
    assert [line.rstrip() for line in terminal()] == [
        "message              at",
        f"{'m' * 20} 2026-11-21 23:00",
        "    state: waits, error: refused",
        f"{'n' * 20} 2026-11-21 23:01",
        "    state: delivered",
    ]


def test_a_cell_that_is_wider_than_the_terminal_is_folded(terminal):
    print_table([Column("id"), Column("name")], [["x" * 50, "y" * 50]])
    shown = "".join(line.strip() for line in terminal())
    assert shown == f"id{'x' * 50}name:{'y' * 50}"


def test_a_title_is_never_cut(terminal):
    print_table([Column("Benutzer", wraps=True), Column("x" * 31)], [["a" * 30, "b"]])
    assert any("Benutzer" in line for line in terminal())


def test_on_a_terminal_the_long_cell_of_an_entry_stands_below_the_others(terminal):
    print_entries([Column("id"), Column("who"), Column("details")], [["1", "Zoë", FORGED + " x" * 40], ["22", "b", ""]])
    title, first, *below, last = terminal()
    assert (title, first, last) == ("id who", "1  Zoë", "22 b")
    assert len(below) == 3
    assert all(line.startswith("    ") and len(line) <= 40 for line in below)


def test_other_programs_get_an_entry_on_one_line(capsys):
    print_entries([Column("id"), Column("details")], [["1", FORGED]])
    assert capsys.readouterr().out == f"id\tdetails\n1\t{visible(FORGED)}\n"


@given(st.text())
def test_json_carries_every_text_and_nothing_that_steers_a_terminal(text):
    kept = io.StringIO()
    with contextlib.redirect_stdout(kept):
        print_json({"text": text})
    shown = kept.getvalue()
    assert json.loads(shown) == {"text": text}
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_json_carries_amounts_exactly(capsys):
    print_json({"amount": units(12_345_678_901_234_567_89)})
    assert capsys.readouterr().out == '{\n  "amount": 1234567890123.456789\n}\n'


@pytest.mark.parametrize(
    ("micro", "english", "german"),
    [
        (0, "0.00 EUR", "0,00 EUR"),
        (10_500_000, "10.50 EUR", "10,50 EUR"),
        (-1, "-0.000001 EUR", "-0,000001 EUR"),
        (-12_000_000, "-12.00 EUR", "-12,00 EUR"),
        (123_456_789, "123.456789 EUR", "123,456789 EUR"),
        (10**15, "1000000000.00 EUR", "1000000000,00 EUR"),
    ],
)
def test_money_has_two_decimal_places_at_least_and_the_sign_of_the_language(monkeypatch, micro, english, german):
    monkeypatch.setenv("LC_ALL", "C")
    assert money(micro, "EUR") == english
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert money(micro, "EUR") == german


@given(st.integers(-(10**15), 10**15))
def test_no_digit_of_an_amount_is_lost(micro):
    assert Decimal(number(units(micro)).replace(",", ".")) * 1_000_000 == micro


def test_times_are_said_in_their_zones():
    assert utc_time(0.0) == "1970-01-01 00:00 UTC"
    assert moment(1.9).isoformat() == "1970-01-01T00:00:01+00:00"
    assert moment(None) is None


def test_texts_hide_what_steers_a_terminal_in_what_they_are_given(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert Wording({"a": {"en": "<{name}>", "de": ""}})("a", name="\x1b[0m") == "<?[0m>"


@pytest.mark.parametrize("module", [arguments, data, key_view, limits, user_view])
def test_every_shared_text_has_both_languages_and_the_same_places(module):
    for key, texts in module.TEXTS.items():
        places = {language: set(re.findall(r"{(\w+)}", text)) for language, text in texts.items()}
        assert set(texts) == {"en", "de"}, key
        assert places["en"] == places["de"], key
