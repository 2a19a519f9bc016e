"""The objects of `GET /v1/models`: OpenAI's four fields, and OpenRouter's names for what else is known."""

from typing import Any

from stellwerk.core.plan import Model, Price

_PICO = 10**12


def render_model(model: Model) -> dict[str, Any]:
    """One model as clients of both read it. What is not known is null or left out."""
    rendered: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "canonical_slug": model.id,
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "max_model_len": model.context_length,
        "architecture": {
            "modality": f"{'+'.join(model.input_modalities)}->{'+'.join(model.output_modalities)}",
            "input_modalities": list(model.input_modalities),
            "output_modalities": list(model.output_modalities),
            "tokenizer": None,
            "instruct_type": None,
        },
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
            "is_moderated": None,
        },
        "supported_parameters": list(model.parameters),
        "per_request_limits": None,
        "x_stellwerk": {
            "provider": model.provider,
            "local": model.local,
            "operations": sorted(model.operations),
            "quantization": model.quantization,
            "size_bytes": model.size_bytes,
        },
    }
    if model.shortcode is not None:
        rendered["x_stellwerk"]["shortcode"] = model.shortcode
    if model.price is not None:
        _add_price(rendered, model.price)
    return rendered


def _add_price(rendered: dict[str, Any], price: Price) -> None:
    rates = {
        "prompt": price.input,
        "completion": price.output,
        "input_cache_read": price.cache_read,
        "input_cache_write": price.cache_write,
    }
    pricing = {name: per_token(rate) for name, rate in rates.items() if rate is not None}
    if price.currency == "USD":
        rendered["pricing"] = pricing
    else:
        # Whoever reads `pricing` takes it for dollars.
        rendered["x_stellwerk"]["pricing"] = {"currency": price.currency, **pricing}


def per_token(pico: int) -> str:
    """A price per token as an exact decimal without exponent, from pico units of its currency."""
    whole, fraction = divmod(pico, _PICO)
    return f"{whole}.{fraction:012d}".rstrip("0").rstrip(".")
