"""How many requests a queue finishes in a minute, from how its counter moves."""

from collections import deque
from collections.abc import Iterable

from stellwerk.tui.snapshot import Queue

WINDOW_SECONDS = 60.0
_MOST_LOOKS = 64


class Throughput:
    """Remembers the counters of the queues that there are now."""

    def __init__(self) -> None:
        self._looks: dict[str, deque[tuple[float, int]]] = {}

    def note(self, at: float, queues: Iterable[Queue]) -> None:
        """A look at the counters at `at` seconds."""
        kept = {}
        for queue in queues:
            looks = self._looks.get(queue.name, deque(maxlen=_MOST_LOOKS))
            total = queue.processed + queue.failed
            # Smaller than before: the gateway was started anew.
            if looks and (total < looks[-1][1] or at < looks[-1][0]):
                looks.clear()
            while len(looks) > 1 and at - looks[1][0] >= WINDOW_SECONDS:
                looks.popleft()
            looks.append((at, total))
            kept[queue.name] = looks
        self._looks = kept

    def per_minute(self, queue: str) -> float | None:
        """None until two looks at different times."""
        looks = self._looks.get(queue)
        if not looks or looks[-1][0] <= looks[0][0]:
            return None
        (then, before), (now, after) = looks[0], looks[-1]
        return 60 * (after - before) / (now - then)
