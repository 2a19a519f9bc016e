from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import insert

from stellwerk.core.errors import BadRequest
from stellwerk.records.settings import NAMES, change_settings, changed_settings, read_settings


@pytest.fixture
def change(database):
    def run(changes, actor="ada", now=1.0):
        return database.write(lambda connection: change_settings(connection, changes, actor, now=now))

    return run


def test_nothing_is_changed_at_first(database):
    assert database.read(read_settings) == {}


def test_changes_are_typed_and_come_with_what_was_before(database, change):
    first = {"pricing.input_per_1k": 0.0001, "rate_limits.payg": 25, "signup.enabled": True}
    assert change(first) == (
        {},
        {"pricing.input_per_1k": Decimal("0.0001"), "rate_limits.payg": 25, "signup.enabled": True},
    )
    before, after = change({"rate_limits.payg": 0})
    assert (before["rate_limits.payg"], after["rate_limits.payg"]) == (25, 0)
    assert database.read(read_settings) == after


def test_none_takes_a_change_back(change):
    change({"signup.enabled": True, "rate_limits.sub": 100})
    assert change({"signup.enabled": None, "pricing.output_per_1k": None})[1] == {"rate_limits.sub": 100}


@pytest.mark.parametrize(
    "text", ["0.0001", "0.000000000001", "1000", "1E-7", "0", "0E-999999", "1.000000000000000", "999.999999999999"]
)
def test_a_price_stays_what_was_typed(database, change, text):
    change({"pricing.output_per_1k": Decimal(text)})
    assert database.read(read_settings) == {"pricing.output_per_1k": Decimal(text)}


@given(price=st.floats(0, 1000).map(lambda price: round(price, 9)))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_every_price_that_json_can_say_comes_back_exactly(database, change, price):
    change({"pricing.input_per_1k": price})
    assert float(database.read(read_settings)["pricing.input_per_1k"]) == price


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pricing.input_per_1k", -0.1),
        ("pricing.input_per_1k", 1000.1),
        ("pricing.input_per_1k", Decimal("1E-13")),
        ("pricing.input_per_1k", float("nan")),
        ("pricing.input_per_1k", Decimal("sNaN")),
        ("pricing.input_per_1k", float("inf")),
        ("pricing.input_per_1k", "cheap"),
        ("pricing.input_per_1k", "1" * 5000),
        ("pricing.input_per_1k", "1E999999999"),
        ("pricing.input_per_1k", "1E-999999999"),
        ("pricing.input_per_1k", "999.9999999999999999999999"),
        ("pricing.input_per_1k", 0.1 + 0.2),
        ("pricing.input_per_1k", True),
        ("pricing.output_per_1k", []),
        ("rate_limits.payg", -1),
        ("rate_limits.payg", 1_000_001),
        ("rate_limits.sub", 2.5),
        ("rate_limits.sub", "5"),
        ("rate_limits.sub", True),
        ("signup.enabled", 1),
        ("signup.enabled", "yes"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name_and_nothing_is_stored(database, change, name, value):
    with pytest.raises(BadRequest, match=name) as caught:
        change({"rate_limits.payg": 7, name: value})
    assert caught.value.param == name
    assert database.read(read_settings) == {}


def test_an_unknown_name_is_refused_with_the_known_ones(change):
    with pytest.raises(BadRequest) as caught:
        change({"admin_key": "x"})
    assert (caught.value.param, caught.value.code) == ("admin_key", "unknown_setting")
    assert all(name in caught.value.message for name in NAMES)


def test_a_setting_that_is_not_understood_has_no_effect_and_is_reported(database, change, caplog):
    rows = [
        {"name": "of.a.newer.version", "value": 1, "changed_at": 1.0, "changed_by": "x"},
        {"name": "rate_limits.payg", "value": "many", "changed_at": 1.0, "changed_by": "x"},
    ]
    database.write(lambda connection: connection.execute(insert(changed_settings), rows))
    assert database.read(read_settings) == {}
    assert caplog.text.count("has no effect") == 2
    assert change({"rate_limits.payg": 5})[1] == {"rate_limits.payg": 5}


def test_who_changed_it_and_when_is_stored_and_not_touched_without_a_change(database, change):
    change({"signup.enabled": False}, actor="ada", now=1.0)
    change({"signup.enabled": False}, actor="eve", now=2.0)
    row = database.read(lambda connection: connection.execute(changed_settings.select()).one())
    assert tuple(row) == ("signup.enabled", False, 1.0, "ada")
