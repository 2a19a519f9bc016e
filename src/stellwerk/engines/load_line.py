"""Who waits for which model to be loaded: one line for all, in the order in which the models were first wanted."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec

from stellwerk.core.call import Place
from stellwerk.core.clock import Clock
from stellwerk.engines.options import EngineOverrides
from stellwerk.engines.slot import Tenant

log = logging.getLogger("stellwerk.engines")


class WaitingLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A model that waits to be loaded, or is being loaded."""

    model: str
    place: int
    """1 is next, or in work."""
    requests: int
    since: float
    """Unix seconds."""


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants beyond the model itself."""

    port: int | None = None
    overrides: EngineOverrides | None = None
    """None takes what is remembered of the model."""
    drain_seconds: float = 30.0
    gentle: bool = False
    """Nobody has to leave for it, unless somebody else wants it too."""


class Wish:
    """One model that is wanted; everybody who wants it waits for the same wish."""

    def __init__(self, model: str, clock: Clock) -> None:
        self.model = model
        self.order: LoadOrder | None = None
        """None as long as only requests want it."""
        self.gentle = True
        """Nobody has to leave for it."""
        self.since = clock.now()
        self.waiters: dict[asyncio.Future[Tenant], Place | None] = {}
        self.started = False
        """Its engine has been started: it is loaded whether or not anybody still waits."""
        self.blocked = False
        """It waits for others to be done with their model."""
        self.work: asyncio.Task[Tenant] | None = None


class LoadLine:
    """The wishes in their order. For the event loop's thread alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wishes: dict[str, Wish] = {}
        self._filled = asyncio.Event()

    def __iter__(self) -> Iterator[Wish]:
        return iter(self._wishes.values())

    def find(self, model: str) -> Wish | None:
        return self._wishes.get(model)

    def requests(self, model: str) -> int:
        """How many wait for `model`."""
        wish = self._wishes.get(model)
        return len(wish.waiters) if wish is not None else 0

    def status(self) -> tuple[WaitingLoad, ...]:
        return tuple(
            WaitingLoad(model=wish.model, place=place, requests=len(wish.waiters), since=wish.since)
            for place, wish in enumerate(self, start=1)
        )

    def tell_places(self) -> None:
        """To everybody who waits."""
        for number, wish in enumerate(self, start=1):
            for place in wish.waiters.values():
                if place is not None:
                    _tell(place, number)

    async def wait(self, model: str, place: Place | None = None, order: LoadOrder | None = None) -> Tenant:
        """Joins the line and returns the loaded model with a booking; raises what the load ends with.

        Who is cancelled leaves no trace, and a model that nobody waits for any more is not loaded.
        """
        wish = self._wishes.get(model)
        if wish is None:
            wish = self._wishes[model] = Wish(model, self._clock)
            self._filled.set()
        if order is None or not order.gentle:
            wish.gentle = False
        if order is not None and (wish.order is None or not order.gentle):
            wish.order = order
        turn: asyncio.Future[Tenant] = asyncio.get_running_loop().create_future()
        wish.waiters[turn] = place
        if place is not None:
            _tell(place, next(number for number, each in enumerate(self, start=1) if each is wish))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().give_up()
            raise
        finally:
            wish.waiters.pop(turn, None)
            # What an operator ordered is loaded whether or not they wait for it.
            if not wish.waiters and not wish.started and wish.order is None:
                self._drop(wish)

    def ordered_at(self, port: int) -> str | None:
        """The model that somebody ordered for `port`."""
        return next((wish.model for wish in self if wish.order is not None and wish.order.port == port), None)

    async def call_off(self, model: str, refusal: Exception) -> None:
        """Ends a wish, also one that is in work; whoever waits for it gets `refusal`. Harmless without one."""
        wish = self._wishes.get(model)
        if wish is None:
            return
        self._refuse(wish, refusal)
        wish.waiters.clear()
        wish.order = None
        self._drop(wish)
        if wish.work is not None:
            await asyncio.wait({wish.work})

    def close(self, refusal: Exception) -> None:
        for wish in list(self):
            self._refuse(wish, refusal)

    async def run(self, load: Callable[[Wish], Coroutine[Any, Any, Tenant]]) -> None:
        """Has one wish after the other fulfilled by `load`, until cancelled."""
        while True:
            wish = next(iter(self), None)
            if wish is None:
                self._filled.clear()
                await self._filled.wait()
                continue
            wish.work = asyncio.create_task(load(wish), name=f"load {wish.model}")
            try:
                await asyncio.wait({wish.work})
            except asyncio.CancelledError:
                wish.work.cancel()
                await asyncio.wait({wish.work})
                raise
            self._settle(wish, wish.work)
            self.tell_places()

    def _settle(self, wish: Wish, work: asyncio.Task[Tenant]) -> None:
        del self._wishes[wish.model]
        if work.cancelled():
            if wish.waiters:
                # They came after it was called off, and begin anew.
                wish.work, wish.started, wish.blocked = None, False, False
                self._wishes[wish.model] = wish
        elif (error := work.exception()) is not None:
            self._refuse(wish, error)
        else:
            for turn in wish.waiters:
                if not turn.done():
                    work.result().book()
                    turn.set_result(work.result())

    def _refuse(self, wish: Wish, error: BaseException) -> None:
        for turn in wish.waiters:
            if not turn.done():
                turn.set_exception(error)

    def _drop(self, wish: Wish) -> None:
        if self._wishes.get(wish.model) is not wish:
            return
        if wish.work is not None:
            wish.work.cancel()
        else:
            del self._wishes[wish.model]
        self.tell_places()


def _tell(place: Place, number: int) -> None:
    try:
        place.take(number)
    except Exception:  # whoever listens badly must not keep the others from their models
        log.exception("a place in the line could not be told")
