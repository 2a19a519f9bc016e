"""What a running gateway tells of its models, whichever of its listeners is asked."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import msgspec

from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble

_MILLION = 1_000_000
_MOST_DIGITS = 30


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One model; None is what is not known."""

    id: str
    name: str
    """The vendor's own."""
    shortcode: str | None = None
    provider: str
    local: bool = False
    chats: bool = True
    context_tokens: int | None = None
    output_tokens: int | None = None
    """The most of one answer."""
    currency: str = "USD"
    input_cost: Decimal | None = None
    """For a million tokens, as the next one."""
    output_cost: Decimal | None = None
    temperature: tuple[float, float] | None = None


def read_facts(client: GatewayClient) -> list[ModelFacts]:
    """Of every model that the caller may use. Raises GatewayTrouble."""
    listed = client.get("/v1/models")
    try:
        entries = listed["data"]
        if not entries or any("x_stellwerk" in entry for entry in entries):
            return [_detailed(entry) for entry in entries]
        return _priced(client) or [_named(str(entry["id"])) for entry in entries]
    except (LookupError, TypeError, AttributeError, ValueError, InvalidOperation):
        raise GatewayTrouble("chat.not_understood") from None


def find_model(name: str, models: Sequence[ModelFacts]) -> ModelFacts | None:
    """By id, shortcode or the vendor's name, in any case."""
    wanted = name.casefold()
    for names in (
        {model.id.casefold(): model for model in reversed(models)},
        {model.shortcode.casefold(): model for model in reversed(models) if model.shortcode},
        {model.name.casefold(): model for model in reversed(models)},
    ):
        if wanted in names:
            return names[wanted]
    return None


def _detailed(entry: Mapping[str, Any]) -> ModelFacts:
    """From `GET /v1/models` of the main listener."""
    ours = entry.get("x_stellwerk") or {}
    prices = ours.get("pricing") or {"currency": "USD", **entry.get("pricing", {})}
    return ModelFacts(
        id=str(entry["id"]),
        name=str(entry.get("name") or entry["id"]),
        shortcode=ours.get("shortcode"),
        provider=str(ours.get("provider") or entry.get("owned_by") or "?"),
        local=ours.get("local") is True,
        chats="chat" in ours.get("operations", ["chat"]),
        context_tokens=entry.get("context_length"),
        output_tokens=(entry.get("top_provider") or {}).get("max_completion_tokens"),
        currency=str(prices["currency"]),
        input_cost=_for_a_million(prices.get("prompt")),
        output_cost=_for_a_million(prices.get("completion")),
    )


def _priced(client: GatewayClient) -> list[ModelFacts]:
    """From `GET /api/models` of the sigoREST listener; nothing from a gateway that has no such path."""
    try:
        rows = client.get("/api/models")
    except GatewayTrouble as trouble:
        if trouble.key == "chat.refused":
            return []
        raise
    found = {}
    for row in rows:
        name, shortcode, endpoint = str(row["id"]), str(row["shortcode"]), str(row["endpoint"])
        host = urlsplit(endpoint).hostname
        found[name] = ModelFacts(
            id=name,
            name=name,
            shortcode=shortcode if shortcode != name else None,
            provider=host or ("ollama" if shortcode.startswith("ollama-") else "local"),
            local=host is None,
            chats=not endpoint.endswith("/embeddings"),
            context_tokens=row["max_input_tokens"] or None,
            output_tokens=row["max_output_tokens"] or None,
            input_cost=Decimal(str(row["input_cost"])),
            output_cost=Decimal(str(row["output_cost"])),
            temperature=(row["min_temperature"], row["max_temperature"]),
        )
    return list(found.values())


def _named(name: str) -> ModelFacts:
    return ModelFacts(id=name, name=name, provider="?")


def _for_a_million(for_one: str | None) -> Decimal | None:
    return None if for_one is None else Decimal(for_one[:_MOST_DIGITS]) * _MILLION
