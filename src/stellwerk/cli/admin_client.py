"""A client of the running gateway's administration: who may write the data folder may administer its gateway anyway."""

import contextlib
import secrets
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from stellwerk.auth.access_tokens import TokenMint
from stellwerk.auth.admin import ADMIN_KEY_FILE
from stellwerk.auth.keys import has_keys
from stellwerk.auth.tokens import derive_secret, load_pepper
from stellwerk.auth.users import find_user_by_email
from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import GatewayError
from stellwerk.core.secrets import Secret
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.failures import StorageRefused

_SILENCE_SECONDS = 660.0
"""More than the gateway lets anybody wait for a load."""
_FRESH_SECONDS = 300.0
_VARIABLES = ("STELLWERK_ADMIN_KEY", "STELLWERK_API_KEY")


class AdminClient(GatewayClient):
    """Asks with the key that was given; on this machine without one, with a token of minutes from the data folder.

    The token, unlike a key, is worth little to whoever else may listen on the port.
    """

    def __init__(self, url: str, key: str | None, environ: Mapping[str, str], folder: Path) -> None:
        """Raises GatewayTrouble for a URL that is none."""
        super().__init__(url, silence_seconds=_SILENCE_SECONDS)
        self._folder = folder
        given = key or next((found for name in _VARIABLES if (found := environ.get(name))), "")
        self._given = Secret(given.strip()) if given.strip() else None
        self._made_at = float("-inf")

    def _send(self, connection: HTTPConnection, method: str, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        if self._given is not None:
            self.key = self._given
        elif time.monotonic() - self._made_at > _FRESH_SECONDS:
            self.key = self._own_key()
            self._made_at = time.monotonic()
        return super()._send(connection, method, path, body)

    def _own_key(self) -> Secret:
        file = self._folder / ADMIN_KEY_FILE
        found = None
        if self.is_on_this_machine:
            found = mint_token(self._folder) or _read(file)
        if found is None:
            raise GatewayTrouble("chat.no_key", file=file)
        return found


def mint_token(folder: Path) -> Secret | None:
    """An access token of the built-in account `admin`; None where there is no gateway's data folder."""
    if not (folder / FILE_NAME).is_file():
        return None
    try:
        with contextlib.closing(open_database(folder)) as database:
            user = database.read(lambda connection: find_user_by_email(connection, "admin"))
            pepper = load_pepper(folder, has_keys=database.read(has_keys))
    except (StorageRefused, GatewayError, OSError):
        return None
    if user is None:
        return None
    mint = TokenMint(derive_secret(pepper, "logins"), SystemClock())
    return Secret(mint.issue_access(user.id, f"cli{secrets.token_hex(6)}"))


def _read(file: Path) -> Secret | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Secret(file.read_text(encoding="ascii").strip()) or None
    return None
