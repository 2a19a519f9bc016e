"""`stellwerk signups`: decide about strangers who asked to become users."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from stellwerk.api.admin import actions
from stellwerk.auth.mails import Language, Mail, approval_mail, rejection_mail
from stellwerk.auth.signups import Signup, Status, list_signups
from stellwerk.cli.data import AsJson, Data, OpenFolder, opened
from stellwerk.cli.tables import Column, Wording, local_time, moment, print_json, print_table, visible
from stellwerk.config.reading import find, load_beside

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Decide about strangers who asked to become users.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "none": {
        "en": "Nobody waits for a decision.",
        "de": "Niemand wartet auf eine Entscheidung.",
    },
    "approved": {
        "en": "{email} ({tier}) is user {id} now. The key is shown this once:",
        "de": "{email} ({tier}) ist jetzt Benutzer {id}. Der Schlüssel wird nur dieses eine Mal gezeigt:",
    },
    "rejected": {
        "en": "The request of {email} is rejected; nobody is told by itself.",
        "de": "Die Anfrage von {email} ist abgelehnt; von selbst erfährt das niemand.",
    },
    "mail_en": {"en": "To copy into a mail, in English:", "de": "Für eine Mail, englisch:"},
    "mail_de": {"en": "To copy into a mail, in German:", "de": "Für eine Mail, deutsch:"},
    "subject": {"en": "Subject: {subject}", "de": "Betreff: {subject}"},
    "pending": {"en": "waiting", "de": "wartet"},
    "state_approved": {"en": "approved", "de": "angenommen"},
    "state_rejected": {"en": "rejected", "de": "abgelehnt"},
    "column_id": {"en": "id", "de": "Nr."},
    "column_email": {"en": "e-mail", "de": "E-Mail"},
    "column_tier": {"en": "tier", "de": "Tarif"},
    "column_asked": {"en": "asked", "de": "angefragt"},
    "column_state": {"en": "state", "de": "Zustand"},
    "column_message": {"en": "message", "de": "Nachricht"},
}
text = Wording(TEXTS)

_COLUMNS = ("id", "email", "tier", "asked", "state", "message")
_LONG = frozenset({"email", "message"})
_STATES = {Status.PENDING: "pending", Status.APPROVED: "state_approved", Status.REJECTED: "state_rejected"}
_LANGUAGES: tuple[Language, ...] = ("de", "en")

Request = Annotated[int, typer.Argument(metavar="ID", min=1, help="The number of the request.")]


@app.command("list")
def list_all(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the requests that wait, newest first."""
    status = None if everything else Status.PENDING
    with opened(data) as folder:
        records = folder.read(lambda connection: list_signups(connection, status=status))
        if as_json:
            print_json([_values(record) for record in records])
        elif records:
            columns = [Column(text(f"column_{name}"), wraps=name in _LONG, right=name == "id") for name in _COLUMNS]
            print_table(columns, [_cells(record) for record in records])
        else:
            text.say("none")


@app.command()
def approve(
    request: Request,
    url: Annotated[
        str | None, typer.Option(metavar="https://…", help="The gateway's address for users, for the mail.")
    ] = None,
    key_in_mail: Annotated[
        bool, typer.Option("--key-in-mail", help="Put the key into the mail texts too, instead of a placeholder.")
    ] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make the user and a key, which is shown this once; only the key goes to standard output."""
    with opened(data) as folder:
        # What can fail comes first: the key cannot be shown a second time.
        address = url or _address(folder)
        digest = folder.digest()
        approval = folder.write(
            lambda connection: actions.approve_signup(connection, folder.actor, request, digest, now=folder.now)
        )
        key = approval.token if key_in_mail else None
        mails = {
            language: approval_mail(language, base_url=address, tier=approval.user.tier, key=key)
            for language in _LANGUAGES
        }
        if as_json:
            values = _values(approval.signup)
            print_json(values | {"key_id": approval.key.id, "key": approval.token.reveal(), "mails": mails})
        else:
            user = approval.user
            text.say("approved", email=user.email, tier=str(user.tier), id=user.id)
            typer.echo(approval.token.reveal())
            _print_mails(mails)


@app.command()
def reject(request: Request, data: Data = None, as_json: AsJson = False) -> None:
    """Turn a request down."""
    with opened(data) as folder:
        signup = folder.write(
            lambda connection: actions.reject_signup(connection, folder.actor, request, now=folder.now)
        )
        mails = {language: rejection_mail(language) for language in _LANGUAGES}
        if as_json:
            print_json(_values(signup) | {"mails": mails})
        else:
            text.say("rejected", email=signup.email)
            _print_mails(mails)


def _address(folder: OpenFolder) -> str:
    """How users reach the gateway, as far as the config tells."""
    listen = load_beside(find(None, os.environ, folder.folder), os.environ).listen
    host = listen.allowed_hosts[0] if listen.allowed_hosts else listen.host
    name = f"[{host}]" if ":" in host else host
    return f"https://{name}" if listen.behind_proxy and listen.allowed_hosts else f"http://{name}:{listen.port}"


def _print_mails(mails: Mapping[Language, Mail]) -> None:
    for language, mail in mails.items():
        lines = [text(f"mail_{language}"), "", text("subject", subject=mail.subject), "", *mail.body.splitlines()]
        typer.echo("\n" + "\n".join(visible(line) for line in lines), err=True)


def _values(record: Signup) -> dict[str, Any]:
    times = {"created_at": moment(record.created_at), "decided_at": moment(record.decided_at)}
    return msgspec.structs.asdict(record) | times


def _cells(record: Signup) -> list[str]:
    # A message has lines of its own; here it is one.
    message = " ".join((record.message or "").split())
    return [
        str(record.id),
        record.email,
        str(record.tier),
        local_time(record.created_at),
        text(_STATES[record.status]),
        message,
    ]
