from decimal import Decimal

import pytest

from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble
from stellwerk.cli.model_facts import ModelFacts, find_model, read_facts


def facts(gateway):
    return {model.id: model for model in read_facts(GatewayClient(gateway.url))}


def test_the_main_listener_tells_provider_shortcode_and_prices(gateway):
    assert facts(gateway)["mammouth/gpt-4.1"] == ModelFacts(
        id="mammouth/gpt-4.1",
        name="gpt-4.1",
        shortcode="gpt41",
        provider="mammouth",
        context_tokens=128000,
        output_tokens=8192,
        input_cost=Decimal(2),
        output_cost=Decimal(8),
    )


def test_prices_of_the_house_keep_their_currency(gateway):
    model = facts(gateway)["house/embed"]
    assert (model.currency, model.input_cost, model.output_cost, model.chats) == ("EUR", Decimal("0.1"), 0, False)


def test_a_model_without_a_price_has_none(gateway):
    model = facts(gateway)["stellwerk-demo"]
    assert (model.input_cost, model.output_cost, model.local) == (None, None, True)


def test_the_sigorest_listener_tells_them_in_its_own_form(gateway):
    gateway.become_sigorest()
    found = facts(gateway)
    assert found["gpt-4.1"] == ModelFacts(
        id="gpt-4.1",
        name="gpt-4.1",
        shortcode="gpt41",
        provider="api.mammouth.ai",
        context_tokens=128000,
        output_tokens=8192,
        input_cost=Decimal(2),
        output_cost=Decimal(8),
        temperature=(0.0, 2.0),
    )
    assert (found["ollama-qwen3"].provider, found["ollama-qwen3"].local) == ("ollama", True)
    assert found["ollama-qwen3"].shortcode is None


def test_another_gateway_tells_names_only(gateway):
    gateway.models = [{"id": "m"}]
    assert facts(gateway) == {"m": ModelFacts(id="m", name="m", provider="?")}


@pytest.mark.parametrize("models", [None, [1], [{}], [{"x_stellwerk": {}}], [{"id": "m", "x_stellwerk": 1}]])
def test_a_list_that_is_none_is_not_understood(gateway, models):
    gateway.models = models
    with pytest.raises(GatewayTrouble) as caught:
        facts(gateway)
    assert caught.value.key == "chat.not_understood"


@pytest.mark.parametrize("price", ["cheap", 3, ["1"]])
def test_a_price_that_is_none_is_not_understood(gateway, price):
    gateway.models = [{"id": "m", "pricing": {"prompt": price}, "x_stellwerk": {}}]
    with pytest.raises(GatewayTrouble) as caught:
        facts(gateway)
    assert caught.value.key == "chat.not_understood"


@pytest.mark.parametrize(
    ("name", "found"), [("GPT41", "p/gpt-4.1"), ("P/GPT-4.1", "p/gpt-4.1"), ("gpt-4.1", "p/gpt-4.1"), ("x", None)]
)
def test_a_model_is_found_by_each_of_its_names_in_any_case(name, found):
    models = [
        ModelFacts(id="p/gpt-4.1", name="gpt-4.1", shortcode="gpt41", provider="p"),
        ModelFacts(id="q/gpt-4.1", name="gpt-4.1", provider="q"),
    ]
    model = find_model(name, models)
    assert (model.id if model else None) == found


def test_a_key_that_may_use_no_model_is_shown_none(gateway):
    # The same path belongs to AI Gateway's clients on the main listener, in another form.
    gateway.models, gateway.details = [], {"models": [{"id": "stellwerk-demo", "type": "text", "status": "online"}]}
    assert facts(gateway) == {}
