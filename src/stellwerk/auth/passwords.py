"""Passwords: argon2id, slow and memory-hungry by design, so never more than a few at once."""

import asyncio
import re
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.core.secrets import Secret

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256

_MEMORY_KIB = 65_536
_PASSES = 3
_LANES = 1
# No password has this hash: it is verified where there is none, at the same cost as a real one.
_NOBODYS = f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${'A' * 22}${'A' * 43}"

_KNOWN_WORDS = re.compile(
    r"password|passwort|passwd|kennwort|geheim|secret|admin|root|login|welcome|willkommen|hallo|hello|letmein|iloveyou"
    r"|qwertzuiop|qwertyuiop|qwertz|qwerty|asdfghjkl|asdfgh|asdf|yxcvbnm|zxcvbnm|abcdefghi|abcdef|abcd|abc|stellwerk"
    r"|gateway|changeme|default|master|monkey|dragon|football|1234567890|0987654321|123456789|12345678|1234567|123456"
    r"|12345|1234|123|test"
)
_DISGUISES = str.maketrans("@$0!€", "asoie")
_REPEATED = re.compile(r"(.{1,8}?)\1+.{0,3}", re.DOTALL)
_LEAST_UNKNOWN = 5
"""Different characters that a password must have beside the words that everybody tries first."""

_Result = TypeVar("_Result")


class PasswordSettings(msgspec.Struct, frozen=True, kw_only=True):
    at_once: int = 2
    """Each takes 64 MiB and a fifth of a second of one core."""
    waiting: int = 20


def hash_password(password: Secret) -> str:
    """The text to store; the same password gives another one each time."""
    from argon2 import PasswordHasher  # noqa: PLC0415  # 5 ms that only passwords need

    hasher = PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES)
    return hasher.hash(_bytes(password))


def verify_password(encoded: str | None, password: Secret) -> bool:
    """Whether `password` is the one that was stored as `encoded`; None, nobody's, takes just as long."""
    from argon2 import PasswordHasher  # noqa: PLC0415  # 5 ms that only passwords need
    from argon2.exceptions import VerificationError  # noqa: PLC0415

    try:
        return PasswordHasher().verify(_NOBODYS if encoded is None else encoded, _bytes(password))
    except (VerificationError, ValueError):
        # ValueError: what is stored is no hash at all, so there is none that the password could fit.
        return False


def check_new_password(password: Secret, email: str, *, param: str = "password") -> None:
    """Raises BadRequest, code `weak_password`; `param` is the name of the field, and the password is never repeated."""
    text = password.reveal()
    if not SHORTEST_PASSWORD <= len(text) <= LONGEST_PASSWORD:
        message = f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters."
        raise BadRequest(message, code="weak_password", param=param)
    if _is_trivial(text.lower(), email.lower()):
        message = "This password is easy to guess. Use several words that do not belong together, or a random one."
        raise BadRequest(message, code="weak_password", param=param)


class Passwords:
    """Hashes and verifies in threads of its own. Whoever comes while too many wait is refused at once."""

    def __init__(
        self,
        settings: PasswordSettings | None = None,
        *,
        hash_one: Callable[[Secret], str] = hash_password,
        verify_one: Callable[[str | None, Secret], bool] = verify_password,
    ) -> None:
        """Starts no thread before the first password comes."""
        self._settings = settings or PasswordSettings()
        self._hash_one = hash_one
        self._verify_one = verify_one
        self._pool = ThreadPoolExecutor(self._settings.at_once, thread_name_prefix="passwords")
        self._taken = 0
        self._lock = threading.Lock()

    def check_free(self) -> None:
        """Raises Unavailable when the next password would be refused."""
        if self._taken >= self._settings.at_once + self._settings.waiting:
            raise Unavailable("Too many passwords are being checked at the moment.", retry_after=2.0)

    async def hash(self, password: Secret) -> str:
        """`hash_password`. Raises Unavailable, code `overloaded`."""
        return await self._run(lambda: self._hash_one(password))

    async def verify(self, encoded: str | None, password: Secret) -> bool:
        """`verify_password`. Raises Unavailable, code `overloaded`."""
        return await self._run(lambda: self._verify_one(encoded, password))

    def close(self) -> None:
        """Lets those that run finish; those that wait are cancelled."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        self.check_free()
        with self._lock:
            self._taken += 1
        future = self._pool.submit(work)
        # Counted until the thread is done with it: a client that leaves does not stop a hash that has begun.
        future.add_done_callback(self._give_back)
        return await asyncio.wrap_future(future)

    def _give_back(self, _: object) -> None:
        with self._lock:
            self._taken -= 1


def _bytes(password: Secret) -> bytes:
    # The same characters may come composed or not, depending on the keyboard and the system.
    return unicodedata.normalize("NFKC", password.reveal()).encode("utf-8", "surrogatepass")


def _is_trivial(text: str, email: str) -> bool:
    if _REPEATED.fullmatch(text) is not None:
        return True
    own = [part for part in (email, *re.split(r"[@.+_-]", email)) if len(part) >= 3]
    return any(_unknown(form, own) < _LEAST_UNKNOWN for form in (text, text.translate(_DISGUISES)))


def _unknown(text: str, own: list[str]) -> int:
    """How many different characters are left without the words that an attacker tries first."""
    for word in own:
        text = text.replace(word, "")
    return len(set(_KNOWN_WORDS.sub("", text)) - {" "})
