import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.auth.fields import MOST_MONEY, MOST_REQUESTS, check_limits, check_models, check_name
from stellwerk.core.errors import BadRequest
from stellwerk.core.principal import Allowance, Budget, Window


def refusal(check, *values):
    with pytest.raises(BadRequest) as raised:
        check(*values)
    return raised.value.code, raised.value.param


@pytest.mark.parametrize("name", ["ci", "  ci ", "Küche 2", "x" * 100])
def test_a_name_is_kept_without_the_blanks_around_it(name):
    assert check_name(name) == name.strip()


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "\x1b[31mred", "bidi\u202e", "\ud800"])
def test_a_name_is_visible_and_not_too_long(name):
    assert refusal(check_name, name) == ("invalid_name", "name")


@given(st.text(max_size=120))
def test_a_name_is_refused_or_stays_as_it_was_checked(name):
    try:
        checked = check_name(name)
    except BadRequest:
        return
    assert check_name(checked) == checked == name.strip()


def test_models_are_bounded_names():
    assert check_models([" a ", "b", "a"]) == {"a", "b"}
    assert check_models([]) == frozenset()
    for models in (["x" * 201], [""], ["a\tb"], map(str, range(1001))):
        assert refusal(check_models, models) == ("invalid_models", "models")


def test_limits_are_not_negative_and_not_absurd():
    check_limits(Allowance(), None)
    check_limits(Allowance(requests_per_minute=0, burst=MOST_REQUESTS), Budget(amount=MOST_MONEY, window=Window.DAY))
    for name in Allowance.__struct_fields__:
        for value in (-1, 10**13):
            assert refusal(check_limits, Allowance(**{name: value}), None) == ("invalid_limit", name)
    for amount in (-1, MOST_MONEY + 1):
        budget = Budget(amount=amount, window=Window.MONTH)
        assert refusal(check_limits, Allowance(), budget) == ("invalid_limit", "budget")
