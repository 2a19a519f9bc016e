"""`stellwerk ledger prices`: the operator's own prices, each from a date on."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from stellwerk.api.admin import actions
from stellwerk.cli import arguments
from stellwerk.cli.data import AsJson, Data, opened
from stellwerk.cli.tables import Column, Wording, moment, number, print_json, print_table, utc_time
from stellwerk.ledger.price_units import state_price
from stellwerk.ledger.tariff import PriceRow, list_prices, new_price

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Own prices of models, each from a date on.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "none": {
        "en": "There are no prices of your own; vendors' published prices count.",
        "de": "Es gibt keine eigenen Preise; es gelten die veröffentlichten der Anbieter.",
    },
    "added": {
        "en": "{model}: {price}, from {start} on.",
        "de": "{model}: {price}, ab {start}.",
    },
    "withdrawn": {
        "en": "The own prices of {model} end at {start}.",
        "de": "Die eigenen Preise von {model} enden: {start}.",
    },
    "no_own": {
        "en": "{model} has no price of its own.",
        "de": "{model} hat keinen eigenen Preis.",
    },
    "free": {"en": "free of charge", "de": "kostenlos"},
    "no_price": {"en": "withdrawn", "de": "zurückgezogen"},
    "input_per_1m": {"en": "input {price} per 1M tokens", "de": "Eingabe {price} je 1 Mio. Tokens"},
    "output_per_1m": {"en": "output {price} per 1M tokens", "de": "Ausgabe {price} je 1 Mio. Tokens"},
    "cache_read_per_1m": {"en": "cache read {price} per 1M tokens", "de": "Cache lesen {price} je 1 Mio. Tokens"},
    "cache_write_per_1m": {"en": "cache write {price} per 1M tokens", "de": "Cache schreiben {price} je 1 Mio. Tokens"},
    "per_request": {"en": "{price} per request", "de": "{price} je Anfrage"},
    "per_audio_second": {"en": "{price} per second of speech", "de": "{price} je Sekunde Sprache"},
    "per_1m_characters": {"en": "{price} per 1M characters", "de": "{price} je 1 Mio. Zeichen"},
    "per_page": {"en": "{price} per page", "de": "{price} je Seite"},
    "column_id": {"en": "id", "de": "Nr."},
    "column_model": {"en": "model", "de": "Modell"},
    "column_from": {"en": "from", "de": "ab"},
    "column_price": {"en": "price", "de": "Preis"},
    "column_note": {"en": "note", "de": "Notiz"},
    "column_by": {"en": "by", "de": "von"},
    "bad_date": {
        "en": "A date is 2026-12-01, or with a time 2026-12-01T08:00, in UTC.",
        "de": "Ein Datum ist 2026-12-01, mit Uhrzeit 2026-12-01T08:00, in UTC.",
    },
}
text = Wording(TEXTS)

_COLUMNS = ("id", "model", "from", "price", "note", "by")
_LONG = frozenset({"model", "price", "note", "by"})
_COMMA = re.compile(r"([0-9]+),([0-9]+)")

Model = Annotated[str, typer.Argument(help="A model, provider/model, or a pattern with * in it.")]
Number = Annotated[str | None, typer.Option(metavar="0.15")]
Start = Annotated[str | None, typer.Option("--from", metavar="DATE", help="When it begins to count, in UTC; else now.")]
Note = Annotated[str, typer.Option(help="Why.")]


@app.command("list")
def list_all(
    everything: Annotated[bool, typer.Option("--all", help="Also those of the past and of the future.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the prices that count now."""
    with opened(data) as folder:
        rows = folder.read(lambda connection: list_prices(connection, None if everything else folder.now))
        if as_json:
            print_json([_values(row) for row in rows])
        elif rows:
            columns = [
                Column(
                    text(f"column_{name}"),
                    wraps=name in _LONG,
                    right=name == "id",
                    usual="" if name == "note" else None,
                )
                for name in _COLUMNS
            ]
            print_table(columns, [_cells(row) for row in rows])
        else:
            text.say("none")


@app.command()
def add(
    model: Model,
    input_per_1k: Number = None,
    output_per_1k: Number = None,
    input_per_1m: Number = None,
    output_per_1m: Number = None,
    cache_read_per_1m: Number = None,
    cache_write_per_1m: Number = None,
    per_request: Number = None,
    per_second: Number = None,
    per_character: Number = None,
    per_page: Number = None,
    currency: Annotated[str | None, typer.Option(metavar="EUR", help="The ledger's, or USD.")] = None,
    start: Start = None,
    note: Note = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Add a price; what was not stated is free of charge, and 0 is allowed. Older prices stay in the list."""
    given = {
        "input_per_1k": input_per_1k,
        "output_per_1k": output_per_1k,
        "input_per_1m": input_per_1m,
        "output_per_1m": output_per_1m,
        "cache_read_per_1m": cache_read_per_1m,
        "cache_write_per_1m": cache_write_per_1m,
        "per_request": per_request,
        "per_audio_second": per_second,
        "per_character": per_character,
        "per_page": per_page,
    }
    stated = {unit: _with_point(price) for unit, price in given.items() if price is not None}
    _store(model, stated, currency, start, note, data, withdrawn=False, as_json=as_json)


@app.command()
def withdraw(model: Model, start: Start = None, note: Note = "", data: Data = None, as_json: AsJson = False) -> None:
    """End a model's own prices; the published one counts again."""
    _store(model, {}, None, start, note, data, withdrawn=True, as_json=as_json)


def _store(
    model: str,
    stated: Mapping[str, str],
    currency: str | None,
    start: str | None,
    note: str,
    data: Path | None,
    *,
    withdrawn: bool,
    as_json: bool,
) -> None:
    beginning = None if start is None else _moment(start)
    remark = arguments.note(note)
    with opened(data) as folder:
        ledgers = folder.read(folder.currency)
        price = new_price(
            model,
            stated,
            currency=(currency or ledgers).upper(),
            valid_from=beginning,
            withdrawn=withdrawn,
            note=remark,
        )

        def store(connection: Connection) -> PriceRow:
            if withdrawn and not any(row.model == model for row in list_prices(connection)):
                text.fail("no_own", model=model)
            return actions.add_price(connection, folder.actor, price, now=folder.now, currency=ledgers)

        row = folder.write(store)
        if as_json:
            print_json(_values(row))
        elif withdrawn:
            text.say("withdrawn", model=row.model, start=utc_time(row.valid_from))
        else:
            text.say("added", model=row.model, price=_words(row), start=utc_time(row.valid_from))


def _with_point(price: str) -> str:
    return _COMMA.sub(r"\1.\2", price)


def _moment(given: str) -> float:
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(text("bad_date"), param_hint="--from") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _words(row: PriceRow) -> str:
    if row.price is None:
        return text("no_price")
    stated = state_price(row.price)
    words = [text(unit, price=f"{number(price)} {row.price.currency}") for unit, price in stated.items() if price]
    return ", ".join(words) or text("free")


def _values(row: PriceRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "valid_from": moment(row.valid_from),
        "withdrawn": row.price is None,
        "currency": row.price and row.price.currency,
        "prices": row.price and state_price(row.price),
        "note": row.note,
        "created_at": moment(row.created_at),
        "created_by": row.created_by,
    }


def _cells(row: PriceRow) -> list[str]:
    return [str(row.id), row.model, utc_time(row.valid_from), _words(row), row.note, row.created_by]
