"""Requests a minute for each client of a listener, with a burst: what one may queue beside the limits of its calls."""

from collections import OrderedDict

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import RateLimited
from stellwerk.limits.rate import advance, give_back, make_rate, wait

_MOST_CLIENTS = 10_000
"""Beyond these the one that was seen longest ago is forgotten, and may then send a burst again."""
_SECOND = 1_000_000_000


class Taken(msgspec.Struct, frozen=True):
    """A request that was counted."""

    client: str
    arrival: int


class ClientLimits:
    def __init__(self, per_minute: int, burst: int, clock: Clock) -> None:
        """`per_minute` 0 is unlimited."""
        self._rate = make_rate(per_minute, burst) if per_minute else None
        self._clock = clock
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def take(self, client: str) -> Taken:
        """Counts a request. Raises RateLimited."""
        if self._rate is None:
            return Taken(client, 0)
        now = self._now()
        arrival = self._arrivals.get(client, 0)
        pause = wait(self._rate, arrival, now)
        if pause > 0:
            raise RateLimited("Rate limit exceeded, please try again later", retry_after=pause / _SECOND)
        own = advance(self._rate, arrival, now)
        self._arrivals[client] = own
        self._arrivals.move_to_end(client)
        if len(self._arrivals) > _MOST_CLIENTS:
            self._arrivals.popitem(last=False)
        return Taken(client, own)

    def give_back(self, taken: Taken) -> None:
        """The request was refused for another reason."""
        arrival = self._arrivals.get(taken.client)
        if self._rate is not None and arrival is not None:
            self._arrivals[taken.client] = give_back(self._rate, arrival, taken.arrival, self._now())

    def _now(self) -> int:
        return int(self._clock.monotonic() * _SECOND)
