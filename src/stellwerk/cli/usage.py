"""`stellwerk usage`: calls, tokens and costs by day, user, key or model."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from sqlalchemy import Connection

from stellwerk.auth.keys import find_key
from stellwerk.auth.users import find_user as user_by_id
from stellwerk.cli.arguments import searched
from stellwerk.cli.data import AsJson, Data, find_user, opened
from stellwerk.cli.tables import Column, Wording, moment, money, print_json, print_table, units
from stellwerk.ledger.reports import UsageRow, usage_by

app = typer.Typer(add_completion=False, help="Show calls, tokens and costs by day, user, key or model.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "none": {"en": "No calls in that time.", "de": "Keine Anfragen in dieser Zeit."},
    "total": {
        "en": "Together: calls {calls}, failed {failed}, tokens {tokens}, cost {cost}.",
        "de": "Zusammen: Anfragen {calls}, gescheitert {failed}, Tokens {tokens}, Kosten {cost}.",
    },
    "cut": {
        "en": "Only the first {count} lines are shown and counted.",
        "de": "Nur die ersten {count} Zeilen sind gezeigt und gezählt.",
    },
    "bad_time": {
        "en": "A time is an age such as 12h, 7d or 4w, or a day such as 2026-11-01, in UTC.",
        "de": "Eine Zeit ist ein Alter wie 12h, 7d oder 4w oder ein Tag wie 2026-11-01, in UTC.",
    },
    "bad_range": {
        "en": "--until lies before --since.",
        "de": "--until liegt vor --since.",
    },
    "column_day": {"en": "day", "de": "Tag"},
    "column_user": {"en": "user", "de": "Benutzer"},
    "column_key": {"en": "key", "de": "Schlüssel"},
    "column_model": {"en": "model", "de": "Modell"},
    "column_calls": {"en": "calls", "de": "Anfragen"},
    "column_failed": {"en": "failed", "de": "gescheitert"},
    "column_input": {"en": "tokens in", "de": "Tokens ein"},
    "column_output": {"en": "tokens out", "de": "Tokens aus"},
    "column_cost": {"en": "cost", "de": "Kosten"},
}
text = Wording(TEXTS)

_AGE = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_MOST_ROWS = 1000


class Group(StrEnum):
    DAY = "day"
    USER = "user"
    KEY = "key"
    MODEL = "model"


@app.command()
def usage(
    by: Annotated[Group, typer.Option(help="What a line stands for.")] = Group.DAY,
    since: Annotated[str, typer.Option(metavar="7d|DATE", help="From when on: an age, or a day in UTC.")] = "30d",
    until: Annotated[
        str | None, typer.Option(metavar="1d|DATE", help="Until when; that day is counted too. Else now.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="EMAIL|ID", help="Only calls of one user.")] = None,
    key: Annotated[str | None, typer.Option(metavar="ID", help="Only calls with one key.")] = None,
    model: Annotated[str | None, typer.Option(help="Only calls of one model, as clients name it.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show calls, tokens and costs. Days begin at midnight in UTC."""
    with opened(data) as folder:
        now = folder.now
        beginning = _time(since, now, "--since", end=False)
        # The moment itself is not counted, and calls come in until now.
        end = now + 1 if until is None else _time(until, now, "--until", end=True)
        if end <= beginning:
            raise typer.BadParameter(text("bad_range"), param_hint="--until")

        def look(connection: Connection) -> tuple[list[UsageRow], dict[str, str], str]:
            owner = None if user is None else find_user(connection, user).id
            rows = usage_by(
                connection,
                by.value,
                beginning,
                end,
                user_id=owner,
                key_id=key and searched(key),
                model=model and searched(model),
                limit=_MOST_ROWS,
            )
            return rows, _names(connection, by, rows), folder.currency(connection)

        rows, names, currency = folder.read(look)
    if as_json:
        print_json(
            {
                "by": by,
                "since": moment(beginning),
                "until": moment(end),
                "currency": currency,
                "rows": [_values(by, row, names) for row in rows],
            }
        )
    elif rows:
        _print(by, rows, names, currency)
    else:
        text.say("none")


def _time(given: str, now: float, hint: str, *, end: bool) -> float:
    age = _AGE.fullmatch(given)
    if age is not None:
        return now - int(age[1]) * _HOURS[age[2]] * 3600
    try:
        day = datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC)
        return (day + timedelta(days=1) if end else day).timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(text("bad_time"), param_hint=hint) from None


def _names(connection: Connection, by: Group, rows: Sequence[UsageRow]) -> dict[str, str]:
    """What people call the users and keys of the rows; a key of a login has no name."""
    names: dict[str, str] = {}
    for row in rows:
        if by is Group.USER:
            user = user_by_id(connection, int(row.value))
            if user is not None:
                names[row.value] = user.email
        elif by is Group.KEY:
            key = find_key(connection, row.value)
            if key is not None:
                names[row.value] = key.name
    return names


def _print(by: Group, rows: Sequence[UsageRow], names: Mapping[str, str], currency: str) -> None:
    counts = [Column(text(f"column_{name}"), right=True) for name in ("calls", "failed", "input", "output", "cost")]
    columns = [Column(text(f"column_{by}"), wraps=by is not Group.DAY), *counts]
    print_table(
        columns,
        [
            [
                _title(by, row, names),
                str(row.calls),
                str(row.failed),
                str(row.input_tokens),
                str(row.output_tokens),
                money(row.cost, currency),
            ]
            for row in rows
        ],
    )
    text.say(
        "total",
        calls=sum(row.calls for row in rows),
        failed=sum(row.failed for row in rows),
        tokens=sum(row.input_tokens + row.output_tokens for row in rows),
        cost=money(sum(row.cost for row in rows), currency),
    )
    if len(rows) == _MOST_ROWS:
        text.say("cut", count=_MOST_ROWS)


def _title(by: Group, row: UsageRow, names: Mapping[str, str]) -> str:
    name = names.get(row.value)
    if name is None:
        return row.value
    return name if by is Group.USER else f"{name} ({row.value})"


def _values(by: Group, row: UsageRow, names: Mapping[str, str]) -> dict[str, Any]:
    values = msgspec.structs.asdict(row)
    del values["value"]
    named: dict[str, Any] = {by.value: row.value}
    if by is Group.USER:
        named = {"user_id": int(row.value), "user": names.get(row.value)}
    elif by is Group.KEY:
        named = {"key_id": row.value, "key": names.get(row.value)}
    return named | values | {"cost": units(row.cost)}
