"""The data folder of a gateway, opened for one command beside a running gateway or without one."""

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy import Connection, select

from stellwerk.auth.keys import has_keys
from stellwerk.auth.tokens import SEAL_LABEL, Digest, derive_secret, load_pepper, make_digest
from stellwerk.auth.users import UserRecord, find_user_by_email
from stellwerk.auth.users import find_user as user_by_id
from stellwerk.cli import arguments
from stellwerk.cli.refusals import explain, explain_text
from stellwerk.cli.tables import Wording, visible
from stellwerk.config.reading import data_folder, find, load_beside
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import GatewayError, Unavailable
from stellwerk.core.secrets import Secret
from stellwerk.ledger.accounts import accounts
from stellwerk.records.audit import Actor
from stellwerk.storage.database import Database, open_database
from stellwerk.storage.failures import StorageRefused
from stellwerk.storage.sealing import Seal

EX_TEMPFAIL = 75
EX_CONFIG = 78

Data = Annotated[Path | None, typer.Option("--data", help="The data folder of the gateway.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The user, by e-mail address or number.")]

TEXTS = {
    "busy": {
        "en": "The database in {folder} cannot be reached: the disk is full or read-only, or another process holds it.",
        "de": "Die Datenbank in {folder} ist nicht erreichbar: Der Datenträger ist voll oder schreibgeschützt, "
        "oder ein anderer Prozess hält sie fest.",
    },
    "no_user": {
        "en": "No user has the e-mail address or the number {user}.",
        "de": "Kein Benutzer hat die E-Mail-Adresse oder die Nummer {user}.",
    },
}
text = Wording(TEXTS)


class OpenFolder:
    """An open data folder: its database, the time, and who gives the command."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.actor = Actor(name=f"cli:{_login_name()}")
        self.read = database.read
        self.write = database.write

    @property
    def now(self) -> float:
        return self.clock.now()

    def digest(self) -> Digest:
        """From the text of a key to what is stored of it."""
        return make_digest(self._pepper())

    def seal(self) -> Seal:
        """What the running gateway seals the secrets of webhooks with."""
        return Seal(derive_secret(self._pepper(), SEAL_LABEL))

    def _pepper(self) -> Secret:
        return load_pepper(self.folder, has_keys=self.read(has_keys))

    def currency(self, connection: Connection) -> str:
        """That of the accounts, which stays; of the config as long as there are none."""
        booked = connection.scalar(select(accounts.c.currency).limit(1))
        if booked is not None:
            return str(booked)
        return load_beside(find(None, os.environ, self.folder), os.environ).money.currency


@contextlib.contextmanager
def opened(data: Path | None) -> Iterator[OpenFolder]:
    """Opens the folder of `--data`, the environment or the platform, and says in a sentence what goes wrong in it."""
    folder = data_folder(data, os.environ)
    try:
        database = open_database(folder)
        with contextlib.closing(database):
            yield OpenFolder(folder, database)
    except StorageRefused as error:
        _say_and_exit(explain_text(str(error)), EX_CONFIG)
    except Unavailable:
        _say_and_exit(text("busy", folder=str(folder)), EX_TEMPFAIL)
    except GatewayError as error:
        _say_and_exit(explain(error), 1)


def _say_and_exit(message: str, status: int) -> NoReturn:
    typer.echo(visible(message), err=True)
    raise typer.Exit(status) from None


def find_user(connection: Connection, who: str) -> UserRecord:
    """By e-mail address or number; ends the command when there is none."""
    # Eighteen digits are within what a column holds.
    by_number = who.isascii() and who.isdigit() and len(who) <= 18
    found = user_by_id(connection, int(who)) if by_number else find_user_by_email(connection, arguments.searched(who))
    return found or text.fail("no_user", user=who)


def _login_name() -> str:
    # Of the process, not of the environment, in which anybody may call himself anything.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"
