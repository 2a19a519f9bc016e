"""When an engine has to prove that it computes, and not only that it answers."""

from collections.abc import Callable

import msgspec

from stellwerk.core.clock import Clock


class LivenessSettings(msgspec.Struct, frozen=True, kw_only=True):
    interval: float = 60.0
    """Seconds since the last use and the last proof after which an idle engine is asked for a token."""
    timeout: float = 30.0
    """Seconds that it has for that token: it may still be busy with a prompt that nobody waits for any more."""
    patience: float = 120.0
    """Seconds for which an engine in use may be under suspicion without a single answer."""


class Liveness:
    """What is known of one engine's work. Only an idle one is asked for a token: a busy one would answer late, and
    its work is the better proof."""

    def __init__(self, settings: LivenessSettings, clock: Clock, idle: Callable[[], bool]) -> None:
        self._settings = settings
        self._clock = clock
        self._idle = idle
        self._proved = clock.monotonic()
        self._used = self._proved
        self._missed = False
        self._suspected: float | None = None

    def note_use(self) -> None:
        self._used = self._clock.monotonic()

    def note_answer(self) -> None:
        """The engine has computed something."""
        self._proved = self._clock.monotonic()
        self._suspected = None
        self._missed = False

    def note_miss(self) -> None:
        """The engine gave no token in time: it is asked again as soon as it is idle."""
        self._missed = True

    def suspect(self) -> None:
        """Somebody waited in vain. Only with `note_answer` told of every answer: in use and without one, the engine
        is taken for hung after `patience`."""
        if self._suspected is None:
            self._suspected = self._clock.monotonic()

    @property
    def is_idle(self) -> bool:
        if self._idle():
            return True
        self.note_use()
        return False

    @property
    def is_due(self) -> bool:
        """Whether the engine is to be asked for a token now."""
        if not self.is_idle:
            return False
        since = self._clock.monotonic() - max(self._proved, self._used)
        return self._missed or self._suspected is not None or since >= self._settings.interval

    @property
    def is_overdue(self) -> bool:
        """Whether an engine in use has given nothing to anybody for so long that it must be taken for hung."""
        if self._suspected is None or self.is_idle:
            return False
        return self._clock.monotonic() - self._suspected >= self._settings.patience
