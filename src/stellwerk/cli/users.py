"""`stellwerk users`: make, list, change and disable users, beside a running gateway or without one."""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer
from msgspec import UNSET
from sqlalchemy import Connection

from stellwerk.api.admin import actions
from stellwerk.auth.keys import list_keys
from stellwerk.auth.passwords import check_new_password, hash_password
from stellwerk.auth.users import NewUser, UserChanges, UserRecord, list_users, role_for_tier
from stellwerk.cli import arguments
from stellwerk.cli.arguments import Limit, Models, Spending
from stellwerk.cli.data import AsJson, Data, OpenFolder, Who, find_user, opened
from stellwerk.cli.key_view import KeyView
from stellwerk.cli.tables import Wording, print_json, print_record
from stellwerk.cli.user_view import UserView
from stellwerk.core.principal import Role, Tier
from stellwerk.core.secrets import Secret

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make, list, change and disable users.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "created": {
        "en": "{email} ({tier}, {role}) is user {id}.\nA key: stellwerk keys create NAME --user {id}",
        "de": "{email} ({tier}, {role}) ist Benutzer {id}.\nEin Schlüssel: stellwerk keys create NAME --user {id}",
    },
    "none": {
        "en": "There are no users yet; `stellwerk users create EMAIL` makes one.",
        "de": "Es gibt noch keine Benutzer; `stellwerk users create EMAIL` legt einen an.",
    },
    "changed": {"en": "{email} is changed.", "de": "{email} ist geändert."},
    "disabled": {
        "en": "{email} is disabled: no key and no login works any more.",
        "de": "{email} ist gesperrt: Kein Schlüssel und keine Anmeldung gilt mehr.",
    },
    "enabled": {"en": "{email} is enabled.", "de": "{email} ist freigegeben."},
    "password_set": {
        "en": "The password of {email} is set; who was logged in has to log in again.",
        "de": "Das Passwort von {email} ist gesetzt; wer angemeldet war, muss sich neu anmelden.",
    },
    "password_removed": {
        "en": "{email} has no password any more.",
        "de": "{email} hat kein Passwort mehr.",
    },
    "password": {"en": "Password", "de": "Passwort"},
    "password_again": {"en": "Once more", "de": "Noch einmal"},
    "passwords_differ": {
        "en": "The two passwords are not the same.",
        "de": "Die beiden Passwörter sind nicht gleich.",
    },
    "opening_balance": {"en": "opening balance", "de": "Anfangsguthaben"},
}
text = Wording(TEXTS)

_LONGEST_LINE = 4096
"""Characters of a password that are read from standard input."""

TierOption = Annotated[Tier | None, typer.Option(help="payg pays from a balance, sub by subscription, admin nothing.")]
RoleOption = Annotated[Role | None, typer.Option(help="user calls models, viewer looks on, admin may do all.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read a password from standard input.")]


@app.command()
def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The e-mail address, which nobody else has.")],
    tier: TierOption = None,
    role: RoleOption = None,
    name: Annotated[str, typer.Option(help="The name, for lists.")] = "",
    balance: Annotated[str | None, typer.Option(metavar="10.00", help="Money to begin with.")] = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for a password to log in with.")] = False,
    password_stdin: FromStdin = False,
    models: Models = None,
    requests_per_minute: Limit = None,
    burst: Limit = None,
    tokens_per_minute: Limit = None,
    concurrent_requests: Limit = None,
    budget: Spending = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a user. A key is made with `stellwerk keys create NAME --user EMAIL`."""
    chosen = tier or Tier.PAYG
    user = NewUser(
        email=email,
        name=arguments.name(name, "--name") if name else "",
        tier=chosen,
        role=role_for_tier(chosen, role, None),
        models=None if models is None else arguments.models(models),
        allowance=arguments.allowance(requests_per_minute, burst, tokens_per_minute, concurrent_requests),
        budget=None if budget is None else arguments.budget(budget),
    )
    amount = 0 if balance is None else arguments.money(balance, "--balance")
    with opened(data) as folder:
        encoded = _new_password(email, from_stdin=password_stdin) if password or password_stdin else None

        def make(connection: Connection) -> UserRecord:
            made = actions.create_user(connection, folder.actor, user, now=folder.now, password=encoded)
            if amount:
                actions.top_up(
                    connection,
                    folder.actor,
                    made.id,
                    amount,
                    note=text("opening_balance"),
                    now=folder.now,
                    currency=folder.currency(connection),
                )
            return made

        _report(folder, folder.write(make), "created", as_json=as_json)


@app.command("list")
def list_all(data: Data = None, as_json: AsJson = False) -> None:
    """List the users, newest first."""
    with opened(data) as folder:
        view = folder.read(lambda connection: _view(connection, folder, *list_users(connection)))
        if as_json:
            print_json(view.values())
        elif view.records:
            view.print_table()
        else:
            text.say("none")


@app.command()
def show(user: Who, data: Data = None, as_json: AsJson = False) -> None:
    """Show all that is known of a user: limits, balance, budget and keys."""
    with opened(data) as folder:

        def look(connection: Connection) -> tuple[UserRecord, UserView, KeyView]:
            record = find_user(connection, user)
            view = _view(connection, folder, record)
            return record, view, KeyView(connection, list_keys(connection, record.id), folder)

        record, view, keys = folder.read(look)
        if as_json:
            print_json(view.values()[0] | {"keys": keys.values()})
        else:
            print_record(view.fields(record))
            if keys.records:
                typer.echo()
                keys.print_table()


@app.command()
def update(
    user: Who,
    email: Annotated[str | None, typer.Option(help="Another e-mail address.")] = None,
    tier: TierOption = None,
    role: RoleOption = None,
    name: Annotated[str | None, typer.Option(help="The name, for lists.")] = None,
    models: Models = None,
    requests_per_minute: Limit = None,
    burst: Limit = None,
    tokens_per_minute: Limit = None,
    concurrent_requests: Limit = None,
    budget: Spending = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Change a user; `none` takes a limit, a budget, the name or the list of models away."""

    def changes(before: UserRecord) -> UserChanges:
        new_name = arguments.changed(name, lambda given: arguments.name(given, "--name"))
        return UserChanges(
            email=UNSET if email is None else email,
            name="" if new_name is None else new_name,
            tier=tier or UNSET,
            role=(role or UNSET) if tier is None else role_for_tier(tier, role, before.role),
            models=arguments.changed(models, arguments.models),
            allowance=arguments.allowance(
                requests_per_minute, burst, tokens_per_minute, concurrent_requests, before=before.allowance
            ),
            budget=arguments.changed(budget, arguments.budget),
        )

    with opened(data) as folder:
        _report(folder, _change(folder, user, changes), "changed", as_json=as_json)


@app.command()
def disable(user: Who, data: Data = None, as_json: AsJson = False) -> None:
    """Shut a user out: every key and login stops working within two seconds. The accounts stay."""
    with opened(data) as folder:
        record = _change(folder, user, lambda _: UserChanges(active=False))
        _report(folder, record, "disabled", as_json=as_json)


@app.command()
def enable(user: Who, data: Data = None, as_json: AsJson = False) -> None:
    """Let a user in again, with the same keys; logins begin anew."""
    with opened(data) as folder:
        _report(folder, _change(folder, user, lambda _: UserChanges(active=True)), "enabled", as_json=as_json)


@app.command()
def password(
    user: Who,
    remove: Annotated[bool, typer.Option("--remove", help="Take the password away: only keys work then.")] = False,
    password_stdin: FromStdin = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Set a user's password, asked for here, and end all of the user's logins."""
    with opened(data) as folder:
        record = folder.read(lambda connection: find_user(connection, user))
        encoded = None if remove else _new_password(record.email, from_stdin=password_stdin)
        folder.write(
            lambda connection: actions.set_password(connection, folder.actor, record.id, encoded, now=folder.now)
        )
        record = folder.read(lambda connection: find_user(connection, record.email))
        _report(folder, record, "password_removed" if remove else "password_set", as_json=as_json)


def _change(folder: OpenFolder, user: str, changes: Callable[[UserRecord], UserChanges]) -> UserRecord:
    def change(connection: Connection) -> UserRecord:
        before = find_user(connection, user)
        return actions.change_user(connection, folder.actor, before.id, changes(before), now=folder.now)

    return folder.write(change)


def _report(folder: OpenFolder, record: UserRecord, key: str, *, as_json: bool) -> None:
    if not as_json:
        text.say(key, email=record.email, id=record.id, tier=str(record.tier), role=str(record.role))
        return
    print_json(folder.read(lambda connection: _view(connection, folder, record)).values()[0])


def _view(connection: Connection, folder: OpenFolder, *records: UserRecord) -> UserView:
    return UserView(connection, records, folder)


def _new_password(email: str, *, from_stdin: bool) -> str:
    """The encoded form of a password that is typed, never of an argument, which others on the machine could read."""
    if from_stdin:
        chosen = sys.stdin.readline(_LONGEST_LINE).rstrip("\r\n")
    else:
        chosen = typer.prompt(text("password"), hide_input=True, err=True)
        if chosen != typer.prompt(text("password_again"), hide_input=True, err=True):
            text.fail("passwords_differ")
    secret = Secret(chosen)
    check_new_password(secret, email)
    return hash_password(secret)
