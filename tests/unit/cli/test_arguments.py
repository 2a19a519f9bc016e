from decimal import Decimal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from stellwerk.cli import arguments
from stellwerk.core.principal import Allowance, Budget, Window


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("10", 10_000_000),
        ("10.50", 10_500_000),
        ("10,50", 10_500_000),
        (" 0,000001 ", 1),
        ("+3", 3_000_000),
        ("1000000000", 10**15),
    ],
)
def test_an_amount_has_a_point_or_a_comma(text, micro):
    assert arguments.money(text, "AMOUNT") == micro


@given(st.decimals(min_value=Decimal("0.000001"), max_value=10**9, places=6), st.sampled_from(".,"))
def test_amounts_are_exact(amount, comma):
    assert arguments.money(f"{amount:f}".replace(".", comma), "AMOUNT") == int(amount * 1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "", "ten", "1.0000001", "1,000.50", "1.000,50", "1 000", "1e3", "0x10", "--1", "1.", ".5", "NaN", "Infinity",
        "1000000001", "9" * 400, "٣", "10€", "0", "-1",
    ],
)  # fmt: skip
def test_what_is_no_amount_above_0_is_refused(text):
    with pytest.raises(typer.BadParameter):
        arguments.money(text, "AMOUNT")


def test_a_correction_may_be_below_0_but_not_0():
    assert arguments.money("-2,50", "AMOUNT", signed=True) == -2_500_000
    with pytest.raises(typer.BadParameter):
        arguments.money("-0.00", "AMOUNT", signed=True)


def test_a_budget_is_an_amount_and_a_window():
    assert arguments.budget("5,00/day") == Budget(amount=5_000_000, window=Window.DAY)
    assert arguments.budget("20/month") == Budget(amount=20_000_000, window=Window.MONTH)


@pytest.mark.parametrize("text", ["5", "5/", "/day", "5/year", "5/day/day", "-5/day", "0/day", "5/Day"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(typer.BadParameter):
        arguments.budget(text)


def test_limits_that_are_not_given_stay_and_none_takes_one_away():
    before = Allowance(requests_per_minute=5, burst=2, concurrent_requests=1)
    after = arguments.allowance("none", None, "1000000000", "0", before=before)
    assert after == Allowance(burst=2, tokens_per_minute=1_000_000_000, concurrent_requests=0)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "1000001", "9" * 30, "²"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(typer.BadParameter):
        arguments.allowance(text, None, None, None)


def test_an_option_of_a_change_leaves_sets_or_takes_away():
    assert arguments.changed(None, int) is UNSET
    assert arguments.changed("none", int) is None
    assert arguments.changed("7", int) == 7


@pytest.mark.parametrize("text", ["", "a,,b", "x" * 201, "a\nb"])
def test_what_are_no_names_of_models_is_refused(text):
    with pytest.raises(typer.BadParameter):
        arguments.models(text)


def test_a_note_is_one_line_and_a_needed_one_is_not_empty():
    assert arguments.note(" ok ") == "ok"
    assert arguments.note("") == ""
    for bad, needed in (("a\nb", False), ("x" * 501, False), (" ", True)):
        with pytest.raises(typer.BadParameter):
            arguments.note(bad, needed=needed)
