"""A sliding minute on whole nanoseconds: in any 60 seconds never more than the limit. No clock, no floats.

What was taken is a row of pairs, the oldest first, each with the moment at which it was taken and how much. It leaves
60 seconds later and not a nanosecond earlier. Up to a limit of 600 each pair is one taking and the count is exact;
above it, what comes within 100 ms shares a pair that leaves with its last member: never too much, a little too late.
"""

from collections import deque

MINUTE = 60_000_000_000

_EXACT_UP_TO = 600
_SHARED = 100_000_000
_PAIRS = 2 * (_EXACT_UP_TO + 1) + 100
"""More can only be there when some of them were given back."""

_GONE = -1

Pair = list[int]
"""When it was taken (the last of those that share it), how much, and when the first of them was."""


class Window:
    """Requests or tokens of one minute. `now` is nanoseconds on a clock that never goes back."""

    __slots__ = ("_pairs", "limit", "total")

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        """At least 1; 0 while none is known: then it only remembers, and `wait` and `state` may not be asked."""
        self.total = 0
        """What counted when it was last asked or changed."""
        self._pairs: deque[Pair] = deque()

    def used(self, now: int) -> int:
        """What was taken in the last 60 seconds; above the limit after a correction or under a new limit."""
        pairs = self._pairs
        if pairs and pairs[0][0] <= now - MINUTE:
            self._expire(now)
        return self.total

    def wait(self, now: int, amount: int = 1) -> int:
        """Nanoseconds until `amount` fits when nobody else takes any; 0 when it does now.

        An amount above the limit counts as the limit: it fits when the window is empty.
        """
        pairs = self._pairs
        if pairs and pairs[0][0] <= now - MINUTE:
            self._expire(now)
        if self.total + amount <= self.limit:
            return 0
        excess = self.total + min(amount, self.limit) - self.limit
        leaves = now
        for pair in pairs:
            if excess <= 0:
                break
            leaves = pair[0] + MINUTE
            excess -= pair[1]
        return leaves - now

    def state(self, now: int) -> tuple[int, int]:
        """What there is room for, and the nanoseconds until nothing is used any more."""
        pairs = self._pairs
        if pairs and pairs[0][0] <= now - MINUTE:
            self._expire(now)
        used, limit = self.total, self.limit
        return (limit - used if used < limit else 0), (pairs[-1][0] + MINUTE - now if used else 0)

    def add(self, now: int, amount: int = 1) -> Pair:
        """Takes `amount` ≥ 1, whether it fits or not; `now` is not before `latest`. Returns what `correct` needs."""
        pairs = self._pairs
        self.total += amount
        if pairs:
            last = pairs[-1]
            if not 0 < self.limit <= _EXACT_UP_TO and now - last[2] <= _SHARED:
                last[0] = now
                last[1] += amount
                return last
            if len(pairs) >= _PAIRS:
                pairs = self._drop_empty()
        pair = [now, amount, now]
        pairs.append(pair)
        return pair

    def correct(self, pair: Pair, difference: int) -> None:
        """Gives back or adds to what `add` took; nothing happens when its minute is over.

        Nobody may give back more than he took, and who has given everything back may not come again.
        """
        if pair[0] == _GONE:
            return
        pair[1] += difference
        self.total += difference
        pairs = self._pairs
        while pairs and not pairs[-1][1]:
            pairs.pop()[0] = _GONE

    @property
    def latest(self) -> int:
        """When something was last taken, 0 for never."""
        return self._pairs[-1][0] if self._pairs else 0

    def history(self) -> list[tuple[int, int]]:
        """When how much was taken, the oldest first."""
        return [(pair[0], pair[1]) for pair in self._pairs]

    def _expire(self, now: int) -> None:
        pairs, before = self._pairs, now - MINUTE
        while pairs and (pairs[0][0] <= before or not pairs[0][1]):
            pair = pairs.popleft()
            self.total -= pair[1]
            pair[0] = _GONE

    def _drop_empty(self) -> deque[Pair]:
        """Without this, takings that are given back at once would pile up for a minute."""
        for pair in self._pairs:
            if not pair[1]:
                pair[0] = _GONE
        self._pairs = deque(pair for pair in self._pairs if pair[1])
        return self._pairs
