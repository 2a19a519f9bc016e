"""API keys as text: how they look, and the digest that is stored in their place.

A key is `sk-sw-<10 characters id>-<43 characters secret>`. Of the key itself only an HMAC is kept, made with a pepper
that lies outside the database: a copy of the database alone neither opens the gateway nor helps to guess a key.
"""

import base64
import hmac
import re
import secrets
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from stellwerk.core.secrets import Secret
from stellwerk.storage.failures import StorageRefused
from stellwerk.storage.folder import write_private_file

PREFIX = "sk-sw-"
SEAL_LABEL = "seal"
"""For `derive_secret`: the secret that seals what lies in the database."""
LONGEST_TOKEN = 512
"""Characters; a longer one is refused unread."""

Digest = Callable[[bytes], bytes]

_PEPPER_BYTES = 32
_SHAPE = re.compile(rb"sk-sw-[a-z2-7]{10}-[A-Za-z0-9_-]{43}")
_KNOWN_WORDS = re.compile(
    r"sk|abcdefgh|abcdef|abcd|1234567890|0123456789|123456|12345|1234|admin|change|me|test|password|secret|default|key"
)
_LEAST_UNKNOWN = 4
"""Letters and digits that a chosen key must have beside the words that everybody tries first."""
_REPEATED = re.compile(r"(.{1,8})\1+")
_LEAST_CHARACTERS = 16
"""Of a key that we did not make."""
_FOREIGN = "0"
"""Begins the id of a key that we did not make; none of our own ids has that character."""


class WeakKey(ValueError):
    """A key that the operator chose can be guessed; the message says why and never repeats the key."""


def new_token() -> tuple[str, Secret]:
    """A new key's id and its text."""
    key_id = _random_id()
    return key_id, Secret(f"{PREFIX}{key_id}-{secrets.token_urlsafe(32)}")


def new_foreign_id() -> str:
    """An id for a key whose text was made elsewhere."""
    return _FOREIGN + _random_id()[1:]


def is_foreign_id(key_id: str) -> bool:
    """Whether the text of that key was made elsewhere: then it neither begins with the prefix nor holds the id."""
    return key_id.startswith(_FOREIGN)


def _random_id() -> str:
    return base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]


def is_well_formed(token: bytes) -> bool:
    """Whether this could be a key that we made."""
    return _SHAPE.fullmatch(token) is not None


def derive_secret(pepper: Secret, label: str) -> bytes:
    """32 bytes for one purpose: who learns them learns neither the pepper nor the bytes under another label."""
    # HKDF (RFC 5869) without a salt and with one block.
    extracted = hmac.digest(bytes(32), bytes.fromhex(pepper.reveal()), "sha256")
    return hmac.digest(extracted, label.encode() + b"\x01", "sha256")


def make_digest(pepper: Secret) -> Digest:
    """The function from a key's text to the 32 bytes that are stored: HMAC-SHA256 under a key of its own."""
    keyed = hmac.new(derive_secret(pepper, "api-keys"), digestmod="sha256")

    def digest(token: bytes) -> bytes:
        # A copy of the keyed state costs half of keying it anew, on every request.
        state = keyed.copy()
        state.update(token)
        return state.digest()

    return digest


def load_pepper(folder: Path, *, has_keys: bool) -> Secret:
    """Reads `<folder>/secrets/pepper`, making it at first start; hexadecimal text, for its owner only.

    `has_keys` says that keys are stored already: then a missing pepper is a loss, not a first start, and making a new
    one would silently shut everybody out. Raises StorageRefused.
    """
    path = folder / "secrets" / "pepper"
    try:
        if not path.exists():
            if has_keys:
                raise StorageRefused(
                    f"{path} is missing, and without it no stored API key can be checked. Restore it from a backup."
                )
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_private_file(path, secrets.token_hex(_PEPPER_BYTES).encode() + b"\n", keep_existing=True)
        text = path.read_text("ascii").strip()
        if len(bytes.fromhex(text)) < _PEPPER_BYTES:
            raise ValueError
    except OSError as error:
        raise StorageRefused(f"{path} cannot be read or made: {error.strerror}.") from error
    except ValueError:
        raise StorageRefused(f"{path} is damaged. Restore it from a backup.") from None
    return Secret(text)


class KeyFault(StrEnum):
    """Why a text that was not made by us is not taken as a key."""

    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    UNUSABLE = "unusable"
    GUESSABLE = "guessable"


def find_fault(key: Secret) -> KeyFault | None:
    """What is wrong with a key that somebody else made; None for a good one."""
    text = key.reveal()
    if len(text) < _LEAST_CHARACTERS:
        return KeyFault.TOO_SHORT
    if len(text) > LONGEST_TOKEN:
        return KeyFault.TOO_LONG
    if not all("!" <= character <= "~" for character in text):
        return KeyFault.UNUSABLE
    unknown = [character for character in _KNOWN_WORDS.sub("", text.lower()) if character.isalnum()]
    if _REPEATED.fullmatch(text) is not None or len(unknown) < _LEAST_UNKNOWN:
        return KeyFault.GUESSABLE
    return None


_FAULTS = {
    KeyFault.TOO_SHORT: f"is too short: it needs at least {_LEAST_CHARACTERS} characters.",
    KeyFault.TOO_LONG: f"is too long: at most {LONGEST_TOKEN} characters.",
    KeyFault.UNUSABLE: "may hold only visible ASCII characters, and no space.",
    KeyFault.GUESSABLE: "is easy to guess. Use a random one, for example from `openssl rand -base64 32`.",
}


def check_chosen_key(key: Secret) -> None:
    """Refuses an admin key from the environment that is short, well known or unusable. Raises WeakKey."""
    fault = find_fault(key)
    if fault is not None:
        raise WeakKey(f"STELLWERK_ADMIN_KEY {_FAULTS[fault]}")
