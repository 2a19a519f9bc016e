"""What became of each row that was to be imported: a line a row, and the sums of each table at the end."""

import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import typer

from stellwerk.cli.tables import Wording, print_json, visible

Result = Literal["imported", "present", "refused"]
RESULTS: tuple[Result, ...] = ("imported", "present", "refused")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "imported": {"en": "imported", "de": "übernommen"},
    "would_import": {"en": "would be imported", "de": "würde übernommen"},
    "present": {"en": "already there", "de": "schon vorhanden"},
    "refused": {"en": "refused", "de": "abgelehnt"},
    "row": {"en": "{table} {row}", "de": "{table} {row}"},
    "sums": {
        "en": "{table}: {imported} imported, {present} already there, {refused} refused.",
        "de": "{table}: {imported} übernommen, {present} schon vorhanden, {refused} abgelehnt.",
    },
    "sums_tried": {
        "en": "{table}: {imported} would be imported, {present} are already there, {refused} would be refused. "
        "Nothing was changed.",
        "de": "{table}: {imported} würden übernommen, {present} sind schon vorhanden, {refused} würden abgelehnt. "
        "Nichts wurde geändert.",
    },
    "missing": {"en": "{table}: there is no such table.", "de": "{table}: Diese Tabelle gibt es nicht."},
    "left_out": {
        "en": "{table}: {count} rows are left out: more than {most} are not read.",
        "de": "{table}: {count} Zeilen sind weggelassen: Mehr als {most} werden nicht gelesen.",
    },
}
text = Wording(TEXTS)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one row."""

    table: str
    row: int
    what: str
    """What stands in the row, as far as it may be seen."""
    result: Result
    reason: str | None = None
    """Why it was refused, or what else is to be known of it; a sentence without its full stop."""


def refused(table: str, row: int, what: str, reason: str) -> Finding:
    return Finding(table=table, row=row, what=what, result="refused", reason=reason)


class Report:
    """Prints findings as they come, or as JSON at the end."""

    def __init__(self, *, tried: bool, only_refused: bool, as_json: bool) -> None:
        """`tried`: nothing is really imported."""
        self._tried = tried
        self._only_refused = only_refused
        self._as_json = as_json
        self._kept: list[Finding] = []
        self._sums: dict[str, dict[str, int]] = {}
        self._notes: list[str] = []

    @property
    def refused(self) -> int:
        return sum(sums["refused"] for sums in self._sums.values())

    def begin(self, table: str) -> None:
        self._sums[table] = dict.fromkeys(RESULTS, 0)

    def add(self, finding: Finding) -> None:
        self._sums[finding.table][finding.result] += 1
        if self._only_refused and finding.result != "refused":
            return
        if self._as_json:
            self._kept.append(finding)
            return
        result = text("would_import" if self._tried and finding.result == "imported" else finding.result)
        cells = [text("row", table=finding.table, row=finding.row), finding.what, result, finding.reason or ""]
        # Fast for a million of them, so without a drawn table.
        typer.echo(("  " if sys.stdout.isatty() else "\t").join(map(visible, cells)).rstrip())

    def miss(self, table: str) -> None:
        self._notes.append(text("missing", table=table))

    def leave_out(self, table: str, count: int, most: int) -> None:
        self._notes.append(text("left_out", table=table, count=count, most=most))

    def finish(self) -> None:
        """Prints the sums."""
        if self._as_json:
            values: dict[str, Any] = {"dry_run": self._tried, "tables": self._sums, "rows": self._kept}
            print_json(values | {"notes": self._notes})
            return
        for note in self._notes:
            typer.echo(note, err=True)
        for table, sums in self._sums.items():
            text.say("sums_tried" if self._tried else "sums", table=table, **sums)
