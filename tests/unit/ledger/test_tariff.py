import fnmatch
import math
import re
import time
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Price
from stellwerk.ledger import tariff
from stellwerk.ledger.tariff import (
    NewPrice,
    PriceRow,
    Tariff,
    TariffSettings,
    add_price,
    list_prices,
    new_price,
    newest_price,
    price_rows,
)

EUR = TariffSettings(currency="EUR", usd_rate=Decimal("0.9"))
NAMES = ("openai/gpt-5", "gpt-5")
PUBLISHED = Price(input=1_250_001, output=10_000_000, cache_read=125_000)


def row(number, model, input_price, valid_from=0.0, currency="EUR"):
    price = None if input_price is None else Price(input=input_price, currency=currency)
    return PriceRow(
        id=number, model=model, valid_from=valid_from, price=price, note="", created_at=0.0, created_by="admin"
    )


def tariff_of(*rows, settings=EUR):
    taken = Tariff(settings)
    taken.take(rows)
    return taken


@pytest.fixture
def add(database):
    def add(new, now=100.0):
        return database.write(lambda connection: add_price(connection, new, actor="anna", now=now, currency="EUR"))

    return add


def test_a_row_is_kept_as_it_was_added(add, database):
    price = Price(
        input=1, output=2, cache_read=3, cache_write=0, request=5, audio_second=6, character=7, page=8, currency="USD"
    )
    added = add(NewPrice(model="openai/*", price=price, valid_from=50.0, note="list price"))
    assert added == PriceRow(
        id=1, model="openai/*", valid_from=50.0, price=price, note="list price", created_at=100.0, created_by="anna"
    )
    assert database.read(list_prices) == [added]
    withdrawal = add(new_price("openai/*", {}, currency="EUR", withdrawn=True))
    assert withdrawal.withdrawn
    assert withdrawal.valid_from == 100.0
    assert database.read(list_prices) == [withdrawal, added]
    assert database.read(newest_price) == withdrawal.id


def test_adding_a_row_changes_no_other(add, database):
    statements = []

    @event.listens_for(database.writing, "before_cursor_execute")
    def keep(connection, cursor, statement, parameters, context, many):
        statements.append(statement.split()[0])

    first = add(new_price("gpt-5", {"input_per_1m": "1"}, currency="EUR"))
    second = add(new_price("gpt-5", {"input_per_1m": "2"}, currency="EUR"))
    assert database.read(list_prices) == [second, first]
    assert set(statements) <= {"BEGIN", "SELECT", "INSERT"}


def test_at_a_time_only_the_rows_in_force_are_listed(add, database):
    old = add(new_price("b", {"input_per_1m": "1"}, currency="EUR", valid_from=10.0))
    new = add(new_price("b", {"input_per_1m": "2"}, currency="EUR", valid_from=20.0))
    other = add(new_price("a", {"input_per_1m": "3"}, currency="EUR", valid_from=15.0))
    add(new_price("b", {}, currency="EUR", valid_from=30.0, withdrawn=True))
    times = (5.0, 10.0, 19.0, 20.0, 30.0)
    listed = [database.read(lambda connection, at=at: list_prices(connection, at)) for at in times]
    assert listed == [[], [old], [other, old], [other, new], [other]]


PRICE = Price(input=1, currency="EUR")


@pytest.mark.parametrize(
    ("new", "param"),
    [
        (NewPrice(model="", price=PRICE), "model"),
        (NewPrice(model="x" * 257, price=PRICE), "model"),
        (NewPrice(model="a\nb", price=PRICE), "model"),
        (NewPrice(model=" gpt-5", price=PRICE), "model"),
        (NewPrice(model="gpt-5", price=PRICE, note="x" * 501), "note"),
        (NewPrice(model="gpt-5", price=PRICE, note="\x1b[2J"), "note"),
        (NewPrice(model="gpt-5", price=PRICE, valid_from=-1.0), "valid_from"),
        (NewPrice(model="gpt-5", price=PRICE, valid_from=math.nan), "valid_from"),
        (NewPrice(model="gpt-5", price=PRICE, valid_from=math.inf), "valid_from"),
        (NewPrice(model="gpt-5", price=Price(input=1, currency="GBP")), "currency"),
        (NewPrice(model="gpt-5", price=Price(input=-1, currency="EUR")), "price"),
        (NewPrice(model="gpt-5", price=Price(page=10**18 + 1, currency="EUR")), "price"),
    ],
)
def test_a_row_that_cannot_be_is_refused(add, database, new, param):
    with pytest.raises(BadRequest) as caught:
        add(new)
    assert caught.value.param == param
    assert database.read(list_prices) == []


def test_a_withdrawn_price_states_none():
    with pytest.raises(BadRequest) as caught:
        new_price("gpt-5", {"input_per_1m": "1"}, currency="EUR", withdrawn=True)
    assert caught.value.param == "input_per_1m"


def test_only_so_many_rows_can_be_added(add, database):
    add(new_price("m", {"input_per_1m": "1"}, currency="EUR"))
    columns = ", ".join(column.name for column in price_rows.columns if column.name != "id")
    copies = (
        f"WITH RECURSIVE numbers(n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM numbers WHERE n < {tariff.MAX_ROWS}) "
        f"INSERT INTO prices ({columns}) SELECT {columns} FROM prices, numbers"
    )
    database.write(lambda connection: connection.exec_driver_sql(copies))
    new = new_price("gpt-5", {"input_per_1m": "1"}, currency="EUR")
    add(new)
    with pytest.raises(BadRequest, match="no more can be added"):
        add(new)


def test_an_own_price_goes_before_the_published_one():
    assert tariff_of(row(1, "gpt-5", 7)).price(NAMES, PUBLISHED, 1.0) == Price(input=7, currency="EUR")
    assert tariff_of(row(1, "gpt-5", 0)).price(NAMES, PUBLISHED, 1.0) == Price(currency="EUR")


def test_the_most_telling_row_counts():
    rows = [row(1, "*", 1), row(2, "openai/*", 2), row(3, "*gpt-5*", 3), row(4, "gpt-5", 4), row(5, "openai/gpt-5", 5)]
    for count, own in enumerate((1, 2, 2, 4, 5), 1):
        assert tariff_of(*rows[:count]).price(NAMES, None, 1.0).input == own
    assert tariff_of(*rows).price(NAMES[::-1], None, 1.0).input == 4
    assert tariff_of(*rows).price(("other",), None, 1.0).input == 1


def test_of_the_rows_of_a_pattern_the_newest_that_has_begun_counts():
    rows = [row(1, "gpt-5", 1, 10.0), row(2, "gpt-5", 2, 20.0), row(3, "gpt-5", 3, 20.0), row(4, "gpt-5", 4, 15.0)]
    prices = tariff_of(*rows)
    expected = {9.0: None, 10.0: 1, 14.9: 1, 15.0: 4, 20.0: 3, 1e9: 3}
    for now in (*expected, *reversed(expected)):
        price = prices.price(NAMES, None, now)
        assert (price and price.input) == expected[now]


def test_a_withdrawn_row_is_as_if_there_were_none():
    prices = tariff_of(row(1, "gpt-5", 1), row(2, "gpt-*", 2), row(3, "gpt-5", None, 10.0), row(4, "gpt-*", None, 20.0))
    assert prices.price(NAMES, PUBLISHED, 9.0).input == 1
    assert prices.price(NAMES, PUBLISHED, 10.0).input == 2
    assert prices.price(NAMES, PUBLISHED, 20.0).input == 1_125_001


def test_a_published_price_is_converted_and_rounded_half_to_even():
    prices = tariff_of(settings=TariffSettings(currency="EUR", usd_rate=Decimal("0.5")))
    assert prices.price(NAMES, Price(input=1, output=3, request=5), 0.0) == Price(
        input=0, output=2, request=2, currency="EUR"
    )
    assert prices.price(NAMES, Price(cache_read=6, cache_write=7), 0.0) == Price(
        cache_read=3, cache_write=4, currency="EUR"
    )
    assert tariff_of().price(NAMES, PUBLISHED, 0.0) == Price(
        input=1_125_001, output=9_000_000, cache_read=112_500, currency="EUR"
    )


def test_a_price_in_the_ledgers_currency_is_taken_as_it_is_and_one_in_another_is_none():
    assert tariff_of().price(NAMES, PRICE, 0.0) == PRICE
    assert tariff_of().price(NAMES, Price(input=1, currency="GBP"), 0.0) is None
    assert tariff_of().price(NAMES, None, 0.0) is None
    dollars = tariff_of(settings=TariffSettings(currency="USD", usd_rate=Decimal(3)))
    assert dollars.price(NAMES, PUBLISHED, 0.0) == PUBLISHED


def test_own_rows_in_dollars_are_converted_and_those_in_a_former_currency_do_not_count():
    assert tariff_of(row(1, "gpt-5", 100, currency="USD")).price(NAMES, PUBLISHED, 0.0).input == 90
    assert tariff_of(row(1, "gpt-5", 100, currency="CHF")).price(NAMES, PUBLISHED, 0.0).input == 1_125_001


def test_the_next_change_is_the_next_row_that_begins():
    prices = tariff_of(row(1, "a", 1, 10.0), row(2, "b", 1, 20.0))
    assert [prices.next_change(now) for now in (5.0, 10.0, 19.0, 20.0)] == [10.0, 20.0, 20.0, None]
    assert tariff_of().next_change(0.0) is None


def test_taken_rows_replace_those_before():
    prices = tariff_of(row(1, "gpt-5", 1), row(9, "x", 1))
    assert prices.price(NAMES, None, 1.0).input == 1
    prices.take([row(2, "gpt-5", 2)])
    assert prices.price(NAMES, None, 1.0).input == 2


def test_the_default_price_is_the_settings_own():
    settings = msgspec.structs.replace(EUR, input_per_1k=Decimal("0.0001"), output_per_1k=Decimal("0.0002"))
    assert Tariff(settings).default == Price(input=100_000, output=200_000, currency="EUR")


def test_only_so_many_answers_are_remembered():
    prices = tariff_of(row(1, "*", 1))
    for number in range(10_001):
        prices.price((f"model-{number}",), None, 1.0)
    assert len(prices._remembered) <= 10_000


def test_a_pattern_of_many_stars_takes_no_long_time():
    prices = tariff_of(row(1, "*a" * 128, 1))
    began = time.perf_counter()
    for number in range(100):
        assert prices.price((f"{'a' * 127}{number}",), None, 1.0) is None
    assert time.perf_counter() - began < 10


pieces = st.text("ab*", max_size=8)


@given(pieces.filter(bool), st.text("ab", max_size=10))
def test_a_star_stands_for_any_characters(pattern, name):
    price = tariff_of(row(1, pattern, 1)).price((name,), None, 1.0)
    assert (price is not None) == bool(re.fullmatch(fnmatch.translate(pattern), name))


@given(st.integers(0, 10**12), st.decimals("0.0001", "1000", places=4))
def test_a_conversion_is_exact_to_half_a_pico(pico, rate):
    prices = tariff_of(settings=TariffSettings(currency="EUR", usd_rate=rate))
    converted = prices.price(NAMES, Price(input=pico), 0.0).input
    assert abs(converted - pico * Fraction(rate)) <= Fraction(1, 2)
