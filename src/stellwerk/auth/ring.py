"""Who shows this key or token, from memory: one HMAC and one dictionary look-up a key, however many there are."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from sqlalchemy import Connection

from stellwerk.auth.access_tokens import LoginClaims
from stellwerk.auth.keys import KeyRecord, changed_keys
from stellwerk.auth.logins import EndedLogin, ended_logins
from stellwerk.auth.principals import (
    LOGIN_PREFIX,
    combine_roles,
    environment_key,
    principal_of_key,
    principal_of_login,
)
from stellwerk.auth.tokens import LONGEST_TOKEN, Digest, check_chosen_key, is_well_formed
from stellwerk.auth.users import UserRecord, changed_users
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Forbidden, Unauthenticated
from stellwerk.core.principal import CALLERS, Principal, Role
from stellwerk.core.secrets import Secret

TRUSTED_KEY_ID = "trusted-peer"
"""In the place of a key's id, of who needs none."""
_REFRESH_GAP = 0.1
_UNKNOWN_KEY = "Invalid API key. This gateway does not know it; 'stellwerk keys create NAME' makes one."
_MOST_LOGINS = 10_000
"""Principals of logins that are kept; another one drops the oldest."""


class Revisions(msgspec.Struct, frozen=True):
    """The last change of each table that has been seen."""

    users: int = 0
    keys: int = 0
    logins: int = 0


class Changes(msgspec.Struct, frozen=True):
    """Everything that changed after some revisions, each in the order of its revisions."""

    users: Sequence[UserRecord] = ()
    keys: Sequence[KeyRecord] = ()
    ended_logins: Sequence[EndedLogin] = ()


LoadChanges = Callable[[Revisions], Awaitable[Changes]]
"""`load_changes` on some connection. Raises Unavailable."""

VerifyLogin = Callable[[str], LoginClaims]
"""What an access token says. Raises Unauthenticated."""


def load_changes(connection: Connection, since: Revisions) -> Changes:
    """What changed since, in one consistent view."""
    return Changes(
        users=changed_users(connection, since.users),
        keys=changed_keys(connection, since.keys),
        ended_logins=ended_logins(connection, since.logins),
    )


class _Entry(msgspec.Struct, frozen=True):
    key: KeyRecord
    principal: Principal
    good_until: float
    """Unix seconds; minus infinity once the key is revoked, its user is disabled, or their roles have nothing in
    common."""
    disabled: bool
    """The user is."""


class _Unknown(Unauthenticated):
    """It may be good all the same: another process may have just made the key or the user."""


class KeyRing:
    """Knows every key and user of the database, and the admin key from the environment, which is never stored.

    Principals are shared: the same key gives the same object until something about it or its user changes. A digest
    is looked up in a dictionary, which is no timing leak: who does not have the pepper cannot choose one.
    """

    def __init__(
        self,
        load: LoadChanges,
        digest: Digest,
        clock: Clock,
        *,
        admin_key: Secret | None = None,
        verify_login: VerifyLogin | None = None,
    ) -> None:
        """Empty until the first `refresh`. Raises WeakKey for an `admin_key` that can be guessed.

        `admin_key` belongs to the built-in account `admin` and counts as soon as that is known, also when a key of the
        same text is stored. Without `verify_login` no access token is good.
        """
        self._load = load
        self._digest = digest
        self._clock = clock
        self._now = clock.now
        self._verify_login = verify_login
        self._seen = Revisions()
        self._users: dict[int, UserRecord] = {}
        self._entries: dict[bytes, _Entry] = {}
        self._keys: dict[int, dict[bytes, KeyRecord]] = {}
        """Of each user, by digest."""
        self._trusted: tuple[UserRecord, Principal] | None = None
        self._logins: dict[str, tuple[UserRecord, Principal]] = {}
        self._ended_logins: dict[str, float] = {}
        """Until when somebody may want to act in the name of each."""
        self._reading = asyncio.Lock()
        self._refreshed_at = -math.inf
        self._next_refresh: asyncio.Task[None] | None = None
        self._admin_digest: bytes | None = None
        if admin_key:
            check_chosen_key(admin_key)
            self._admin_digest = digest(admin_key.reveal().encode())

    def __len__(self) -> int:
        """Keys that are known, good or not."""
        return len(self._entries)

    def authenticate(self, token: bytes | str) -> Principal:
        """Who shows this key or access token.

        Raises Unauthenticated: `invalid_api_key`, `expired_api_key` or `revoked_api_key`, for tokens `invalid_token`
        or `expired_token`; and Forbidden, `account_disabled`.
        """
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated(_UNKNOWN_KEY)
        raw = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
        entry = self._entries.get(self._digest(raw))
        if entry is None:
            return self._authenticate_login(raw)
        if entry.good_until <= self._now():
            raise _refusal(entry, self._now())
        return entry.principal

    async def authenticate_or_refresh(self, token: bytes | str) -> Principal:
        """`authenticate`, but whoever is not known is first looked for in the database.

        However many unknown keys are shown, the database is asked ten times a second at most. Raises Unavailable too.
        """
        try:
            return self.authenticate(token)
        except _Unknown:
            await self._refresh_soon()
        return self.authenticate(token)

    async def refresh(self) -> bool:
        """Takes over what other processes changed since the last time, and returns whether there was anything.

        Raises Unavailable; what is known stays.
        """
        async with self._reading:
            seen = self._seen
            await self._read_changes()
            return self._seen != seen

    def may_go_on(self, principal: Principal) -> bool:
        """Whether a call that has begun may still run: neither its key or login nor its user's account was taken away.

        A key that expires in the middle of a call does not end it.
        """
        user = self._users.get(principal.user_id)
        if user is None or not user.active:
            return False
        if principal.key_id == TRUSTED_KEY_ID:
            return True
        if principal.key_id.startswith(LOGIN_PREFIX):
            return principal.key_id.removeprefix(LOGIN_PREFIX) not in self._ended_logins
        keys = self._keys.get(principal.user_id, {}).values()
        return any(
            key.id == principal.key_id and key.revoked_at is None and combine_roles(user.role, key.role) is not None
            for key in keys
        )

    def resolve(self, key_id: str, user_id: int) -> Principal:
        """Who is behind a key or login that was shown earlier, with the rights that it has now.

        For calls that are made when nobody shows it any more. Raises what `authenticate` does, Unauthenticated for
        a key or login that is not there any more, and Forbidden for a role that calls nothing any more.
        """
        principal = self._resolve(key_id, user_id)
        if principal.role not in CALLERS:
            # Nobody asks a route about this: its handler is called for who was let in when the call was put off.
            raise Forbidden(f"The role '{principal.role}' may not do this.")
        return principal

    def _resolve(self, key_id: str, user_id: int) -> Principal:
        if key_id == TRUSTED_KEY_ID:
            return self.trusted_peer()
        user = self._users.get(user_id)
        if user is None:
            raise Unauthenticated("The account is not there any more.")
        if key_id.startswith(LOGIN_PREFIX):
            return self._resolve_login(key_id.removeprefix(LOGIN_PREFIX), user)
        digest = next((digest for digest, key in self._keys.get(user_id, {}).items() if key.id == key_id), None)
        entry = None if digest is None else self._entries.get(digest)
        if entry is None:
            raise Unauthenticated("The API key is not there any more.")
        if entry.good_until <= self._now():
            raise _refusal(entry, self._now())
        return entry.principal

    def _resolve_login(self, login_id: str, user: UserRecord) -> Principal:
        if login_id in self._ended_logins:
            raise Unauthenticated("The login has ended.", code="invalid_token")
        if not user.active:
            raise _disabled()
        return self._login_principal(login_id, user)

    def is_shared(self, user_id: int) -> bool:
        """Whether the account is a built-in one: its keys were made for nobody and are strangers to each other."""
        user = self._users.get(user_id)
        return user is None or user.is_built_in

    def trusted_peer(self) -> Principal:
        """Who somebody is that is let in by his address alone: the built-in account `local`, and never an admin.

        Raises Forbidden when that account is disabled, and Unauthenticated before the first `refresh`.
        """
        user = self._local_user()
        if user is None:
            raise Unauthenticated("The gateway is not ready yet.")
        if not user.active:
            raise _disabled()
        if self._trusted is None or self._trusted[0] is not user:
            principal = msgspec.structs.replace(principal_of_login("", user), key_id=TRUSTED_KEY_ID, role=Role.USER)
            self._trusted = user, principal
        return self._trusted[1]

    @property
    def local_user_id(self) -> int | None:
        """The number of that account, disabled or not; None before the first `refresh`."""
        user = self._local_user()
        return None if user is None else user.id

    def _local_user(self) -> UserRecord | None:
        return next((user for user in self._users.values() if user.email == "local"), None)

    # --- access tokens

    def _authenticate_login(self, token: bytes) -> Principal:
        if self._verify_login is None or token.count(b".") != 2 or not token.isascii():
            raise _Unknown(_UNKNOWN_KEY) if is_well_formed(token) else Unauthenticated(_UNKNOWN_KEY)
        claims = self._verify_login(token.decode("ascii"))
        if claims.login_id in self._ended_logins:
            raise Unauthenticated("Invalid token", code="invalid_token")
        user = self._users.get(claims.user_id)
        if user is None:
            raise _Unknown("Invalid token", code="invalid_token")
        if not user.active:
            raise _disabled()
        return self._login_principal(claims.login_id, user)

    def _login_principal(self, login_id: str, user: UserRecord) -> Principal:
        known = self._logins.get(login_id)
        if known is not None and known[0] is user:
            return known[1]
        principal = principal_of_login(login_id, user)
        if known is None:
            if len(self._logins) >= _MOST_LOGINS:
                del self._logins[next(iter(self._logins))]
        elif known[1] == principal:
            principal = known[1]
        self._logins[login_id] = user, principal
        return principal

    # --- taking over changes

    async def _read_changes(self) -> None:
        self._refreshed_at = self._clock.monotonic()
        changes = await self._load(self._seen)
        keys = [key for key in changes.keys if key.digest != self._admin_digest]
        for user in changes.users:
            self._users[user.id] = user
            if self._admin_digest is not None and user.email == "admin":
                keys.append(environment_key(user.id, self._admin_digest))
        for key in keys:
            self._keys.setdefault(key.user_id, {})[key.digest] = key
        stale = {key.digest: key for key in keys}
        for user in changes.users:
            stale |= self._keys.get(user.id, {})
        for key in stale.values():
            self._enter(key)
        self._take_ended_logins(changes.ended_logins)
        self._seen = Revisions(
            _last(changes.users, self._seen.users),
            _last(changes.keys, self._seen.keys),
            _last(changes.ended_logins, self._seen.logins),
        )

    def _enter(self, key: KeyRecord) -> None:
        user = self._users.get(key.user_id)
        if user is None:
            return
        principal = principal_of_key(key, user)
        known = self._entries.get(key.digest)
        if known is not None and known.principal == principal:
            principal = known.principal
        good_until = math.inf if key.expires_at is None else key.expires_at
        if key.revoked_at is not None or not user.active or combine_roles(user.role, key.role) is None:
            good_until = -math.inf
        self._entries[key.digest] = _Entry(key, principal, good_until, not user.active)

    def _take_ended_logins(self, ended_logins: Sequence[EndedLogin]) -> None:
        for ended in ended_logins:
            self._ended_logins[ended.id] = ended.expires_at
            self._logins.pop(ended.id, None)
        if ended_logins:
            now = self._now()
            self._ended_logins = {login: until for login, until in self._ended_logins.items() if until > now}

    async def _refresh_soon(self) -> None:
        """Waits for a refresh that begins after this call; those who wait share it."""
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh_when_allowed())
        # A client that leaves must not cancel the refresh for the others.
        await asyncio.shield(self._next_refresh)

    async def _refresh_when_allowed(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._refreshed_at + _REFRESH_GAP - self._clock.monotonic()))
            await self._reading.acquire()
        finally:
            # Who comes from here on may show a key that this read does not find.
            self._next_refresh = None
        try:
            await self._read_changes()
        finally:
            self._reading.release()


def _last(records: Sequence[UserRecord] | Sequence[KeyRecord] | Sequence[EndedLogin], seen: int) -> int:
    return records[-1].revision if records else seen


def _refusal(entry: _Entry, now: float) -> Unauthenticated | Forbidden:
    state = entry.key.state(now)
    if state == "revoked":
        return Unauthenticated("The API key has been revoked. Ask for another one.", code="revoked_api_key")
    if state == "expired":
        return Unauthenticated("The API key has expired. Ask for another one.", code="expired_api_key")
    if entry.disabled:
        return _disabled()
    return Forbidden(
        "The API key was made for a role that its user does not have any more. Make a new one.", code="key_role_changed"
    )


def _disabled() -> Forbidden:
    return Forbidden("User account disabled. Ask the operator of this gateway.", code="account_disabled")
