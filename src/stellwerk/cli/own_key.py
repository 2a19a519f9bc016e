"""A key of one's own for the gateway on this machine: who may write the data folder may have one anyway."""

import contextlib
from pathlib import Path

from stellwerk.auth.keys import NewKey, create_key, has_keys
from stellwerk.auth.tokens import load_pepper, make_digest
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import GatewayError
from stellwerk.core.secrets import Secret
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.failures import StorageRefused
from stellwerk.storage.folder import write_private_file

CHAT_KEY_FILE = "chat.key"


def make_own_key(folder: Path, name: str) -> Secret | None:
    """Makes a user's key called `name` and keeps it in `<folder>/chat.key`, 0600.

    None where there is no gateway's data folder, or nothing can be written.
    """
    if not (folder / FILE_NAME).is_file():
        return None
    try:
        with contextlib.closing(open_database(folder)) as database:
            digest = make_digest(load_pepper(folder, has_keys=database.read(has_keys)))
            clock = SystemClock()
            _, token = database.write(
                lambda connection: create_key(connection, NewKey(name=name), digest, now=clock.now())
            )
        write_private_file(folder / CHAT_KEY_FILE, token.reveal().encode() + b"\n")
    except (StorageRefused, GatewayError, OSError):
        return None
    return token
