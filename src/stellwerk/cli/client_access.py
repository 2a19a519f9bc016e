"""`stellwerk.client` for commands: with which key it asks, and what is said when something goes wrong."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stellwerk.cli.chat import ADMIN_KEY_FILE, find_key
from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.language import text as shared_text
from stellwerk.cli.refusals import explain_text, explain_trouble
from stellwerk.cli.tables import Wording, visible
from stellwerk.client.address import parse_address
from stellwerk.client.errors import (
    BadAddress,
    BrokenOff,
    JobFailed,
    NotUnderstood,
    StellwerkError,
    StillRunning,
    TimedOut,
    Unreachable,
)
from stellwerk.client.setting import Key
from stellwerk.config.reading import data_folder
from stellwerk.core.secrets import Secret

INTERRUPTED = 130
EX_TEMPFAIL = 75
"""From sysexits.h: what was waited for had not ended when the time was over."""
VARIABLES = ("STELLWERK_API_KEY", "STELLWERK_ADMIN_KEY")

Url = Annotated[str | None, typer.Option(help="Where the gateway listens; without it the one of this machine.")]
GivenKey = Annotated[str | None, typer.Option("--key", help="API key; better in STELLWERK_API_KEY.")]
Timeout = Annotated[float | None, typer.Option(min=0, max=604_800, help="The most seconds to wait.")]

TEXTS: Mapping[str, Mapping[str, str]] = {
    "untrusted_certificate": {
        "en": "The certificate of {url} is not trusted.",
        "de": "Dem Zertifikat von {url} ist nicht zu trauen.",
    },
    "unsupported_document": {
        "en": "Documents are JPEG, PNG, WebP, BMP, TIFF or PDF.",
        "de": "Dokumente sind JPEG, PNG, WebP, BMP, TIFF oder PDF.",
    },
    "job_not_found": {
        "en": "There is no such job; `stellwerk jobs list` shows them.",
        "de": "Diesen Job gibt es nicht; `stellwerk jobs list` zeigt sie.",
    },
    "job_not_dead": {
        "en": "Only a job that was given up can be queued again.",
        "de": "Nur ein aufgegebener Job lässt sich erneut einreihen.",
    },
    "job_not_finished": {
        "en": "The job has not ended yet.",
        "de": "Der Job ist noch nicht zu Ende.",
    },
    "result_not_found": {
        "en": "There is no answer of this job, or it is not kept any more.",
        "de": "Von diesem Job gibt es keine Antwort, oder sie ist nicht mehr aufgehoben.",
    },
    "queue_full": {
        "en": "The queue is full; please try again later.",
        "de": "Die Warteschlange ist voll; bitte später noch einmal.",
    },
    "storage_full": {
        "en": "The gateway's disk is nearly full: it takes no jobs and files at the moment.",
        "de": "Die Platte des Gateways ist fast voll: Es nimmt gerade keine Jobs und Dateien an.",
    },
    "ocr_not_installed": {
        "en": "This gateway has no OCR engine of its own: pip install 'stellwerk[ocr]'",
        "de": "Dieses Gateway hat keine eigene OCR-Engine: pip install 'stellwerk[ocr]'",
    },
    "still_running": {
        "en": "Job {job} has not ended yet. It goes on: stellwerk jobs wait {job}",
        "de": "Job {job} ist noch nicht zu Ende. Er läuft weiter: stellwerk jobs wait {job}",
    },
    "failed": {"en": "Job {job} has failed: {reason}", "de": "Job {job} ist gescheitert: {reason}"},
    "cancelled": {"en": "Job {job} was cancelled.", "de": "Job {job} wurde abgebrochen."},
    "dead": {
        "en": "Job {job} was given up: {reason}. Once more: stellwerk jobs retry {job}",
        "de": "Job {job} wurde aufgegeben: {reason}. Noch einmal: stellwerk jobs retry {job}",
    },
    "no_reason": {"en": "nobody knows why", "de": "warum, ist nicht bekannt"},
}
text = Wording(TEXTS)
_BY_CODE = frozenset(
    {
        "untrusted_certificate",
        "unsupported_document",
        "job_not_found",
        "job_not_dead",
        "job_not_finished",
        "result_not_found",
        "queue_full",
        "storage_full",
        "ocr_not_installed",
    }
)


def find_url(url: str | None, data: Path | None) -> str:
    """The one that was given, else that of the gateway of this data folder. Raises ConfigError."""
    if url:
        return url
    # Only now: it imports half of the gateway.
    from stellwerk.cli.own_address import own_url  # noqa: PLC0415

    return own_url(data, os.environ)


def find_administrator(url: str, given: str | None, data: Path | None) -> Key:
    """The key that was given; on this machine without one, whatever its data folder lets one be. Raises GatewayTrouble
    and StellwerkError."""
    found = given or next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    if found.strip():
        return Secret(found.strip())
    folder = data_folder(data, os.environ)
    if parse_address(url).is_on_this_machine:
        from stellwerk.cli.console import OwnToken  # noqa: PLC0415

        own = OwnToken(folder)
        if own.exists:
            return own
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return Secret((folder / ADMIN_KEY_FILE).read_text(encoding="ascii").strip())
    raise GatewayTrouble("chat.no_key", file=folder / ADMIN_KEY_FILE)


def find_caller(url: str, given: str | None, data: Path | None) -> Key:
    """A key for calls of models. Raises GatewayTrouble and StellwerkError."""
    return find_key(given, os.environ, data, look_into_folder=parse_address(url).is_on_this_machine)


@contextlib.contextmanager
def told(url: str | None) -> Iterator[None]:
    """Says in a sentence what goes wrong, and ends the command."""
    try:
        yield
    except GatewayTrouble as trouble:
        typer.echo(visible(explain_trouble(trouble)), err=True)
        raise typer.Exit(1) from None
    except StellwerkError as error:
        give_up(error, url)


def give_up(error: StellwerkError, url: str | None) -> NoReturn:
    say(error, url)
    raise typer.Exit(exit_code(error)) from None


def say(error: StellwerkError, url: str | None, *, about: str = "") -> None:
    """On standard error, with nothing in it that steers a terminal."""
    sentence = explain(error, url or "")
    typer.echo(visible(f"{about}: {sentence}" if about else sentence), err=True)


def exit_code(error: StellwerkError) -> int:
    return EX_TEMPFAIL if isinstance(error, StillRunning) else 1


def explain(error: StellwerkError, url: str) -> str:
    """One sentence in the language of the environment."""
    if isinstance(error, StillRunning):
        return text("still_running", job=error.job.id)
    if isinstance(error, JobFailed):
        kind = error.job.status if error.job.status in {"cancelled", "dead"} else "failed"
        reason = explain_text(error.job.error.message) if error.job.error else text("no_reason")
        return text(kind, job=error.job.id, reason=reason.rstrip("."))
    # What is no id at all is not looked for, and jobs are all that these commands name by one.
    code = "job_not_found" if error.code == "not_found" else error.code
    if code in _BY_CODE:
        return text(code, url=url)
    match error:
        case Unreachable():
            return shared_text("chat.not_running", url=url)
        case BadAddress():
            return shared_text("chat.bad_url", url=url)
        case TimedOut():
            return explain_text(error.message)
        case BrokenOff():
            return shared_text("chat.broken")
        case NotUnderstood():
            return shared_text("chat.not_understood")
    if error.status is None:
        return shared_text("chat.failed", message=explain_text(error.message))
    return shared_text("chat.refused", status=error.status, message=explain_text(error.message))
