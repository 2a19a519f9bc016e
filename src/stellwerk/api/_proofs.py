"""Whether somebody knows a user's password, and nothing more for those who guess.

An unknown address, a wrong password and a disabled user get the same answer after the same work, and each attempt
counts before its password is looked at.
"""

from typing import Protocol

import msgspec
from sqlalchemy import Connection

from stellwerk.api._transactions import RunInTransaction
from stellwerk.auth.tokens import Digest
from stellwerk.auth.users import UserRecord, read_password
from stellwerk.core.clock import Clock
from stellwerk.core.errors import RateLimited
from stellwerk.core.secrets import Secret
from stellwerk.http.peer import peer_network
from stellwerk.limits.attempts import Rule, try_all, wait_of
from stellwerk.records import audit
from stellwerk.records.audit import Actor


class PasswordWork(Protocol):
    """Slow hashing, somewhere else than on the event loop."""

    def check_free(self) -> None:
        """Raises Unavailable when the next password would be refused."""

    async def hash(self, password: Secret) -> str: ...

    async def verify(self, encoded: str | None, password: Secret) -> bool: ...


class AttemptSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts in any `seconds`, good ones included but for those of one account from one peer."""

    seconds: float = 900.0
    per_account_and_peer: int = 5
    per_peer: int = 20
    per_account: int = 30


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A user who has shown the right password."""

    user: UserRecord
    encoded: str
    subject: str
    """Of the attempts that are forgotten once the proof has been used."""


class Proofs:
    def __init__(
        self,
        *,
        run: RunInTransaction,
        fetch: RunInTransaction,
        passwords: PasswordWork,
        digest: Digest,
        clock: Clock,
        settings: AttemptSettings,
    ) -> None:
        self._run = run
        self._fetch = fetch
        self._passwords = passwords
        self._digest = digest
        self._clock = clock
        self._settings = settings

    async def prove(self, email: str, password: Secret, peer: str) -> Proof | None:
        """None for a wrong password, an unknown address and a disabled user alike. Raises RateLimited, Unavailable.

        A proof is good for the moment: who acts on it asks `is_still_good` in the same transaction.
        """
        # A full queue must cost nobody an attempt.
        self._passwords.check_free()
        rules = self._rules(email, peer)
        now = self._clock.now()
        # Recorded before the password is looked at: of many guesses at once no more get through than of slow ones.
        wait = await self._run(lambda connection: try_all(connection, rules, now=now))
        if wait > 0:
            raise RateLimited("Too many attempts to log in.", code="too_many_attempts", retry_after=wait)
        known = await self._fetch(lambda connection: read_password(connection, email))
        user, encoded = known or (None, None)
        right = await self._passwords.verify(encoded, password)
        if right and user is not None and encoded is not None and user.active:
            return Proof(user=user, encoded=encoded, subject=rules[0].subject)
        await self._run(lambda connection: self._record_failure(connection, rules, user, peer))
        return None

    def _rules(self, email: str, peer: str) -> tuple[Rule, ...]:
        """Of account and peer together, of the peer, of the account.

        A name is kept as a digest only: people type their password into the wrong field.
        """
        settings = self._settings
        account = self._digest(f"login:{email}".encode("utf-8", "surrogatepass")).hex()[:32]
        source = peer_network(peer) or "local"
        return (
            Rule(f"login:both:{account}:{source}", settings.per_account_and_peer, settings.seconds),
            Rule(f"login:peer:{source}", settings.per_peer, settings.seconds),
            Rule(f"login:account:{account}", settings.per_account, settings.seconds),
        )

    def _record_failure(
        self, connection: Connection, rules: tuple[Rule, ...], user: UserRecord | None, peer: str
    ) -> None:
        """Leaves a record when this was the last attempt for now; what is refused from here on leaves none."""
        now = self._clock.now()
        wait = wait_of(connection, rules, now)
        if wait > 0:
            subject = f"user:{user.id}" if user is not None else f"peer:{peer}"
            audit.append(connection, ourselves(peer), "login.locked", subject, {"seconds": round(wait)}, now=now)


def is_still_good(connection: Connection, proof: Proof) -> bool:
    """False when the user was disabled or got another password while this one was being checked."""
    known = read_password(connection, proof.user.email)
    return known is not None and known[0].id == proof.user.id and known[0].active and known[1] == proof.encoded


def ourselves(peer: str) -> Actor:
    """Who acts when a stranger has knocked: the gateway itself."""
    return Actor(name="stellwerk", peer=peer)
