"""Waiting for a job through slow times and restarts of its gateway: how long to ask, and how long to pause. Pure."""

from stellwerk.client.errors import BrokenOff, StellwerkError, TimedOut, Unavailable, Unreachable
from stellwerk.client.jobs import Job, still_running
from stellwerk.client.request import MOST_WAIT_SECONDS
from stellwerk.client.retries import pause_after_outage
from stellwerk.core.clock import Clock

_MOST_OUTAGES = 15
"""In a row; together they last about a minute."""
_LOOK_SECONDS = 1.0
"""How often somebody who watches the progress is told of it."""
_SHORT_PAUSE = 0.25


class Waiting:
    """One wait. Between two questions its owner pauses for as long as `heard` or `failed` say."""

    def __init__(self, clock: Clock, seconds: float | None, *, watched: bool) -> None:
        """`seconds` None waits as long as it takes."""
        self._clock = clock
        self._seconds = seconds
        self._begin = clock.monotonic()
        self._step = _LOOK_SECONDS if watched else MOST_WAIT_SECONDS
        self._asked_at = self._begin
        self._asked_for = 0.0
        self._outages = 0

    def ask_for(self) -> float:
        """Seconds that the gateway is asked to wait now."""
        self._asked_at = self._clock.monotonic()
        self._asked_for = max(0.0, min(self._step, self._left()))
        return self._asked_for

    def heard(self, job: Job) -> float:
        """The pause before the next question. Raises StillRunning when the time is over."""
        self._outages = 0
        left = self._left()
        if left <= 0:
            raise still_running(job, self._seconds or 0.0)
        # A gateway that is about to stop answers at once; it is not asked again and again.
        early = self._clock.monotonic() - self._asked_at < self._asked_for / 2
        return min(_SHORT_PAUSE, left) if early else 0.0

    def failed(self, error: StellwerkError) -> float:
        """The pause before the next question. Raises the error when there is no use in going on."""
        passing = isinstance(error, Unreachable | BrokenOff | TimedOut | Unavailable)
        self._outages += 1
        pause = pause_after_outage(self._outages)
        if not passing or self._outages > _MOST_OUTAGES or pause >= self._left():
            raise error
        return pause

    def _left(self) -> float:
        if self._seconds is None:
            return float("inf")
        return self._begin + self._seconds - self._clock.monotonic()
