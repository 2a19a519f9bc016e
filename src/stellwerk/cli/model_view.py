"""How `ask` and `sigoE` show models: all of them by provider, or one with all that is known of it."""

from collections.abc import Sequence
from decimal import Decimal

from stellwerk.cli.model_facts import ModelFacts
from stellwerk.cli.tables import NOTHING, Column, Wording, number, print_json, print_record, print_table

TEXTS = {
    "provider": {"en": "Provider", "de": "Anbieter"},
    "model": {"en": "Model", "de": "Modell"},
    "name": {"en": "Name at the provider", "de": "Name beim Anbieter"},
    "shortcode": {"en": "Shortcode", "de": "Kürzel"},
    "input": {"en": "In {unit}/M", "de": "Ein {unit}/M"},
    "output": {"en": "Out {unit}/M", "de": "Aus {unit}/M"},
    "context": {"en": "Context, tokens", "de": "Kontext, Tokens"},
    "answer": {"en": "Longest answer, tokens", "de": "Längste Antwort, Tokens"},
    "temperature": {"en": "Temperature", "de": "Temperatur"},
    "range": {"en": "{least} to {most}", "de": "{least} bis {most}"},
    "local": {"en": "On this machine", "de": "Auf diesem Rechner"},
    "yes": {"en": "yes", "de": "ja"},
    "no": {"en": "no", "de": "nein"},
}
text = Wording(TEXTS)


def show_models(models: Sequence[ModelFacts], *, as_json: bool) -> None:
    """Sorted by provider and name."""
    ordered = sorted(models, key=lambda model: (model.provider.casefold(), model.id.casefold()))
    if as_json:
        print_json(ordered)
        return
    unit = _unit(ordered)
    columns = [
        Column(text("provider"), usual=ordered[0].provider if ordered else None),
        Column(text("model"), wraps=True),
        Column(text("shortcode"), usual=NOTHING),
        Column(text("input", unit=unit), right=True),
        Column(text("output", unit=unit), right=True),
    ]
    print_table(
        columns,
        [
            (
                model.provider,
                model.id,
                model.shortcode or NOTHING,
                _cost(model.input_cost, model.currency, unit),
                _cost(model.output_cost, model.currency, unit),
            )
            for model in ordered
        ],
    )


def show_model(model: ModelFacts, *, as_json: bool) -> None:
    if as_json:
        print_json(model)
        return
    unit = _unit([model])
    temperature = NOTHING
    if model.temperature is not None:
        least, most = (number(Decimal(str(bound))) for bound in model.temperature)
        temperature = text("range", least=least, most=most)
    print_record(
        [
            (text("model"), model.id),
            (text("name"), model.name),
            (text("shortcode"), model.shortcode or NOTHING),
            (text("provider"), model.provider),
            (text("local"), text("yes" if model.local else "no")),
            (text("context"), _count(model.context_tokens)),
            (text("answer"), _count(model.output_tokens)),
            (text("input", unit=unit), _cost(model.input_cost, model.currency, unit)),
            (text("output", unit=unit), _cost(model.output_cost, model.currency, unit)),
            (text("temperature"), temperature),
        ]
    )


def _unit(models: Sequence[ModelFacts]) -> str:
    """Of the prices: the one currency that they all have, else dollars."""
    currencies = {_sign(model.currency) for model in models if model.input_cost is not None}
    return currencies.pop() if len(currencies) == 1 else _sign("USD")


def _sign(currency: str) -> str:
    return "$" if currency == "USD" else currency


def _cost(cost: Decimal | None, currency: str, unit: str) -> str:
    """With its currency where that is not the unit of the column."""
    if cost is None:
        return NOTHING
    return number(cost) if _sign(currency) == unit else f"{number(cost)} {currency}"


def _count(tokens: int | None) -> str:
    return NOTHING if tokens is None else str(tokens)
