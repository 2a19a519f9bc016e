"""Who is left alone for a while: models that fail, and keys whose turn it is not yet."""

from collections.abc import Mapping

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.jobs.job import Job, Performed

MOST_KEYS = 1_000
"""Pairs of a key and a queue that are known to rest; one more takes the place of that which rests the shortest."""
_SHORTEST_OF_KEY = 1.0
"""Shorter limits are waited for by the performer."""
_LONGEST = 30.0


class _OfQueue(msgspec.Struct, frozen=True):
    failures: int
    until: float


class Rests:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queues: dict[str, _OfQueue] = {}
        self._keys: dict[tuple[str, str], float] = {}

    def note(self, job: Job, performed: Performed) -> None:
        """Learns from what came of an attempt."""
        if performed.postponed == "key":
            self._rest_key(job.queue, job.key_id, performed.retry_after or 0.0)
        elif performed.postponed == "queue":
            self._extend(job.queue, performed.retry_after or 0.0)
        elif performed.retry:
            self._rest_failing(job.queue, performed.retry_after or 0.0)
        else:
            self._queues.pop(job.queue, None)

    def rests(self, queue: str) -> bool:
        rest = self._queues.get(queue)
        return rest is not None and self._clock.monotonic() < rest.until

    def keys(self) -> Mapping[str, set[str]]:
        """The keys that rest now, by queue."""
        now = self._clock.monotonic()
        self._keys = {pair: until for pair, until in self._keys.items() if now < until}
        found: dict[str, set[str]] = {}
        for queue, key_id in self._keys:
            found.setdefault(queue, set()).add(key_id)
        return found

    def _rest_key(self, queue: str, key_id: str, seconds: float) -> None:
        if (queue, key_id) not in self._keys and len(self._keys) >= MOST_KEYS:
            del self._keys[min(self._keys, key=self._keys.__getitem__)]
        seconds = min(max(seconds, _SHORTEST_OF_KEY), _LONGEST)
        self._keys[queue, key_id] = self._clock.monotonic() + seconds

    def _extend(self, queue: str, seconds: float) -> None:
        """No attempt was lost: the next rest after a failure is as long as it would have been."""
        rest = self._queues.get(queue)
        until = self._clock.monotonic() + min(max(seconds, _SHORTEST_OF_KEY), _LONGEST)
        if rest is None or until > rest.until:
            self._queues[queue] = _OfQueue(0 if rest is None else rest.failures, until)

    def _rest_failing(self, queue: str, seconds: float) -> None:
        """A model that fails is left alone for a while: it would use up the attempts of every job that waits."""
        now = self._clock.monotonic()
        rest = self._queues.get(queue)
        if rest is not None and now < rest.until:
            return
        failures = 1 if rest is None else rest.failures + 1
        seconds = min(max(min(2.0 ** (failures - 1), _LONGEST), seconds), _LONGEST)
        self._queues[queue] = _OfQueue(failures, now + seconds)
