"""What a fresh data folder needs before anybody can come in: the built-in accounts and the first admin key."""

from pathlib import Path

from sqlalchemy import Connection

from stellwerk.auth.keys import NewKey, create_key, has_keys
from stellwerk.auth.tokens import Digest
from stellwerk.auth.users import built_in_user
from stellwerk.core.clock import Clock
from stellwerk.core.principal import Role
from stellwerk.core.secrets import Secret
from stellwerk.storage.database import Database
from stellwerk.storage.folder import write_private_file

ADMIN_KEY_FILE = "admin.key"


def ensure_built_in_users(connection: Connection, now: float) -> None:
    """Makes the accounts `admin` and `local` where they are missing; the key of the environment needs the first."""
    built_in_user(connection, "admin", now=now)
    built_in_user(connection, "local", now=now)


def ensure_admin_key(database: Database, digest: Digest, clock: Clock, *, keep_in: Path | None = None) -> Secret | None:
    """Makes the first admin key and returns its text, for the caller to show once; None when there has been one.

    `keep_in` is a file for whoever cannot be shown anything: it is written before the key counts, for its owner only.
    An admin key that was revoked is not replaced. Raises Unavailable, and OSError when the file cannot be written.
    """

    def make(connection: Connection) -> Secret | None:
        if has_keys(connection, Role.ADMIN):
            return None
        _, token = create_key(connection, NewKey(name="admin", role=Role.ADMIN), digest, now=clock.now())
        if keep_in is not None:
            write_private_file(keep_in, token.reveal().encode() + b"\n")
        return token

    return database.write(make)
