"""Everything about people and money in one gateway, kept in step with the database."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

import msgspec
from sqlalchemy import Connection

from stellwerk.app import settings as cut
from stellwerk.app.store import Store
from stellwerk.auth.access_tokens import TokenMint
from stellwerk.auth.admin import ensure_built_in_users
from stellwerk.auth.logins import delete_old
from stellwerk.auth.passwords import Passwords
from stellwerk.auth.ring import KeyRing, load_changes
from stellwerk.config.settings import Config
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.core.plan import Price
from stellwerk.core.principal import Principal
from stellwerk.core.secrets import Secret
from stellwerk.ledger.accounts import ensure_currency
from stellwerk.ledger.charges import Charges
from stellwerk.ledger.reports import recent_calls
from stellwerk.ledger.tariff import PriceRow, Tariff, list_prices, newest_price
from stellwerk.limits.admit import Limits, PastCall
from stellwerk.limits.attempts import prune
from stellwerk.records.settings import Value, read_settings
from stellwerk.storage.writer import Writer

_FOLLOW_SECONDS = 1.0
_HOUSEKEEPING_SECONDS = 3600.0
_SEEDED_SECONDS = 60.0
_log = logging.getLogger("stellwerk.app")

Result = TypeVar("Result")


class People:
    """Keys, logins, limits, tariff and balances: made of the config and of what admins changed since."""

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        writer: Writer,
        clock: Clock,
        admin_key: Secret | None,
        prices_changed: Callable[[], None],
        access_changed: Callable[[Callable[[Principal], bool]], None],
    ) -> None:
        """`prices_changed` is called whenever models may cost something else than before, `access_changed` whenever
        somebody may have lost what lets his running calls go on."""
        self._config = config
        self._database = store.database
        self._writer = writer
        self.clock = clock
        self._prices_changed = prices_changed
        self._access_changed = access_changed
        self._changed: Mapping[str, Value] = {}
        self._newest_price = -1
        self._priced_until: float | None = None
        self._rows: Sequence[PriceRow] = ()
        self.digest = store.digest
        self.mint = TokenMint(store.login_secret, clock)
        self.passwords = Passwords()
        self.keys = KeyRing(
            lambda since: self.fetch(lambda connection: load_changes(connection, since)),
            store.digest,
            clock,
            admin_key=admin_key,
            verify_login=self.mint.verify_access,
        )
        self.limits = Limits(cut.limit_settings(config, {}), clock)
        self.charges = Charges(run=self.run, submit=self.submit, clock=clock, settings=cut.charge_settings(config))
        self.tariff = Tariff(cut.tariff_settings(config, {}))

    # --- the database

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        """Writes; returns after the commit."""
        return await self._writer.run(work)

    def submit(self, work: Callable[[Connection], Result]) -> Future[Result]:
        return self._writer.submit(work)

    async def fetch(self, query: Callable[[Connection], Result]) -> Result:
        """Reads."""
        return await self._database.fetch(query)

    # --- running

    async def start(self) -> None:
        """Takes everything over from the database, and closes what a gateway that was killed left open."""
        now = self.clock.now()
        await self.run(lambda connection: self._prepare(connection, now))
        closed = await self.charges.recover()
        if closed:
            _log.warning("%d calls were cut off when the gateway ended; their prompts have been charged", len(closed))
        await self.refresh()
        past = await self.fetch(lambda connection: recent_calls(connection, now - _SEEDED_SECONDS))
        self.limits.seed(PastCall(**msgspec.structs.asdict(call)) for call in past)

    def _prepare(self, connection: Connection, now: float) -> None:
        ensure_built_in_users(connection, now)
        ensure_currency(connection, self._config.money.currency)

    async def refresh(self) -> None:
        """Takes over what was changed, by whomever. Raises Unavailable; what is known stays."""
        if await self.keys.refresh():
            self._access_changed(self.keys.may_go_on)
        await self._take_changes()

    async def follow(self) -> None:
        """Takes over what other processes change, and prices on the day from which they count, until cancelled."""
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                await self.refresh()
            except Unavailable:
                # Readiness reports the storage; what is known goes on counting.
                continue

    async def keep_house(self) -> None:
        """Deletes what nobody needs any more, until cancelled."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                await self.run(self._delete_old)
            except Unavailable:
                continue

    def _delete_old(self, connection: Connection) -> None:
        now = self.clock.now()
        delete_old(connection, now)
        prune(connection, now)

    async def stop(self) -> None:
        """Before the writer is closed."""
        await self.charges.stop()
        self.passwords.close()

    # --- what counts now

    async def _take_changes(self) -> None:
        changed, rows = await self.fetch(self._read_changes)
        self._take(changed, rows)

    def _read_changes(self, connection: Connection) -> tuple[Mapping[str, Value], Sequence[PriceRow] | None]:
        """The changed settings, and the price rows when there are new ones."""
        rows = None if newest_price(connection) == self._newest_price else list_prices(connection)
        return read_settings(connection), rows

    def _take(self, changed: Mapping[str, Value], rows: Sequence[PriceRow] | None) -> None:
        if rows is not None:
            self._rows = rows
            self._newest_price = max((row.id for row in rows), default=0)
        if rows is not None or changed != self._changed:
            self._changed = changed
            self._apply()
        elif self._priced_until is not None and self.clock.now() >= self._priced_until:
            self._republish()

    def change(self, config: Config) -> None:
        """Takes over a changed config."""
        self._config = config
        self._apply()

    def _apply(self) -> None:
        self.limits.replace(cut.limit_settings(self._config, self._changed))
        self.charges.settings = cut.charge_settings(self._config)
        self.tariff = Tariff(cut.tariff_settings(self._config, self._changed))
        self.tariff.take(self._rows)
        self._republish()

    def _republish(self) -> None:
        self._priced_until = self.tariff.next_change(self.clock.now())
        self._prices_changed()

    def trusted_peer(self) -> Principal:
        """Who a peer is that needs no key."""
        return self.keys.trusted_peer()

    def is_local(self, user_id: int) -> bool:
        """Whether it is the account of the tools on this machine."""
        return user_id == self.keys.local_user_id

    @property
    def signup_enabled(self) -> bool:
        return bool(self._changed.get("signup.enabled", self._config.signup.enabled))

    def price(self, provider: str, model: str, published: Price | None) -> Price | None:
        """What a model costs now, in the ledger's currency."""
        return self.tariff.price((f"{provider}/{model}", model), published, self.clock.now())
