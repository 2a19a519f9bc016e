"""Which key belongs to whom, in memory: one HMAC and one dictionary look-up a request, however many keys there are."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from stellwerk.auth.keys import KeyRecord
from stellwerk.auth.tokens import LONGEST_TOKEN, Digest, check_chosen_key, is_well_formed
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unauthenticated, Unavailable
from stellwerk.core.principal import Principal, Role
from stellwerk.core.secrets import Secret

LoadChanges = Callable[[int], Awaitable[Sequence[KeyRecord]]]
"""From the last revision seen to the records that are newer, in order. Raises Unavailable."""

ENVIRONMENT_KEY_ID = "environment"

_REFRESH_GAP = 0.1


class _Entry(msgspec.Struct, frozen=True):
    principal: Principal
    good_until: float
    """Unix seconds; minus infinity once revoked."""


class KeyRing:
    """Knows every key of the database, and the admin key from the environment, which is never stored.

    A digest is looked up in a dictionary, which is no timing leak: who does not have the pepper cannot choose one.
    """

    def __init__(self, load: LoadChanges, digest: Digest, clock: Clock, *, admin_key: Secret | None = None) -> None:
        """Empty until the first `refresh`. Raises WeakKey for an `admin_key` that can be guessed."""
        self._load = load
        self._digest = digest
        self._clock = clock
        self._now = clock.now
        self._entries: dict[bytes, _Entry] = {}
        self._revision = 0
        self._reading = asyncio.Lock()
        self._refreshed_at = -math.inf
        self._next_refresh: asyncio.Task[None] | None = None
        if admin_key:
            check_chosen_key(admin_key)
            admin = Principal(key_id=ENVIRONMENT_KEY_ID, name="admin", role=Role.ADMIN)
            self._entries[digest(admin_key.reveal().encode())] = _Entry(admin, math.inf)

    def __len__(self) -> int:
        return len(self._entries)

    def authenticate(self, token: bytes | str) -> Principal:
        """Who shows this key. Raises Unauthenticated: `invalid_api_key`, `expired_api_key` or `revoked_api_key`."""
        if len(token) > LONGEST_TOKEN:
            raise _unknown()
        if isinstance(token, str):
            token = token.encode("utf-8", "surrogatepass")
        entry = self._entries.get(self._digest(token))
        if entry is None:
            raise _unknown()
        if entry.good_until <= self._now():
            raise _ended(entry)
        return entry.principal

    async def authenticate_or_refresh(self, token: bytes | str) -> Principal:
        """`authenticate`, but a key that is not known is first looked for in the database.

        However many unknown keys are shown, the database is asked ten times a second at most. Raises Unavailable too.
        """
        try:
            return self.authenticate(token)
        except Unauthenticated as error:
            raw = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
            if error.code != "invalid_api_key" or not is_well_formed(raw):
                raise
        await self._refresh_soon()
        return self.authenticate(token)

    async def refresh(self) -> None:
        """Takes over what other processes changed since the last time. Raises Unavailable; the keys known stay."""
        async with self._reading:
            await self._read_changes()

    async def watch(self, interval: float = 1.0) -> None:
        """Refreshes every `interval` seconds until it is cancelled."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.refresh()
            except Unavailable:
                # Readiness reports the storage; keys that are known go on working.
                continue

    async def _read_changes(self) -> None:
        self._refreshed_at = self._clock.monotonic()
        for record in await self._load(self._revision):
            self._entries[record.digest] = _entry(record)
            self._revision = record.revision

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


def _entry(record: KeyRecord) -> _Entry:
    principal = Principal(
        key_id=record.id,
        name=record.name,
        role=record.role,
        models=record.models,
        requests_per_minute=record.requests_per_minute,
        concurrent_requests=record.concurrent_requests,
    )
    if record.revoked_at is not None:
        return _Entry(principal, -math.inf)
    return _Entry(principal, math.inf if record.expires_at is None else record.expires_at)


def _unknown() -> Unauthenticated:
    return Unauthenticated("The API key is not known to this gateway.", code="invalid_api_key")


def _ended(entry: _Entry) -> Unauthenticated:
    if entry.good_until == -math.inf:
        return Unauthenticated("The API key has been revoked.", code="revoked_api_key")
    return Unauthenticated("The API key has expired.", code="expired_api_key")
