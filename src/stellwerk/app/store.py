"""The data folder of a gateway that serves."""

from contextlib import ExitStack
from pathlib import Path

from stellwerk.auth.admin import ensure_admin_key
from stellwerk.auth.keys import has_keys
from stellwerk.auth.tokens import SEAL_LABEL, derive_secret, load_pepper, make_digest
from stellwerk.core.clock import SystemClock
from stellwerk.core.secrets import Secret
from stellwerk.storage.database import Database, open_database
from stellwerk.storage.folder import FolderLock, prepare_folder
from stellwerk.storage.sealing import Seal


class Store:
    """The data folder while the gateway owns it: database, pepper and the first admin key."""

    def __init__(self, data: Path, *, keep_admin_key_in: Path | None, admin_key: Secret | None) -> None:
        """Raises StorageRefused with a sentence for the operator, Unavailable and OSError."""
        prepare_folder(data)
        with ExitStack() as stack:
            lock = stack.enter_context(FolderLock(data))
            self.database: Database = open_database(data, lock=lock)
            stack.callback(self.database.close)
            known = self.database.read(has_keys)
            pepper = load_pepper(data, has_keys=known)
            self.digest = make_digest(pepper)
            self.login_secret = derive_secret(pepper, "logins")
            """Signs access and refresh tokens."""
            self.seal = Seal(derive_secret(pepper, SEAL_LABEL))
            """Closes what lies in the database and has to be read again."""
            self.new_admin_key: Secret | None = None
            if admin_key is None:
                self.new_admin_key = ensure_admin_key(
                    self.database, self.digest, SystemClock(), keep_in=keep_admin_key_in
                )
            self._held = stack.pop_all()

    def close(self) -> None:
        self._held.close()
