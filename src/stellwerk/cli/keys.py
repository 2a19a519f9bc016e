"""`stellwerk keys`: make, list, change and revoke API keys, beside a running gateway or without one."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
import typer
from msgspec import UNSET
from sqlalchemy import Connection

from stellwerk.api.admin import actions
from stellwerk.auth.keys import KeyChanges, KeyRecord, NewKey, list_keys
from stellwerk.auth.tokens import PREFIX
from stellwerk.auth.users import list_users
from stellwerk.cli import arguments
from stellwerk.cli.arguments import Limit, Models, Spending
from stellwerk.cli.data import AsJson, Data, OpenFolder, find_user, opened
from stellwerk.cli.key_view import KeyView
from stellwerk.cli.tables import Wording, print_json
from stellwerk.core.principal import Priority, Role
from stellwerk.core.secrets import Secret

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make, list, change and revoke API keys.")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "created": {
        "en": "{name} ({role}), id {id}. The key is shown this once:",
        "de": "{name} ({role}), ID {id}. Der Schlüssel wird nur dieses eine Mal gezeigt:",
    },
    "none": {
        "en": "There are no keys yet; `stellwerk keys create NAME` makes one.",
        "de": "Es gibt noch keine Schlüssel; `stellwerk keys create NAME` erzeugt einen.",
    },
    "none_of_user": {
        "en": "{user} has no keys yet.",
        "de": "{user} hat noch keine Schlüssel.",
    },
    "changed": {
        "en": "{name} ({id}) is changed.",
        "de": "{name} ({id}) ist geändert.",
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
}
text = Wording(TEXTS)

Named = Annotated[str, typer.Argument(metavar="ID", help="The key's id, or its name when no other has it.")]
Owner = Annotated[str | None, typer.Option("--user", metavar="EMAIL|ID", help="Whose key; without one, the gateway's.")]
Networks = Annotated[
    str | None, typer.Option(metavar="10.0.0.0/8,…", help="The only addresses that may use it; it opens nothing more.")
]
Ceiling = Annotated[Priority | None, typer.Option(help="The highest priority that its requests may ask for.")]
Expiry = Annotated[str | None, typer.Option(metavar="30d", help="How long it is good: 45m, 12h, 30d, 52w.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists and reports.")],
    user: Owner = None,
    role: Annotated[Role, typer.Option(help="user calls models, viewer looks on, admin may do all.")] = Role.USER,
    models: Models = None,
    networks: Networks = None,
    priority: Ceiling = None,
    expires: Expiry = None,
    requests_per_minute: Limit = None,
    burst: Limit = None,
    tokens_per_minute: Limit = None,
    concurrent_requests: Limit = None,
    budget: Spending = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once. Only the key goes to standard output."""
    with opened(data) as folder:
        now = folder.now
        key = NewKey(
            name=arguments.name(name),
            role=role,
            models=None if models is None else arguments.models(models),
            networks=None if networks is None else _networks(networks),
            priority=priority or Priority.HIGH,
            expires_at=None if expires is None else now + arguments.lifetime(expires),
            allowance=arguments.allowance(requests_per_minute, burst, tokens_per_minute, concurrent_requests),
            budget=None if budget is None else arguments.budget(budget),
        )
        digest = folder.digest()

        def make(connection: Connection) -> tuple[KeyView, KeyRecord, Secret]:
            owner = None if user is None else find_user(connection, user).id
            made = msgspec.structs.replace(key, user_id=owner)
            record, token = actions.create_key(connection, folder.actor, made, digest, now=now)
            return _view(connection, folder, record), record, token

        view, record, token = folder.write(make)
        if as_json:
            print_json(view.values()[0] | {"key": token.reveal()})
        else:
            text.say("created", name=record.name, role=str(record.role), id=record.id)
            typer.echo(token.reveal())


@app.command("list")
def list_all(user: Owner = None, data: Data = None, as_json: AsJson = False) -> None:
    """List the keys, oldest first. The keys themselves are not known any more."""
    with opened(data) as folder:

        def look(connection: Connection) -> tuple[list[KeyRecord], KeyView]:
            owner = None if user is None else find_user(connection, user).id
            records = list_keys(connection, owner)
            return records, _view(connection, folder, *records)

        records, view = folder.read(look)
        if as_json:
            print_json(view.values())
        elif records:
            view.print_table()
        else:
            text.say("none" if user is None else "none_of_user", user=user)


@app.command()
def show(key: Named, data: Data = None, as_json: AsJson = False) -> None:
    """Show all that is known of a key."""
    with opened(data) as folder:
        view = folder.read(lambda connection: _view(connection, folder, _find(connection, key, folder.now)))
        if as_json:
            print_json(view.values()[0])
        else:
            view.print_each()


@app.command()
def update(
    key: Named,
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    models: Models = None,
    networks: Networks = None,
    priority: Ceiling = None,
    expires: Expiry = None,
    requests_per_minute: Limit = None,
    burst: Limit = None,
    tokens_per_minute: Limit = None,
    concurrent_requests: Limit = None,
    budget: Spending = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Change a key; `none` takes a limit away, a lifetime counts from now. It holds within two seconds."""
    with opened(data) as folder:
        now = folder.now

        def change(connection: Connection) -> tuple[KeyRecord, KeyView]:
            before = _find(connection, key, now)
            changes = KeyChanges(
                name=UNSET if name is None else arguments.name(name, "--name"),
                models=arguments.changed(models, arguments.models),
                networks=arguments.changed(networks, _networks),
                priority=priority or UNSET,
                expires_at=arguments.changed(expires, lambda given: now + arguments.lifetime(given)),
                allowance=arguments.allowance(
                    requests_per_minute, burst, tokens_per_minute, concurrent_requests, before=before.allowance
                ),
                budget=arguments.changed(budget, arguments.budget),
            )
            after = actions.change_key(connection, folder.actor, before.id, changes, now=now)
            return after, _view(connection, folder, after)

        record, view = folder.write(change)
        if as_json:
            print_json(view.values()[0])
        else:
            text.say("changed", name=record.name, id=record.id)


@app.command()
def revoke(
    key: Named,
    yes: Annotated[bool, typer.Option("--yes", help="Also when it is the last admin key.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good. A running gateway refuses it within two seconds."""
    with opened(data) as folder:
        now = folder.now

        def end(connection: Connection) -> tuple[KeyRecord, KeyView]:
            before = _find(connection, key, now)
            if not yes and admin_keys(connection, now) == [before.id]:
                text.fail("last_admin", name=before.name, id=before.id)
            after = actions.revoke_key(connection, folder.actor, before.id, now=now)
            return before, _view(connection, folder, after)

        record, view = folder.write(end)
        if as_json:
            print_json(view.values()[0])
        else:
            done = "revoked" if record.revoked_at is None else "revoked_before"
            text.say(done, name=record.name, id=record.id)


def _view(connection: Connection, folder: OpenFolder, *records: KeyRecord) -> KeyView:
    return KeyView(connection, records, folder)


def _find(connection: Connection, key: str, now: float) -> KeyRecord:
    """The key with that id, else the only one with that name; among several names the only one still in use."""
    records = list_keys(connection)
    named = [record for record in records if record.id == key] or [record for record in records if record.name == key]
    if len(named) > 1:
        named = [record for record in named if record.state(now) != "revoked"] or named
    if not named:
        # Who has only the key itself at hand gives that, and it must not end up in a log.
        text.fail("not_found", key=f"{PREFIX}…" if PREFIX in key else key)
    if len(named) > 1:
        text.fail("ambiguous", key=key, ids=" ".join(record.id for record in named))
    return named[0]


def admin_keys(connection: Connection, now: float) -> list[str]:
    """Ids of the keys with which somebody is an admin now."""
    admins = {user.id for user in list_users(connection) if user.active and user.role is Role.ADMIN}
    return [
        record.id
        for record in list_keys(connection)
        if record.role is Role.ADMIN and record.user_id in admins and record.state(now) == "active"
    ]


def _networks(given: str) -> tuple[str, ...]:
    return tuple(given.split(","))
