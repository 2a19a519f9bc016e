"""Gives upstreams that keep failing a rest: after so many failures in a row a target is left alone for a while."""

import logging
from typing import Final, Literal

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.plan import Target

MOST_TARGETS = 1024
"""Targets that are remembered; clients may name models freely, so there could be any number."""
_FORGET_SECONDS = 300.0
"""Failures further apart than this are not in a row."""
_PROBE_SECONDS = 60.0
"""A probe that has not been decided by then holds back nobody any more: long answers are no sign of illness."""

_log = logging.getLogger("stellwerk.routing")


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True):
    failures: int = 5
    """Failures in a row that open it; 0 never does."""
    open_seconds: float = 30.0


class BreakerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One target that has failed lately, for health."""

    provider: str
    model: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    """Failures in a row."""
    retry_after: float
    """Seconds until it is tried again; 0 when it may be tried now."""


class _Breaker:
    """What is known of a target that has failed; closed as long as `until` is None."""

    __slots__ = ("failed_at", "failures", "probing", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.failed_at = 0.0
        self.until: float | None = None
        self.probing = False


class Probe:
    """Leave to try a target once. Goes back with the result, whatever it was."""

    __slots__ = ("breaker",)

    def __init__(self, breaker: _Breaker | None = None) -> None:
        self.breaker = breaker

    @property
    def decides(self) -> bool:
        """Others are held back until the result of this one is known."""
        return self.breaker is not None


_PASS: Final = Probe()


class Breakers:
    """The breakers of all targets, of which only those that have failed lately are kept.

    A target is closed at first. Failures in a row open it for `open_seconds`; then it is half open: one call tries it
    while all others are still refused, and its result closes the breaker or opens it again. Calls that were on their
    way when it opened change nothing.
    """

    def __init__(self, settings: BreakerSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._breakers: dict[tuple[str, str], _Breaker] = {}

    def admit(self, target: Target) -> Probe | None:
        """Leave to try the target; None while it is open or somebody else is trying it."""
        if not self._breakers:
            return _PASS
        breaker = self._breakers.get((target.provider, target.model))
        if breaker is None or breaker.until is None:
            return _PASS
        now = self._clock.monotonic()
        if now < breaker.until:
            return None
        breaker.until = now + _PROBE_SECONDS
        breaker.probing = True
        return Probe(breaker)

    def wait(self, target: Target) -> float:
        """Seconds until the target may be tried, at least 1 while it may not; 0 when it may be tried now."""
        breaker = self._breakers.get((target.provider, target.model))
        return 0.0 if breaker is None else _wait(breaker, self._clock.monotonic())

    def succeeded(self, target: Target, probe: Probe) -> None:
        """The target has answered."""
        if not self._breakers:
            return
        key = (target.provider, target.model)
        breaker = self._breakers.get(key)
        if breaker is None or (breaker.until is not None and breaker is not probe.breaker):
            return
        del self._breakers[key]
        if breaker.until is not None:
            _log.info("%s/%s answers again", *key)

    def failed(self, target: Target, probe: Probe, retry_after: float | None = None) -> None:
        """The target has failed; `retry_after` is for how many seconds it wants to be left alone."""
        settings = self.settings
        if settings.failures <= 0:
            return
        now = self._clock.monotonic()
        key = (target.provider, target.model)
        breaker = self._breakers.get(key) or self._remember(key)
        if breaker.until is not None and breaker is not probe.breaker:
            return
        if now - breaker.failed_at > _FORGET_SECONDS and breaker.until is None:
            breaker.failures = 0
        breaker.failures += 1
        breaker.failed_at = now
        if breaker.failures < settings.failures:
            return
        seconds = max(settings.open_seconds, retry_after or 0.0)
        if breaker.until is None:
            _log.warning("%s/%s failed %d times in a row and is left alone for %d s", *key, breaker.failures, seconds)
        breaker.until = now + seconds
        breaker.probing = False

    def gave_up(self, target: Target, probe: Probe) -> None:
        """Nothing was learned about the target: the call was at fault, or its client has left."""
        breaker = probe.breaker
        if breaker is None or self._breakers.get((target.provider, target.model)) is not breaker or not breaker.probing:
            return
        breaker.until = self._clock.monotonic()
        breaker.probing = False

    def status(self) -> list[BreakerStatus]:
        """The targets that have failed lately; all others are closed."""
        now = self._clock.monotonic()
        return [
            BreakerStatus(
                provider=provider,
                model=model,
                state=_state(breaker, now),
                failures=breaker.failures,
                retry_after=round(_wait(breaker, now), 3),
            )
            for (provider, model), breaker in self._breakers.items()
            if breaker.until is not None or now - breaker.failed_at <= _FORGET_SECONDS
        ]

    def reset(self) -> None:
        """Forgets every failure."""
        self._breakers.clear()

    def _remember(self, key: tuple[str, str]) -> _Breaker:
        if len(self._breakers) >= MOST_TARGETS:
            closed = (known for known, breaker in self._breakers.items() if breaker.until is None)
            del self._breakers[next(closed, next(iter(self._breakers)))]
        breaker = self._breakers[key] = _Breaker()
        return breaker


def _wait(breaker: _Breaker, now: float) -> float:
    if breaker.until is None or breaker.until <= now:
        return 0.0
    # How long a probe takes is not known: its result is likely to be soon.
    return 1.0 if breaker.probing else max(1.0, breaker.until - now)


def _state(breaker: _Breaker, now: float) -> Literal["closed", "open", "half_open"]:
    if breaker.until is None:
        return "closed"
    return "half_open" if breaker.probing or breaker.until <= now else "open"
