from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Price
from stellwerk.ledger.price_units import LARGEST, UNITS, read_pico, read_price, state_price


@pytest.mark.parametrize(
    ("stated", "price"),
    [
        ({"input_per_1k": "0.0001", "output_per_1k": "0.0002"}, Price(input=100_000, output=200_000, currency="EUR")),
        ({"input_per_1m": "2.50", "cache_read_per_1m": "1.25"}, Price(input=2_500_000, cache_read=1_250_000)),
        ({"cache_write_per_1k": "0.003"}, Price(cache_write=3_000_000)),
        ({"per_request": "0.01"}, Price(request=10**10)),
        ({"per_audio_second": "0.0001"}, Price(audio_second=10**8)),
        ({"per_1m_characters": "15"}, Price(character=15_000_000)),
        ({"per_character": "0.000015"}, Price(character=15_000_000)),
        ({"per_page": Decimal("0.001")}, Price(page=10**9)),
        ({"input_per_1m": Decimal("1E-6")}, Price(input=1)),
        ({"input_per_1m": "0"}, Price()),
    ],
)
def test_prices_are_read_in_every_unit(stated, price):
    assert read_price(stated, price.currency) == price


@pytest.mark.parametrize(
    ("stated", "param"),
    [
        ({"input_per_1m": "0.0000001"}, "input_per_1m"),
        ({"output_per_1k": "0.0000000001"}, "output_per_1k"),
        ({"per_page": "1000000.000001"}, "per_page"),
        ({"input_per_1m": "1e99"}, "input_per_1m"),
        ({"input_per_1m": "1e999999999"}, "input_per_1m"),
        ({"input_per_1m": "9" * 5000}, "input_per_1m"),
        ({"input_per_1m": "-1"}, "input_per_1m"),
        ({"input_per_1m": "nan"}, "input_per_1m"),
        ({"input_per_1m": "0,5"}, "input_per_1m"),
        ({"input_per_1m": "１"}, "input_per_1m"),
        ({"input_per_1m": ""}, "input_per_1m"),
        ({"input_per_1m": Decimal("Infinity")}, "input_per_1m"),
        ({"input_per_1m": "1", "input_per_1k": "1"}, "input_per_1k"),
        ({"per_furlong": "1"}, "unit"),
        ({}, "input_per_1m"),
    ],
)
def test_what_is_no_price_is_refused_by_name(stated, param):
    with pytest.raises(BadRequest) as caught:
        read_price(stated, "EUR")
    assert caught.value.param == param


@given(st.sampled_from(sorted(UNITS)), st.integers(1, LARGEST))
def test_a_price_that_is_stated_is_read_as_the_same_price(unit, pico):
    price = Price(**{UNITS[unit][0]: pico})
    assert read_price(state_price(price), "USD") == price


def test_a_price_is_stated_in_numbers_that_people_write():
    price = Price(input=2_500_000, output=10_000_000, request=10**10)
    assert {unit: str(number) for unit, number in state_price(price).items()} == {
        "input_per_1m": "2.5",
        "output_per_1m": "10",
        "per_request": "0.01",
    }


def test_a_price_that_is_free_of_charge_is_stated_too():
    assert read_price(state_price(Price(cache_read=0)), "USD") == Price(cache_read=0)
    assert read_price(state_price(Price()), "USD") == Price()


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_refused(text):
    try:
        pico = read_pico(text, 1000, param="price")
    except BadRequest:
        return
    assert pico == Decimal(text) * 10**9
