"""`stellwerk keys`: make, list and revoke API keys, beside a running gateway or without one."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stellwerk.auth.keys import KeyLimit, KeyRecord, NewKey, create_key, has_keys, list_keys, revoke_key
from stellwerk.auth.tokens import load_pepper, make_digest
from stellwerk.cli.language import language
from stellwerk.config.reading import data_folder
from stellwerk.core.clock import Clock, SystemClock
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import Role
from stellwerk.storage.database import Database, open_database
from stellwerk.storage.failures import StorageRefused

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make, list and revoke API keys.")

EX_TEMPFAIL = 75
EX_CONFIG = 78

TEXTS: Mapping[str, Mapping[str, str]] = {
    "created": {
        "en": "{name} ({role}), id {id}. The key is shown this once:",
        "de": "{name} ({role}), ID {id}. Der Schlüssel wird nur dieses eine Mal gezeigt:",
    },
    "none": {
        "en": "There are no keys yet; `stellwerk keys create NAME` makes one.",
        "de": "Es gibt noch keine Schlüssel; `stellwerk keys create NAME` erzeugt einen.",
    },
    "revoked": {
        "en": "{name} ({id}) is revoked.",
        "de": "{name} ({id}) ist widerrufen.",
    },
    "revoked_before": {
        "en": "{name} ({id}) was revoked before.",
        "de": "{name} ({id}) war schon widerrufen.",
    },
    "not_found": {
        "en": "No key has the id or the name {key}.",
        "de": "Kein Schlüssel hat die ID oder den Namen {key}.",
    },
    "ambiguous": {
        "en": "Several keys are named {key}; name one by its id: {ids}",
        "de": "Mehrere Schlüssel heißen {key}; bitte eine der IDs angeben: {ids}",
    },
    "last_admin": {
        "en": "{name} ({id}) is the last admin key. With --yes it is revoked all the same; "
        "`stellwerk keys create NAME --role admin` makes another.",
        "de": "{name} ({id}) ist der letzte Admin-Schlüssel. Mit --yes wird er trotzdem widerrufen; "
        "`stellwerk keys create NAME --role admin` erzeugt einen neuen.",
    },
    "too_many": {
        "en": "There are too many keys to make another.",
        "de": "Es gibt zu viele Schlüssel, um noch einen zu erzeugen.",
    },
    "busy": {
        "en": "The database in {folder} cannot be reached: the disk is full or read-only, or another process holds it.",
        "de": "Die Datenbank in {folder} ist nicht erreichbar: Der Datenträger ist voll oder schreibgeschützt, "
        "oder ein anderer Prozess hält sie fest.",
    },
    "bad_name": {
        "en": "A name has 1 to 100 visible characters.",
        "de": "Ein Name hat 1 bis 100 sichtbare Zeichen.",
    },
    "bad_models": {
        "en": "Models are a list of names with commas: 1 to 1000 names of 1 to 200 visible characters.",
        "de": "Modelle sind eine Liste von Namen mit Kommas: 1 bis 1000 Namen aus 1 bis 200 sichtbaren Zeichen.",
    },
    "bad_expiry": {
        "en": "A lifetime is a number and a unit: 45m, 12h, 30d or 52w, at most ten years.",
        "de": "Eine Lebensdauer ist eine Zahl mit Einheit: 45m, 12h, 30d oder 52w, höchstens zehn Jahre.",
    },
    "active": {"en": "active", "de": "gültig"},
    "expired": {"en": "expired", "de": "abgelaufen"},
    "state_revoked": {"en": "revoked", "de": "widerrufen"},
    "all": {"en": "all", "de": "alle"},
    "never": {"en": "never", "de": "nie"},
    "column_id": {"en": "id", "de": "ID"},
    "column_name": {"en": "name", "de": "Name"},
    "column_role": {"en": "role", "de": "Rolle"},
    "column_key": {"en": "key", "de": "Schlüssel"},
    "column_models": {"en": "models", "de": "Modelle"},
    "column_created": {"en": "created", "de": "erstellt"},
    "column_expires": {"en": "expires", "de": "läuft ab"},
    "column_state": {"en": "state", "de": "Zustand"},
}

_COLUMNS = ("id", "name", "role", "key", "models", "created", "expires", "state")
_LIFETIME = re.compile(r"([1-9][0-9]{0,8})([mhdw])")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_LIFETIME = 3660 * 86_400
_MOST_REQUESTS = 1_000_000

Data = Annotated[Path | None, typer.Option("--data", help="The data folder of the gateway.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Count = Annotated[
    int | None, typer.Option(metavar="N", min=0, max=_MOST_REQUESTS, help="In place of the config's; 0 is unlimited.")
]


def text(key: str, /, **values: Any) -> str:
    """The text of `key` in the language of the environment, its placeholders filled."""
    return TEXTS[key][language(os.environ)].format_map(values)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists and reports.")],
    role: Annotated[Role, typer.Option(help="user calls models, viewer looks on, admin may do all.")] = Role.USER,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="The only models that the key may use.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="30d", help="How long it is good: 45m, 12h, 30d, 52w.")] = None,
    requests_per_minute: Count = None,
    concurrent_requests: Count = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once. Only the key goes to standard output."""
    clock = SystemClock()
    key = NewKey(
        name=_checked_name(name),
        role=role,
        models=None if models is None else _model_names(models),
        requests_per_minute=requests_per_minute,
        concurrent_requests=concurrent_requests,
        expires_at=None if expires is None else clock.now() + _lifetime(expires),
    )
    with _opened(data) as (folder, database):
        digest = make_digest(load_pepper(folder, has_keys=database.read(has_keys)))
        try:
            record, token = database.write(lambda connection: create_key(connection, key, digest, now=clock.now()))
        except KeyLimit:
            _fail("too_many")
    if as_json:
        _print_json(_public(record, clock) | {"key": token.reveal()})
    else:
        typer.echo(text("created", name=record.name, role=record.role, id=record.id), err=True)
        typer.echo(token.reveal())


@app.command("list")
def show(data: Data = None, as_json: AsJson = False) -> None:
    """List the keys, oldest first. The keys themselves are not known any more."""
    clock = SystemClock()
    with _opened(data) as (_, database):
        records = database.read(list_keys)
    if as_json:
        _print_json([_public(record, clock) for record in records])
    elif not records:
        typer.echo(text("none"), err=True)
    else:
        _print_table([_cells(record, clock) for record in records])


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or its name when no other has it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Also when it is the last admin key.")] = False,
    data: Data = None,
) -> None:
    """Revoke a key for good. A running gateway refuses it within two seconds."""
    clock = SystemClock()
    with _opened(data) as (_, database):
        records = database.read(list_keys)
        record = _find(records, key, clock)
        admins = [each.id for each in records if each.role is Role.ADMIN and each.state(clock.now()) == "active"]
        if admins == [record.id] and not yes:
            _fail("last_admin", name=record.name, id=record.id)
        done = database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    typer.echo(text("revoked" if done else "revoked_before", name=record.name, id=record.id), err=True)


@contextlib.contextmanager
def _opened(data: Path | None) -> Iterator[tuple[Path, Database]]:
    folder = data_folder(data, os.environ)
    try:
        database = open_database(folder)
        with contextlib.closing(database):
            yield folder, database
    except StorageRefused as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EX_CONFIG) from None
    except Unavailable:
        typer.echo(text("busy", folder=folder), err=True)
        raise typer.Exit(EX_TEMPFAIL) from None


def _find(records: list[KeyRecord], key: str, clock: Clock) -> KeyRecord:
    """The key with that id, else the only one with that name; among several names the only one still in use."""
    named = [record for record in records if record.id == key] or [record for record in records if record.name == key]
    if len(named) > 1:
        named = [record for record in named if record.state(clock.now()) != "revoked"] or named
    if not named:
        _fail("not_found", key=key)
    if len(named) > 1:
        _fail("ambiguous", key=key, ids=" ".join(record.id for record in named))
    return named[0]


def _fail(key: str, /, **values: Any) -> NoReturn:
    typer.echo(text(key, **values), err=True)
    raise typer.Exit(1)


def _checked_name(name: str) -> str:
    if not (0 < len(name.strip()) <= len(name) <= 100 and name.isprintable()):
        raise typer.BadParameter(text("bad_name"), param_hint="NAME")
    return name.strip()


def _model_names(models: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in models.split(","))
    if len(names) > 1000 or not all(0 < len(name) <= 200 and name.isprintable() for name in names):
        raise typer.BadParameter(text("bad_models"), param_hint="--models")
    return names


def _lifetime(expires: str) -> int:
    """Seconds."""
    match = _LIFETIME.fullmatch(expires)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST_LIFETIME:
        raise typer.BadParameter(text("bad_expiry"), param_hint="--expires")
    return seconds


def _public(record: KeyRecord, clock: Clock) -> dict[str, Any]:
    """What may be shown of a key, for programs: times in RFC 3339, null where there is none."""
    return {
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "key": record.hint,
        "models": None if record.models is None else sorted(record.models),
        "requests_per_minute": record.requests_per_minute,
        "concurrent_requests": record.concurrent_requests,
        "created": _moment(record.created_at),
        "expires": _moment(record.expires_at),
        "revoked": _moment(record.revoked_at),
        "state": record.state(clock.now()),
    }


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(microsecond=0)


def _cells(record: KeyRecord, clock: Clock) -> tuple[str, ...]:
    state = record.state(clock.now())
    return (
        record.id,
        record.name,
        str(record.role),
        record.hint,
        text("all") if record.models is None else ", ".join(sorted(record.models)),
        _local_date(record.created_at),
        text("never") if record.expires_at is None else _local_date(record.expires_at),
        text("state_revoked" if state == "revoked" else state),
    )


def _local_date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d}"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """A drawn table on a terminal; one line a key with tabs in between for other programs."""
    titles = [text(f"column_{column}") for column in _COLUMNS]
    console = Console()
    if not console.is_terminal:
        for row in (titles, *rows):
            typer.echo("\t".join(row))
        return
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column, title in zip(_COLUMNS, titles, strict=True):
        # Only what people have chosen may be long, and only that is wrapped.
        table.add_column(title, no_wrap=column not in {"name", "models"})
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(table)


def _print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
