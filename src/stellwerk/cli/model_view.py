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
    "input": {"en": "In $/M", "de": "Ein $/M"},
    "output": {"en": "Out $/M", "de": "Aus $/M"},
    "context": {"en": "Context, tokens", "de": "Kontext, Token"},
    "answer": {"en": "Longest answer, tokens", "de": "Längste Antwort, Token"},
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
    columns = [
        Column(text("provider"), usual=ordered[0].provider if ordered else None),
        Column(text("model"), wraps=True),
        Column(text("shortcode"), usual=NOTHING),
        Column(text("input"), right=True),
        Column(text("output"), right=True),
    ]
    print_table(
        columns,
        [
            (
                model.provider,
                model.id,
                model.shortcode or NOTHING,
                _cost(model.input_cost, model.currency),
                _cost(model.output_cost, model.currency),
            )
            for model in ordered
        ],
    )


def show_model(model: ModelFacts, *, as_json: bool) -> None:
    if as_json:
        print_json(model)
        return
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
            (text("input"), _cost(model.input_cost, model.currency)),
            (text("output"), _cost(model.output_cost, model.currency)),
            (text("temperature"), temperature),
        ]
    )


def _cost(cost: Decimal | None, currency: str) -> str:
    if cost is None:
        return NOTHING
    return number(cost) if currency == "USD" else f"{number(cost)} {currency}"


def _count(tokens: int | None) -> str:
    return NOTHING if tokens is None else str(tokens)
