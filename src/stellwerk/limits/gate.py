"""How many calls a model gets at a time, and who comes next when more want it.

Those who wait stand in lines of their own, one for each client, so that one with a thousand calls does not keep
another with a single one waiting. Priorities age: whoever waits long enough is as urgent as anybody.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from itertools import count

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import Priority

AGING_SECONDS = 20.0
"""After so many seconds a waiting call counts as one step more urgent: the least urgent begins within three of them
wherever a turn comes up at all."""
_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
_BACKGROUND_STEPS = 3
"""A call that nobody waits for is that much less urgent: it comes after all the others, until it has aged."""
APART_SECONDS = 0.2
AGAIN_SECONDS = 5.0
"""Who waits is told his place anew after so many seconds, changed or not: a connection on which nothing is sent looks
dead to whatever stands in between."""
_KEPT_CLIENTS = 10_000
_LEAST_RETRY, _LONGEST_RETRY = 1.0, 60.0


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    max_concurrent: int
    max_waiting: int = 100
    max_wait_seconds: float = 600.0


_WIDE = GateSettings(max_concurrent=1 << 30)
"""Of a gate that was taken away: everybody may go."""


class GateStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    running: int
    waiting: int
    max_concurrent: int
    max_waiting: int


class _Waiter:
    __slots__ = ("arrived", "call", "client", "number", "rank", "turn")

    def __init__(self, call: Call, client: int, number: int, now: float, turn: asyncio.Future[None]) -> None:
        self.call = call
        self.client = client
        self.number = number
        self.rank = _RANKS[call.priority] + (_BACKGROUND_STEPS if call.background else 0)
        self.arrived = now
        self.turn = turn

    def urgency(self, now: float) -> int:
        """0 is the most urgent."""
        return max(0, self.rank - int((now - self.arrived) / AGING_SECONDS))


class Gate:
    """The turns of one model. For the event loop's thread alone."""

    def __init__(
        self,
        name: str,
        settings: GateSettings,
        clock: Clock,
        *,
        again_seconds: float = AGAIN_SECONDS,
        apart_seconds: float = APART_SECONDS,
    ) -> None:
        """Who waits hears its place anew every `again_seconds`, and at most every `apart_seconds` when it changes."""
        self.name = name
        self.settings = settings
        self._clock = clock
        self._running = 0
        self._numbers = count()
        self._waiting: dict[int, _Waiter] = {}
        self._served: dict[int, int] = {}
        """Turns that each client had since it began to wait; who has had fewer goes first."""
        self._pace = _Pace()
        self._again_seconds = again_seconds
        self._apart_seconds = apart_seconds
        self._again: asyncio.TimerHandle | None = None
        self._told = -math.inf

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    def status(self) -> GateStatus:
        settings = self.settings
        return GateStatus(
            name=self.name,
            running=self._running,
            waiting=len(self._waiting),
            max_concurrent=settings.max_concurrent,
            max_waiting=settings.max_waiting,
        )

    async def enter(self, call: Call) -> None:
        """Returns when it is the call's turn; `leave` ends it.

        Raises Unavailable: `queue_full` at once, `queue_timeout` after the longest wait or at the call's deadline.
        """
        if self._running < self.settings.max_concurrent and not self._waiting:
            self._running += 1
            return
        if len(self._waiting) >= self.settings.max_waiting:
            raise self._refusal("Too many requests are waiting for this model. Try again later.", "queue_full")
        await self._wait(call)

    def leave(self) -> None:
        """The call is over."""
        self._running -= 1
        self._pace.note(self._clock.monotonic())
        self._call_next()

    def change(self, settings: GateSettings) -> None:
        """Takes effect with the next turn; running calls go on."""
        self.settings = settings
        self._call_next()

    async def _wait(self, call: Call) -> None:
        now = self._clock.monotonic()
        client = call.principal.user_id
        waiter = _Waiter(call, client, next(self._numbers), now, asyncio.get_running_loop().create_future())
        self._join(waiter)
        self._tell_places()
        seconds = min(self.settings.max_wait_seconds, call.deadline - now)
        try:
            async with asyncio.timeout(seconds):
                await waiter.turn
        except TimeoutError:
            if self._has_turn(waiter):
                return
            raise self._refusal("The model did not get round to this request in time.", "queue_timeout") from None
        except asyncio.CancelledError:
            if self._has_turn(waiter):
                self.leave()
            raise
        finally:
            if self._waiting.pop(waiter.number, None) is not None:
                self._tell_places()

    def _has_turn(self, waiter: _Waiter) -> bool:
        """The turn and the end of the wait may come in the same moment."""
        return waiter.turn.done() and not waiter.turn.cancelled()

    def _join(self, waiter: _Waiter) -> None:
        others = {each.client for each in self._waiting.values()}
        if waiter.client not in others:
            # A client that comes anew has no turns to make up for: it begins with those who have had the fewest.
            least = min((self._served.get(client, 0) for client in others), default=0)
            self._served[waiter.client] = max(self._served.get(waiter.client, 0), least) if others else 0
            if len(self._served) > _KEPT_CLIENTS:
                self._served = {client: self._served.get(client, 0) for client in {*others, waiter.client}}
        self._waiting[waiter.number] = waiter
        if waiter.call.place is not None:
            # The last place until all are told theirs.
            waiter.call.place.take(len(self._waiting))

    def _call_next(self) -> None:
        called = False
        while self._waiting and self._running < self.settings.max_concurrent:
            waiter = self._next()
            del self._waiting[waiter.number]
            if waiter.turn.done():
                continue
            self._running += 1
            self._served[waiter.client] = self._served.get(waiter.client, 0) + 1
            waiter.turn.set_result(None)
            called = True
        if not self._waiting:
            self._served.clear()
        if called:
            self._tell_places()

    def _next(self) -> _Waiter:
        return min(self._waiting.values(), key=self._order(self._clock.monotonic()))

    def _order(self, now: float) -> Callable[[_Waiter], tuple[int, int, float, int]]:
        served = self._served
        return lambda waiter: (
            waiter.urgency(now),
            served.get(waiter.client, 0),
            waiter.arrived,
            waiter.number,
        )

    def _tell_places(self) -> None:
        """To those who listen, now or soon, and from time to time as long as there are any.

        Putting a thousand waiters into their order takes a millisecond, so it is not done for each of a thousand that
        come at once.
        """
        if all(waiter.call.place is None for waiter in self._waiting.values()):
            self._tell_again(None)
            return
        loop = asyncio.get_running_loop()
        left = self._told + self._apart_seconds - loop.time()
        if left > 0:
            self._tell_again(left)
            return
        self._told = loop.time()
        self._tell_again(self._again_seconds)
        for place, waiter in enumerate(self.in_order(), start=1):
            if waiter.call.place is not None:
                waiter.call.place.take(place)

    def _tell_again(self, seconds: float | None) -> None:
        if self._again is not None:
            self._again.cancel()
        loop = asyncio.get_running_loop()
        self._again = None if seconds is None else loop.call_later(seconds, self._tell_places)

    def in_order(self) -> Iterator[_Waiter]:
        """As they would come if nobody came any more."""
        yield from sorted(self._waiting.values(), key=self._order(self._clock.monotonic()))

    def _refusal(self, text: str, code: str) -> Unavailable:
        ahead = len(self._waiting) + 1
        seconds = self._pace.seconds * ahead / max(1, self.settings.max_concurrent)
        retry = min(max(math.ceil(seconds), _LEAST_RETRY), _LONGEST_RETRY)
        return Unavailable(text, code=code, retry_after=float(retry), may_fall_back=True)


class _Pace:
    """How long a turn takes lately: a moving mean over the ends of calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last: float | None = None

    def note(self, now: float) -> None:
        if self._last is not None:
            gap = min(now - self._last, _LONGEST_RETRY)
            self.seconds += (gap - self.seconds) / 8
        self._last = now


class Gates:
    """Every gate by name; a name without settings has none."""

    def __init__(self, settings: Callable[[str], GateSettings | None], clock: Clock) -> None:
        """`settings` says how wide the gate of a name is, None when there is none; asked for every call."""
        self._settings = settings
        self._clock = clock
        self._gates: dict[str, Gate] = {}

    def find(self, name: str) -> Gate | None:
        """The gate to enter for a call, None when the model takes as many as come."""
        settings = self._settings(name)
        if settings is None or not settings.max_concurrent:
            if (gone := self._gates.pop(name, None)) is not None:
                gone.change(_WIDE)
            return None
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = Gate(name, settings, self._clock)
        elif gate.settings is not settings and gate.settings != settings:
            gate.change(settings)
        return gate

    def status(self) -> list[GateStatus]:
        """Of all that have been entered."""
        return [gate.status() for gate in self._gates.values()]
