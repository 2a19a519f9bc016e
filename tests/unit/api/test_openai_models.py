import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model as OpenAIModel

from stellwerk.api.openai.models import per_token, render_model
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model, Price

LOCAL = Model(
    provider="ollama",
    name="qwen3:8b",
    id="ollama/qwen3:8b",
    owned_by="ollama",
    created=1_760_000_000,
    context_length=40960,
    max_output_tokens=8192,
    input_modalities=("text", "image"),
    parameters=("tools", "temperature"),
    quantization="Q4_K_M",
    size_bytes=5_200_000_000,
    local=True,
)
BARE = Model(provider="openai", name="gpt-5", id="openai/gpt-5")


@pytest.mark.parametrize("model", [LOCAL, BARE])
def test_openais_own_client_reads_it(model):
    read = OpenAIModel.model_validate(json.loads(json.dumps(render_model(model))), strict=True)
    assert (read.id, read.object, read.owned_by) == (model.id, "model", model.owned_by)
    assert isinstance(read.created, int)


def test_what_is_known_stands_under_openrouters_names():
    rendered = render_model(LOCAL)
    assert rendered["context_length"] == rendered["max_model_len"] == 40960
    assert rendered["architecture"]["modality"] == "text+image->text"
    assert rendered["architecture"]["input_modalities"] == ["text", "image"]
    assert rendered["top_provider"]["max_completion_tokens"] == 8192
    assert rendered["supported_parameters"] == ["tools", "temperature"]
    assert rendered["x_stellwerk"] == {
        "provider": "ollama",
        "local": True,
        "operations": ["chat", "completion"],
        "quantization": "Q4_K_M",
        "size_bytes": 5_200_000_000,
    }


def test_a_shortcode_is_shown_where_there_is_one():
    assert "shortcode" not in render_model(BARE)["x_stellwerk"]
    assert render_model(msgspec.structs.replace(BARE, shortcode="g5"))["x_stellwerk"]["shortcode"] == "g5"


def test_what_is_not_known_is_not_invented():
    rendered = render_model(BARE)
    assert rendered["context_length"] is None
    assert rendered["top_provider"] == {"context_length": None, "max_completion_tokens": None, "is_moderated": None}
    assert rendered["architecture"]["tokenizer"] is None
    assert rendered["supported_parameters"] == []
    assert "pricing" not in rendered


def test_prices_are_exact_texts_per_token():
    price = Price(input=1_250_000, output=10_000_000, cache_read=125_000)
    rendered = render_model(Model(provider="p", name="n", id="p/n", price=price))
    assert rendered["pricing"] == {
        "prompt": "0.00000125",
        "completion": "0.00001",
        "input_cache_read": "0.000000125",
    }


def test_a_price_in_another_currency_is_not_passed_off_as_dollars():
    rendered = render_model(Model(provider="p", name="n", id="p/n", price=Price(input=1_000_000, currency="EUR")))
    assert "pricing" not in rendered
    assert rendered["x_stellwerk"]["pricing"] == {"currency": "EUR", "prompt": "0.000001", "completion": "0"}


def test_an_embedding_model_says_so():
    model = Model(provider="p", name="n", id="p/n", operations=frozenset({Operation.EMBEDDING}))
    assert render_model(model)["x_stellwerk"]["operations"] == ["embedding"]


@given(st.integers(min_value=0, max_value=10**15))
def test_every_price_is_a_plain_decimal_of_the_same_value(pico):
    text = per_token(pico)
    assert Decimal(text) == Decimal(pico) / 10**12
    assert set(text) <= set("0123456789.")
    assert not text.endswith(".")
