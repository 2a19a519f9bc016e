"""`stellwerk ledger`: balances, statements, top-ups and corrections, and the proof that the accounts add up."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from sqlalchemy import Connection

from stellwerk.api.admin import actions
from stellwerk.auth.users import UserRecord, list_users
from stellwerk.cli import arguments, prices
from stellwerk.cli.data import AsJson, Data, Who, find_user, opened
from stellwerk.cli.refusals import explain_text
from stellwerk.cli.tables import Column, Wording, local_time, moment, money, print_json, print_table, units, visible
from stellwerk.ledger.accounts import Balance, StatementLine, balance, balances, statement
from stellwerk.ledger.check import Report
from stellwerk.ledger.check import check as check_accounts

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Balances, top-ups, prices; do the accounts add up?")
app.add_typer(prices.app, name="prices")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "nothing_held": {"en": "{email} has {available}.", "de": "{email} hat {available}."},
    "balance": {
        "en": "{email} has {available}, and {held} is held for running calls.",
        "de": "{email} hat {available}; {held} sind für laufende Anfragen reserviert.",
    },
    "no_lines": {"en": "Nothing was booked so far.", "de": "Bisher wurde nichts gebucht."},
    "no_accounts": {"en": "Nobody has an account yet.", "de": "Noch hat niemand ein Konto."},
    "topped_up": {
        "en": "{amount} is booked for {email}, who has {available} now.",
        "de": "{amount} sind für {email} gebucht; das Guthaben beträgt jetzt {available}.",
    },
    "corrected": {
        "en": "The balance of {email} is corrected by {amount} and is {available} now.",
        "de": "Das Guthaben von {email} ist um {amount} berichtigt und beträgt jetzt {available}.",
    },
    "adds_up": {
        "en": "Everything adds up.\n"
        "Accounts: {accounts}, transactions: {transactions}, entries: {entries}, open holds: {open_holds}.\n"
        "Balances: {sums}.",
        "de": "Alles geht auf.\n"
        "Konten: {accounts}, Buchungen: {transactions}, Posten: {entries}, offene Reservierungen: {open_holds}.\n"
        "Salden: {sums}.",
    },
    "problems": {
        "en": "The accounts do not add up; problems found: {count}.",
        "de": "Die Konten gehen nicht auf; gefundene Fehler: {count}.",
    },
    "nothing": {"en": "none yet", "de": "noch keine"},
    "available": {"en": "available {amount}", "de": "verfügbar {amount}"},
    "held": {"en": "held {amount}", "de": "reserviert {amount}"},
    "outside": {"en": "outside {amount}", "de": "außen {amount}"},
    "income": {"en": "income {amount}", "de": "Einnahmen {amount}"},
    "written_off": {"en": "written off {amount}", "de": "abgeschrieben {amount}"},
    "top_up": {"en": "top-up", "de": "Aufladung"},
    "correction": {"en": "correction", "de": "Berichtigung"},
    "settle": {"en": "call", "de": "Anfrage"},
    "estimate": {"en": "call, estimated", "de": "Anfrage, geschätzt"},
    "column_id": {"en": "id", "de": "Nr."},
    "column_at": {"en": "when", "de": "wann"},
    "column_kind": {"en": "what", "de": "was"},
    "column_amount": {"en": "amount", "de": "Betrag"},
    "column_note": {"en": "note", "de": "Notiz"},
    "column_actor": {"en": "by", "de": "von"},
    "column_call": {"en": "call", "de": "Anfrage"},
    "column_email": {"en": "e-mail", "de": "E-Mail"},
    "column_available": {"en": "available", "de": "verfügbar"},
    "column_held": {"en": "held", "de": "reserviert"},
}
text = Wording(TEXTS)

_LINES = ("id", "at", "kind", "amount", "note", "actor", "call")
_BALANCES = ("id", "email", "available", "held")
_LONG = frozenset({"note", "actor", "call", "email"})
_NUMBERS = frozenset({"id", "amount", "available", "held"})
_OFTEN_EMPTY = frozenset({"note", "call"})

Note = Annotated[str, typer.Option(help="What it is for; stays in the accounts.")]


@app.command()
def show(
    user: Who,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many lines, the newest first.")] = 50,
    before: Annotated[int | None, typer.Option(metavar="ID", min=1, help="Only lines before this one.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show what a user has, and every booking that changed it."""
    with opened(data) as folder:

        def look(connection: Connection) -> tuple[UserRecord, Balance, list[StatementLine], str]:
            record = find_user(connection, user)
            lines = statement(connection, record.id, limit=limit, before=before)
            return record, balance(connection, record.id), lines, folder.currency(connection)

        record, has, lines, currency = folder.read(look)
    if as_json:
        print_json(_balance_values(record, has, currency) | {"lines": [_line_values(line) for line in lines]})
        return
    words = {"available": money(has.available, currency), "held": money(has.held, currency)}
    text.say("balance" if has.held else "nothing_held", email=record.email, **words)
    if lines:
        print_table(_columns(_LINES), [_line_cells(line, currency) for line in lines])
    else:
        text.say("no_lines")


@app.command("top-up")
def top_up(
    user: Who,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="More than 0, such as 10.50.")],
    note: Note = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Book money that came in."""
    micro = arguments.money(amount, "AMOUNT")
    remark = arguments.note(note)
    with opened(data) as folder:

        def book(connection: Connection) -> tuple[UserRecord, Balance, str]:
            record = find_user(connection, user)
            currency = folder.currency(connection)
            actions.top_up(connection, folder.actor, record.id, micro, note=remark, now=folder.now, currency=currency)
            return record, balance(connection, record.id), currency

        _report(folder.write(book), "topped_up", micro, as_json=as_json)


# An amount below zero begins like an option.
@app.command(context_settings={"ignore_unknown_options": True})
def correct(
    user: Who,
    amount: Annotated[str, typer.Argument(metavar="±AMOUNT", help="What is added, or with a minus taken away.")],
    note: Annotated[str, typer.Option(help="Why; stays in the accounts.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Book a correction, with a note that says why. No balance falls below zero."""
    micro = arguments.money(amount, "AMOUNT", signed=True)
    remark = arguments.note(note, needed=True)
    with opened(data) as folder:

        def book(connection: Connection) -> tuple[UserRecord, Balance, str]:
            record = find_user(connection, user)
            currency = folder.currency(connection)
            actions.correct(connection, folder.actor, record.id, micro, note=remark, now=folder.now, currency=currency)
            return record, balance(connection, record.id), currency

        _report(folder.write(book), "corrected", micro, as_json=as_json)


@app.command("balances")
def list_balances(data: Data = None, as_json: AsJson = False) -> None:
    """List what everybody has."""
    with opened(data) as folder:

        def look(connection: Connection) -> tuple[list[tuple[UserRecord, Balance]], str]:
            have = balances(connection)
            users = [user for user in list_users(connection) if user.id in have]
            return [(user, have[user.id]) for user in users], folder.currency(connection)

        found, currency = folder.read(look)
    if as_json:
        print_json([_balance_values(user, has, currency) for user, has in found])
    elif found:
        rows = [
            [str(user.id), user.email, money(has.available, currency), money(has.held, currency)] for user, has in found
        ]
        print_table(_columns(_BALANCES), rows)
    else:
        text.say("no_accounts")


@app.command()
def check(data: Data = None, as_json: AsJson = False) -> None:
    """Prove that the accounts add up; exits with 1 and what is wrong where they do not."""
    with opened(data) as folder:
        report, currency = folder.read(lambda connection: (check_accounts(connection), folder.currency(connection)))
    if as_json:
        print_json(_report_values(report, currency))
    elif report.problems:
        for problem in report.problems:
            typer.echo(visible(f"{problem.kind}: {explain_text(problem.message)}"), err=True)
        text.say("problems", count=len(report.problems))
    else:
        typer.echo(text("adds_up", **_counts(report), sums=_sums(report, currency)))
    if report.problems:
        raise typer.Exit(1)


def _report(booked: tuple[UserRecord, Balance, str], key: str, amount: int, *, as_json: bool) -> None:
    record, has, currency = booked
    if as_json:
        print_json(_balance_values(record, has, currency) | {"booked": units(amount)})
    else:
        text.say(key, email=record.email, amount=money(amount, currency), available=money(has.available, currency))


def _columns(names: tuple[str, ...]) -> list[Column]:
    return [
        Column(
            text(f"column_{name}"),
            wraps=name in _LONG,
            right=name in _NUMBERS,
            usual="" if name in _OFTEN_EMPTY else None,
        )
        for name in names
    ]


def _balance_values(user: UserRecord, has: Balance, currency: str) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "available": units(has.available),
        "held": units(has.held),
        "currency": currency,
    }


def _line_values(line: StatementLine) -> dict[str, Any]:
    return msgspec.structs.asdict(line) | {"at": moment(line.at), "amount": units(line.amount)}


def _line_cells(line: StatementLine, currency: str) -> list[str]:
    kind = text(line.kind) if line.kind in TEXTS else line.kind
    amount = money(line.amount, currency)
    return [str(line.id), local_time(line.at), kind, amount, line.note, line.actor, line.call_id or ""]


def _counts(report: Report) -> dict[str, int]:
    return {
        "accounts": report.accounts,
        "transactions": report.transactions,
        "entries": report.entries,
        "open_holds": report.open_holds,
    }


def _sums(report: Report, currency: str) -> str:
    sums = [text(kind, amount=money(total, currency)) for kind, total in report.sums.items() if kind in TEXTS]
    return ", ".join(sums) or text("nothing")


def _report_values(report: Report, currency: str) -> dict[str, Any]:
    sums = {kind: units(total) for kind, total in report.sums.items()}
    return {
        "adds_up": not report.problems,
        **_counts(report),
        "currency": currency,
        "sums": sums,
        "problems": report.problems,
    }
