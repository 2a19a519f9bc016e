"""Looks every minute whether another local model should be in memory, and acts when it is allowed to."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from stellwerk.app.people import People
from stellwerk.config.settings import Config
from stellwerk.core.errors import GatewayError, Unavailable
from stellwerk.engines.slots import Slots
from stellwerk.ledger.reports import requests_by_target
from stellwerk.routing.auto_switch import Loaded, Recommendation, SwitchRules, Use, recommend

_LOOK_SECONDS = 60.0
_LOAD_SECONDS = 600.0
_PROVIDER = "local"
_log = logging.getLogger("stellwerk.app")


class AutoSwitch:
    """Owns the last recommendation and when it was acted on last."""

    def __init__(self, people: People, engines: Slots, config: Callable[[], Config]) -> None:
        """`config` is asked anew at every look."""
        self._people = people
        self._engines = engines
        self._config = config
        self._last_switch: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Unavailable:
                # Readiness reports the storage; without its records there is nothing to decide.
                continue

    async def look(self) -> Recommendation:
        """One look, and the switch when nothing stands against it. Raises Unavailable without the storage."""
        found = await self.advise()
        if found.act and found.model is not None:
            await self._switch(found)
        return found

    async def advise(self) -> Recommendation:
        """What should be in memory now; changes nothing. Raises Unavailable without the storage."""
        rules = self._rules()
        now = self._people.clock.now()
        counts = await self._people.fetch(
            partial(requests_by_target, since=now - rules.window_seconds, provider=_PROVIDER)
        )
        known = {model.name for model in self._engines.models()}
        status = self._engines.status()
        loaded = [
            Loaded(model=slot.model, busy=slot.leases > 0, pinned=slot.pinned)
            for slot in status
            if slot.model is not None
        ]
        return recommend(
            [Use(model=model, requests=count) for model, count in counts.items() if model in known],
            loaded,
            free_places=sum(slot.state == "empty" for slot in status),
            now=now,
            last_switch=self._last_switch,
            rules=rules,
        )

    async def _switch(self, found: Recommendation) -> None:
        assert found.model is not None
        self._last_switch = self._people.clock.now()
        _log.info("switching to the local model %s: %s", found.model, " ".join(found.reasons))
        try:
            if found.replaces is not None:
                await self._engines.unload(model=found.replaces)
            await self._engines.load(found.model, wait_until=self._people.clock.monotonic() + _LOAD_SECONDS)
        except GatewayError as error:
            _log.warning("the local model %s could not be loaded: %s", found.model, error.message)

    def _rules(self) -> SwitchRules:
        settings = self._config().auto_switch
        return SwitchRules(
            enabled=settings.enabled,
            window_seconds=settings.pattern_window_days * 86_400,
            min_requests=settings.min_requests_for_switch,
            share=settings.share,
            cooldown_seconds=settings.cooldown_minutes * 60,
        )
