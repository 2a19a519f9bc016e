"""`stellwerk import`: takes over the data of programs whose place the gateway takes, reported row by row.

What was taken over before stays as it is: a command that was stopped, or whose database has grown since, can simply be
run again. It ends with 1 when a row was refused.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from sqlalchemy import Connection

from stellwerk.cli import import_usage as rows_of_usage
from stellwerk.cli import old_database
from stellwerk.cli.data import AsJson, Data, OpenFolder, find_user, opened
from stellwerk.cli.import_api_keys import (
    KEY_COLUMNS,
    KEYS,
    MOST_WEBHOOKS,
    USAGE,
    USAGE_COLUMNS,
    WEBHOOK_COLUMNS,
    WEBHOOKS,
    ApiKeysImport,
)
from stellwerk.cli.import_report import Finding, Report
from stellwerk.cli.import_usage import UsageImport
from stellwerk.cli.old_database import MOST_ROWS, OldDatabase, OldTable
from stellwerk.cli.tables import Wording
from stellwerk.config.reading import find, load_beside
from stellwerk.http.egress import Egress

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Take over data of other gateways.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "not_api_keys": {
        "en": "{file} has no table apiKeys: it is no database of Go Ollama API.",
        "de": "{file} hat keine Tabelle apiKeys: Das ist keine Datenbank von Go Ollama API.",
    },
    "not_usage": {
        "en": "{file} has no table usage: it is no database of Ollama Cloud Proxy.",
        "de": "{file} hat keine Tabelle usage: Das ist keine Datenbank von Ollama Cloud Proxy.",
    },
}
text = Wording(TEXTS)

_BATCH = 200
"""Rows of one transaction: long enough to be quick, short enough for a gateway that writes at the same time."""

Row = TypeVar("Row")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The database; it is only read.", show_default=False)]
Owner = Annotated[
    str | None, typer.Option("--user", metavar="EMAIL|ID", help="Whose the keys become; without one, nobody's.")
]
Provider = Annotated[
    str, typer.Option(metavar="NAME", help="The provider whose keys these are, in the order of the config.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
OnlyRefused = Annotated[bool, typer.Option("--only-refused", help="Of the rows, show only those that are refused.")]


@app.command("api-keys")
def import_api_keys(
    file: File,
    user: Owner = None,
    dry_run: DryRun = False,
    only_refused: OnlyRefused = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take over keys, calls and webhooks from the apiKeys.db of a Go Ollama API; the keys stay good as they are."""
    report = Report(tried=dry_run, only_refused=only_refused, as_json=as_json)
    with old_database.opened(file) as old, opened(data) as folder:
        keys = old.table(KEYS, KEY_COLUMNS)
        if keys is None or "key" not in keys.columns:
            text.fail("not_api_keys", file=str(file))
        owner = None if user is None else folder.read(lambda connection: find_user(connection, user).id)
        origins = load_beside(find(None, os.environ, folder.folder), os.environ).egress.allowed_origins
        taking = ApiKeysImport(folder, folder.digest(), Egress(lambda: origins), folder.seal())
        store = _Store(folder, report, tried=dry_run)
        store.begin(keys)
        store.take(old.rows(keys), lambda connection, row: taking.take_key(connection, row, owner))
        calls = _table(old, report, USAGE, USAGE_COLUMNS)
        if calls is not None:
            store.begin(calls)
            store.take(old.rows(calls), taking.take_call)
        webhooks = _table(old, report, WEBHOOKS, WEBHOOK_COLUMNS, MOST_WEBHOOKS)
        if webhooks is not None:
            store.begin(webhooks, MOST_WEBHOOKS)
            store.take(taking.look_up(old.rows(webhooks)), taking.take_webhook)
    _finish(report)


@app.command("usage")
def import_usage(
    file: File,
    provider: Provider = "ollama-cloud",
    dry_run: DryRun = False,
    only_refused: OnlyRefused = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Take over the statistics from the usage.db of an Ollama Cloud Proxy."""
    report = Report(tried=dry_run, only_refused=only_refused, as_json=as_json)
    with old_database.opened(file) as old, opened(data) as folder:
        usage = old.table(rows_of_usage.TABLE, rows_of_usage.COLUMNS)
        if usage is None or "timestamp" not in usage.columns:
            text.fail("not_usage", file=str(file))
        store = _Store(folder, report, tried=dry_run)
        store.begin(usage)
        store.take(old.rows(usage), UsageImport(folder, provider).take)
    _finish(report)


def _table(
    old: OldDatabase, report: Report, name: str, columns: tuple[str, ...], most: int = MOST_ROWS
) -> OldTable | None:
    table = old.table(name, columns, most)
    if table is None or not table.columns:
        report.miss(name)
        return None
    return table


def _finish(report: Report) -> None:
    report.finish()
    if report.refused:
        raise typer.Exit(1)


class _RolledBack(Exception):
    """Carries out of a transaction what it would have done."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__()
        self.findings = findings


class _Store:
    """Stores rows batch by batch, or only tries to."""

    def __init__(self, folder: OpenFolder, report: Report, *, tried: bool) -> None:
        self._folder = folder
        self._report = report
        self._tried = tried

    def begin(self, table: OldTable, most: int = MOST_ROWS) -> None:
        self._report.begin(table.name)
        if table.left_out:
            self._report.leave_out(table.name, table.left_out, most)

    def take(self, rows: Iterable[Row], take: Callable[[Connection, Row], Finding]) -> None:
        """Hands each row to `take` and reports what it found once that is committed."""
        remaining = iter(rows)
        while batch := list(islice(remaining, _BATCH)):
            for finding in self._take(batch, take):
                self._report.add(finding)

    def _take(self, batch: list[Any], take: Callable[[Connection, Any], Finding]) -> list[Finding]:
        def work(connection: Connection) -> list[Finding]:
            findings = [take(connection, row) for row in batch]
            if self._tried:
                raise _RolledBack(findings)
            return findings

        try:
            return self._folder.write(work)
        except _RolledBack as rolled_back:
            return rolled_back.findings
