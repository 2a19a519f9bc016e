"""Several keys for one upstream: which one goes next, and how long one that was refused stays away."""

import math
from collections.abc import Container, Sequence
from typing import Final, Literal

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.secrets import Secret
from stellwerk.providers._key_refusals import Refusal, RefusalKind

MOST_REFUSALS: Final = 1024
"""Remembered refusals; those of single models count singly, and clients may name models freely."""

_DEFAULT_SECONDS: Final = {
    RefusalKind.CONCURRENCY: 2.0,
    RefusalKind.RATE: 5.0,
    RefusalKind.HOURLY_QUOTA: 900.0,
    RefusalKind.SESSION_QUOTA: 1800.0,
    RefusalKind.WEEKLY_QUOTA: 21_600.0,
}
"""How long a key stays away when the upstream does not say."""
_LONGEST_SECONDS: Final = {
    RefusalKind.CONCURRENCY: 600.0,
    RefusalKind.RATE: 600.0,
    RefusalKind.HOURLY_QUOTA: 86_400.0,
    RefusalKind.SESSION_QUOTA: 86_400.0,
    RefusalKind.WEEKLY_QUOTA: 691_200.0,
}
_OF_ONE_MODEL: Final = frozenset({RefusalKind.CONCURRENCY, RefusalKind.RATE})
"""Limits that vendors count for each model: a key that has reached one may go on with other models."""


class KeyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One key, for health: its place in the list, never its text."""

    index: int
    state: Literal["ready", "cooling", "parked"]
    retry_in: float | None = None
    """Seconds until it may be used again for everything; None when it can now, or never by itself."""
    reason: str | None = None


class _Refused(msgspec.Struct, frozen=True):
    kind: RefusalKind
    until: float
    """Monotonic seconds; infinity for a key that is parked."""


class UpstreamKeys:
    """Picks keys by their place in the list, and stays with the one that answered last.

    A single key is always picked, and so is the last one that is not parked: there is nothing to turn to, and the
    upstream knows better than we do whether it is still refused.
    """

    def __init__(self, keys: Sequence[Secret], clock: Clock) -> None:
        """`keys` are one at least."""
        self._count = len(keys)
        self._clock = clock
        self._current = 0
        self._refused: dict[tuple[int, str], _Refused] = {}

    def pick(self, model: str = "", without: Container[int] = ()) -> int | None:
        """The key to use for a model, none of `without`; None while all others stay away."""
        for step in range(self._count):
            index = (self._current + step) % self._count
            if index not in without and (not self._refused or self._wait(index, model) == 0):
                return index
        return None

    def succeeded(self, index: int) -> None:
        """The upstream took the key: the next calls use it too."""
        # What was sent before the key was refused may be answered after it.
        if index != self._current and self._wait(index, "") == 0:
            self._current = index

    def refused(self, index: int, refusal: Refusal, model: str = "") -> bool:
        """The upstream refused the key for a call of `model`. Returns whether that is news, and worth a line."""
        kind = refusal.kind
        if self._count == 1 or kind is RefusalKind.FORBIDDEN:
            return False
        now = self._clock.monotonic()
        if kind is RefusalKind.UNAUTHORIZED:
            if self._usable_keys() <= {index}:
                return False
            until = math.inf
        else:
            wait = _DEFAULT_SECONDS[kind] if refusal.wait is None else refusal.wait
            until = now + min(max(wait, 1.0), _LONGEST_SECONDS[kind])
        key = (index, model if kind in _OF_ONE_MODEL else "")
        before = self._refused.get(key)
        if before is not None and before.until > now:
            # Of several calls that were refused at once, the longest wait counts.
            self._refused[key] = max(before, _Refused(kind, until), key=lambda refused: refused.until)
            return self._refused[key].kind is not before.kind
        self._make_room(now)
        self._refused[key] = _Refused(kind, until)
        return True

    def earliest(self, model: str = "") -> float:
        """Seconds until a key may be used for a model; 0 when one may be now, infinity when none ever may."""
        return min(self._wait(index, model) for index in range(self._count))

    def forget(self) -> None:
        """Begins again with the first key, as if none had been refused."""
        self._current = 0
        self._refused.clear()

    def status(self) -> list[KeyStatus]:
        return [self._status(index) for index in range(self._count)]

    def _wait(self, index: int, model: str) -> float:
        now = self._clock.monotonic()
        refused = (self._refused.get((index, scope)) for scope in ("", model))
        return max((each.until - now for each in refused if each is not None and each.until > now), default=0.0)

    def _usable_keys(self) -> set[int]:
        return {index for index in range(self._count) if not self._is_parked(index)}

    def _is_parked(self, index: int) -> bool:
        refused = self._refused.get((index, ""))
        return refused is not None and refused.until == math.inf

    def _make_room(self, now: float) -> None:
        """Before one more is remembered. What is over goes first, then the oldest that is only of one model."""
        if len(self._refused) < MOST_REFUSALS:
            return
        self._refused = {key: refused for key, refused in self._refused.items() if refused.until > now}
        if len(self._refused) >= MOST_REFUSALS:
            del self._refused[next(key for key in self._refused if key[1])]

    def _status(self, index: int) -> KeyStatus:
        now = self._clock.monotonic()
        known = [refused for (key, _), refused in self._refused.items() if key == index and refused.until > now]
        if not known:
            return KeyStatus(index=index, state="ready")
        longest = max(known, key=lambda refused: refused.until)
        if longest.until == math.inf:
            return KeyStatus(index=index, state="parked", reason=longest.kind.value)
        return KeyStatus(
            index=index, state="cooling", retry_in=round(longest.until - now, 3), reason=longest.kind.value
        )
