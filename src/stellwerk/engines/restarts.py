"""When a crashed engine is started again."""

from collections import deque

import msgspec


class RestartSettings(msgspec.Struct, frozen=True, kw_only=True):
    first_delay: float = 1.0
    """Seconds; doubled with every further crash."""
    longest_delay: float = 60.0
    max_crashes: int = 5
    """With so many crashes within `window` seconds it is given up."""
    window: float = 600.0


class Restarts:
    """Remembers the crashes of one engine that has served before."""

    def __init__(self, settings: RestartSettings) -> None:
        self._settings = settings
        self._crashes: deque[float] = deque(maxlen=settings.max_crashes)

    def after_crash(self, now: float) -> float | None:
        """Seconds to wait before the next start, None when it is to be given up. `now` is monotonic.

        A single crash is repaired at once, so that the next request finds the engine running.
        """
        settings = self._settings
        while self._crashes and self._crashes[0] <= now - settings.window:
            self._crashes.popleft()
        self._crashes.append(now)
        count = len(self._crashes)
        if count >= settings.max_crashes:
            return None
        if count == 1:
            return 0.0
        return float(min(settings.longest_delay, settings.first_delay * 2.0 ** (count - 2)))
