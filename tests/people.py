"""People of every kind in a gateway's data folder, with keys and logins, made as the product itself makes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stellwerk.api.admin import actions
from stellwerk.auth import logins, signups
from stellwerk.auth.access_tokens import TokenMint
from stellwerk.auth.keys import NewKey
from stellwerk.auth.passwords import hash_password
from stellwerk.auth.tokens import derive_secret, load_pepper, make_digest
from stellwerk.auth.users import NewUser, UserChanges
from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import Role, Tier
from stellwerk.core.secrets import Secret
from stellwerk.records.audit import Actor
from stellwerk.storage.database import open_database

CURRENCY = "EUR"
UNIT = 1_000_000
"""Micro units of one unit of currency."""
TEST = Actor(name="cli:test")


class ShiftedClock(SystemClock):
    """The system's clock, `seconds` off."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return super().now() + self._seconds


@dataclass(frozen=True)
class Key:
    id: str
    token: str


@dataclass(frozen=True)
class Login:
    id: str
    access: str
    refresh: str


class People:
    """Works beside a running gateway, or before it is started for what it shall know from its first moment."""

    def __init__(self, data: Path) -> None:
        self.database = open_database(data)
        pepper = load_pepper(data, has_keys=False)
        self.digest = make_digest(pepper)
        self.secret = derive_secret(pepper, "logins")
        """Signs the tokens of logins."""
        self.mint = TokenMint(self.secret, SystemClock())

    @property
    def now(self) -> float:
        return SystemClock().now()

    def close(self) -> None:
        self.database.close()

    # --- users

    def user(
        self,
        email: str,
        *,
        role: Role = Role.USER,
        tier: Tier = Tier.PAYG,
        balance: int = 0,
        password: str | None = None,
        **fields: Any,
    ) -> int:
        """The number of a new user; `balance` in units of currency."""
        new = NewUser(email=email, role=role, tier=tier, **fields)
        encoded = None if password is None else hash_password(Secret(password))

        def make(connection: Any) -> int:
            user = actions.create_user(connection, TEST, new, now=self.now, password=encoded)
            if balance:
                actions.top_up(
                    connection, TEST, user.id, balance * UNIT, note=f"of {email}", now=self.now, currency=CURRENCY
                )
            return user.id

        return self.database.write(make)

    def change(self, user_id: int, **changes: Any) -> None:
        self.database.write(
            lambda connection: actions.change_user(connection, TEST, user_id, UserChanges(**changes), now=self.now)
        )

    # --- keys

    def key(self, user_id: int | None, role: Role = Role.USER, *, name: str = "test", **fields: Any) -> Key:
        new = NewKey(name=name, user_id=user_id, role=role, **fields)
        record, token = self.database.write(
            lambda connection: actions.create_key(connection, TEST, new, self.digest, now=self.now)
        )
        return Key(record.id, token.reveal())

    def revoked_key(self, user_id: int) -> Key:
        key = self.key(user_id)
        self.database.write(lambda connection: actions.revoke_key(connection, TEST, key.id, now=self.now))
        return key

    def expired_key(self, user_id: int) -> Key:
        return self.key(user_id, expires_at=self.now - 1)

    # --- logins

    def login(self, user_id: int) -> Login:
        """Somebody who has just logged in."""
        login = self.database.write(lambda connection: logins.start_login(connection, user_id, now=self.now))
        return Login(
            login.id,
            self.mint.issue_access(user_id, login.id),
            self.mint.issue_refresh(user_id, login.id, login.generation, login.expires_at),
        )

    def ended_login(self, user_id: int) -> Login:
        login = self.login(user_id)
        self.database.write(lambda connection: logins.end_login(connection, login.id, "logout", self.now))
        return login

    def expired_access(self, user_id: int) -> str:
        """An access token of a login that goes on, an hour and more after its end."""
        return TokenMint(self.secret, ShiftedClock(-7200.0)).issue_access(user_id, self.login(user_id).id)

    # --- strangers

    def signup(self, email: str) -> int:
        """The number of a request that waits for a decision."""

        def ask(connection: Any) -> int:
            signups.ask(connection, email, Tier.PAYG, None, now=self.now)
            return signups.list_signups(connection)[0].id

        return self.database.write(ask)
