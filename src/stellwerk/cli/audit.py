"""`stellwerk audit`: who changed what, when and from where, and whether the record of it is whole."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
import typer

from stellwerk.cli.arguments import searched
from stellwerk.cli.data import AsJson, Data, opened
from stellwerk.cli.tables import (
    NOTHING,
    Column,
    Wording,
    local_time,
    moment,
    number,
    print_entries,
    print_json,
    units,
    utc_time,
)
from stellwerk.core.plan import Price
from stellwerk.ledger.price_units import state_price
from stellwerk.records.audit import MOST_RECORDS, AuditRecord, newest, read, verify

app = typer.Typer(add_completion=False, help="Show who changed what, and check that nothing of it was altered.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "none": {
        "en": "Nothing was changed so far.",
        "de": "Bisher wurde nichts geändert.",
    },
    "whole": {
        "en": "The chain is whole; records: {count}, none of them altered or taken out.",
        "de": "Die Kette ist vollständig; Einträge: {count}, keiner davon verändert oder entfernt.",
    },
    "broken": {
        "en": "The chain breaks at record {id}: it or one before it was altered or taken out.",
        "de": "Die Kette bricht bei Eintrag {id}: Er oder einer davor wurde verändert oder entfernt.",
    },
    "yes": {"en": "yes", "de": "ja"},
    "no": {"en": "no", "de": "nein"},
    "column_id": {"en": "id", "de": "Nr."},
    "column_at": {"en": "when", "de": "wann"},
    "column_actor": {"en": "who", "de": "wer"},
    "column_peer": {"en": "from", "de": "von wo"},
    "column_action": {"en": "what", "de": "was"},
    "column_subject": {"en": "on what", "de": "woran"},
    "column_details": {"en": "details", "de": "Einzelheiten"},
}
text = Wording(TEXTS)

_COLUMNS = ("id", "at", "actor", "peer", "action", "subject", "details")
_AMOUNTS = frozenset({"amount", "balance"})
_TIMES = frozenset({"valid_from", "expires_at", "revoked_at"})
_TOLD_ALREADY = frozenset({"created_by"})
"""The record itself says who it was."""

Lines = Annotated[int, typer.Option(metavar="N", min=1, max=MOST_RECORDS, help="How many, the newest first.")]
Subject = Annotated[
    str | None, typer.Option(metavar="user:7", help="Only changes of one thing, such as user:7 or key:abc.")
]


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    limit: Lines = 50,
    subject: Subject = None,
    before: Annotated[int | None, typer.Option(metavar="ID", help="Only records before this one.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show the changes, newest first; `stellwerk audit verify` checks the record of them."""
    if context.invoked_subcommand is not None:
        return
    with opened(data) as folder:
        of = subject and searched(subject)
        records = folder.read(lambda connection: read(connection, limit=limit, before=before, subject=of))
        if as_json:
            print_json([_values(record) for record in records])
        elif records:
            print_entries([Column(text(f"column_{name}")) for name in _COLUMNS], [_cells(record) for record in records])
        else:
            text.say("none")


@app.command("verify")
def verify_chain(context: typer.Context, data: Data = None, as_json: AsJson = False) -> None:
    """Check that no record was altered or taken out; exits with 1 where one was."""
    before = context.parent.params if context.parent is not None else {}
    with opened(data or before.get("data")) as folder:
        broken, last = folder.read(lambda connection: (verify(connection), newest(connection)))
    if as_json or before.get("as_json"):
        end = last and {"id": last.id, "digest": last.digest.hex()}
        print_json({"intact": broken is None, "broken_at": broken, "newest": end})
    elif broken is None:
        typer.echo(text("whole", count=last.id if last else 0))
    else:
        typer.echo(text("broken", id=broken), err=True)
    if broken is not None:
        raise typer.Exit(1)


def _values(record: AuditRecord) -> dict[str, Any]:
    return msgspec.structs.asdict(record) | {"at": moment(record.at)}


def _cells(record: AuditRecord) -> list[str]:
    return [
        str(record.id),
        local_time(record.at),
        record.actor,
        record.peer or NOTHING,
        record.action,
        record.subject,
        ", ".join(_words(record.details)),
    ]


def _words(details: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """`name: before → after` for what was changed and `name: value` for what was set; `--json` tells all of it."""
    for name, value in details.items():
        title = f"{within}.{name}" if within else name
        if isinstance(value, Mapping) and value.keys() == {"before", "after"}:
            yield f"{title}: {_value(name, value['before'])} → {_value(name, value['after'])}"
        elif isinstance(value, Mapping):
            yield from _words(_stated(name, value), title)
        elif value is not None and value is not False and value != "" and name not in _TOLD_ALREADY:
            yield f"{title}: {_value(name, value)}"


def _value(name: str, value: Any) -> str:
    """Amounts are recorded in micro units and times in seconds, which nobody reads."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(_words(_stated(name, value))) + ")"
    if isinstance(value, list):
        return " ".join(str(each) for each in value)
    if isinstance(value, bool):
        return text("yes" if value else "no")
    if name in _AMOUNTS and isinstance(value, int):
        return number(units(value))
    if name in _TIMES and isinstance(value, int | float):
        return utc_time(value)
    return NOTHING if value in (None, "") else str(value)


def _stated(name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A price as people state one, instead of in pico units."""
    if name != "price":
        return value
    try:
        price = msgspec.convert(value, Price)
    except msgspec.ValidationError:
        return value
    return {unit: number(stated) for unit, stated in state_price(price).items()} | {"currency": price.currency}
