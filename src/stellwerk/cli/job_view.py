"""How jobs are shown: in a table, as a record, and their answers."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer

from stellwerk.cli.language import decimal
from stellwerk.cli.refusals import explain_text
from stellwerk.cli.tables import NOTHING, Column, Wording, local_time, print_record, print_table
from stellwerk.client.errors import NotUnderstood
from stellwerk.client.jobs import Job, JobResult
from stellwerk.client.ocr import Reading
from stellwerk.client.shapes import Chat

TEXTS: Mapping[str, Mapping[str, str]] = {
    "queued": {"en": "waits", "de": "wartet"},
    "queued_at": {"en": "waits, place {position}", "de": "wartet, Platz {position}"},
    "running": {"en": "runs", "de": "läuft"},
    "running_at": {"en": "runs, {progress}", "de": "läuft, {progress}"},
    "completed": {"en": "done", "de": "fertig"},
    "failed": {"en": "failed", "de": "gescheitert"},
    "cancelled": {"en": "cancelled", "de": "abgebrochen"},
    "dead": {"en": "given up", "de": "aufgegeben"},
    "progress": {"en": "{done} of {total} {unit}", "de": "{done} von {total} {unit}"},
    "progress_without_end": {"en": "{done} {unit}", "de": "{done} {unit}"},
    "page": {"en": "pages", "de": "Seiten"},
    "low": {"en": "low", "de": "niedrig"},
    "normal": {"en": "normal", "de": "normal"},
    "high": {"en": "high", "de": "hoch"},
    "column_id": {"en": "id", "de": "ID"},
    "column_status": {"en": "state", "de": "Zustand"},
    "column_model": {"en": "model", "de": "Modell"},
    "column_priority": {"en": "priority", "de": "Priorität"},
    "column_created": {"en": "queued", "de": "eingereiht"},
    "column_client": {"en": "client", "de": "Client"},
    "column_seconds": {"en": "seconds", "de": "Sekunden"},
    "column_error": {"en": "error", "de": "Fehler"},
    "path": {"en": "request", "de": "Anfrage"},
    "key": {"en": "key", "de": "Schlüssel"},
    "started": {"en": "begun", "de": "begonnen"},
    "finished": {"en": "ended", "de": "beendet"},
    "waited": {"en": "waited", "de": "gewartet"},
    "estimated": {"en": "begins about", "de": "beginnt etwa"},
    "attempt": {"en": "attempt {number}", "de": "Versuch {number}"},
    "kept_until": {"en": "answer kept until", "de": "Antwort aufgehoben bis"},
}
text = Wording(TEXTS)

_COLUMNS = ("id", "status", "model", "priority", "created", "client", "seconds", "error")
_USUAL = {"client": NOTHING, "error": NOTHING, "seconds": NOTHING}
_HARMLESS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


def print_jobs(jobs: Sequence[Job]) -> None:
    columns = [
        Column(
            text(f"column_{name}"),
            wraps=name in {"model", "error", "client"},
            right=name == "seconds",
            usual=text("normal") if name == "priority" else _USUAL.get(name),
        )
        for name in _COLUMNS
    ]
    print_table(columns, [_cells(job) for job in jobs])


def print_job(job: Job) -> None:
    """Everything that is known of one job but its answer."""
    fields = [
        (text("column_id"), job.id),
        (text("column_status"), status_of(job)),
        (text("column_model"), job.model),
        (text("path"), job.path),
        (text("column_priority"), _priority(job)),
        (text("column_client"), job.client_id),
        (text("key"), job.key_id),
        (text("column_created"), _time(job.created_at)),
        (text("estimated"), _time(job.estimated_start)),
        (text("started"), _time(job.started_at)),
        (text("finished"), _time(job.finished_at)),
        (text("waited"), _seconds(job.waited_seconds)),
        (text("column_seconds"), _seconds(job.ran_seconds)),
        (text("column_error"), _error(job)),
        (text("kept_until"), _time(job.result_expires_at)),
        *(
            (text("attempt", number=attempt.number), f"{_time(attempt.started_at)}  {attempt.outcome or ''}".rstrip())
            for attempt in job.attempt_log or ()
        ),
        *((f"{name}:", value) for name, value in sorted(job.labels.items())),
    ]
    print_record((name, value) for name, value in fields if value not in {"", NOTHING})


def job_values(job: Job) -> dict[str, Any]:
    """For programs: as the gateway tells it."""
    values = msgspec.to_builtins(job)
    assert isinstance(values, dict)
    return values


def status_of(job: Job) -> str:
    """With the place in the line, or how far it is."""
    if job.status == "queued" and job.position is not None:
        return text("queued_at", position=job.position)
    if job.status == "running" and job.progress is not None:
        return text("running_at", progress=progress_of(job))
    return text(job.status)


def progress_of(job: Job) -> str:
    progress = job.progress
    if progress is None:
        return ""
    unit = text("page") if progress.unit in {"page", "pages"} else progress.unit
    key = "progress_without_end" if progress.total is None else "progress"
    return text(key, done=progress.done, total=progress.total, unit=unit).strip()


def print_answer(result: JobResult, *, raw: bool = False) -> None:
    """The text of a chat and of a document that was read; of everything else what was answered, byte for byte."""
    shown = None if raw else readable(result)
    if shown is not None:
        print_text(shown)
    elif sys.stdout.isatty():
        print_text(result.data.decode(errors="replace"))
    else:
        sys.stdout.buffer.write(result.data)
        if result.content_type.startswith("application/json"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


def print_text(shown: str) -> None:
    """For a terminal without what would steer it; another program gets what the model wrote."""
    typer.echo(shown.translate(_HARMLESS) if sys.stdout.isatty() else shown.encode("utf-8", "replace").decode())


def readable(result: JobResult) -> str | None:
    """None for what has no text of its own."""
    if not result.content_type.startswith("application/json"):
        return None
    try:
        if (chat := result.read(Chat)).choices:
            return chat.text or None
    except NotUnderstood:
        pass
    try:
        return result.read(Reading).markdown
    except NotUnderstood:
        return None


def _cells(job: Job) -> list[str]:
    return [
        job.id,
        status_of(job),
        job.model,
        _priority(job),
        _time(job.created_at),
        job.client_id or NOTHING,
        _seconds(job.ran_seconds),
        _error(job),
    ]


def _priority(job: Job) -> str:
    return text(job.priority) if job.priority in {"low", "normal", "high"} else job.priority


def _error(job: Job) -> str:
    return explain_text(job.error.message) if job.error else NOTHING


def _time(at: datetime | None) -> str:
    return NOTHING if at is None else local_time(at.timestamp())


def _seconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else decimal(seconds, 1)
