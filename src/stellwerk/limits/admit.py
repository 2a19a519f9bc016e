"""Decides whether a call may begin now, and keeps count of those that run."""

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import RateLimited, Unavailable
from stellwerk.core.principal import Principal
from stellwerk.limits.headers import Headers, limit_header, rate_headers
from stellwerk.limits.rate import Rate, advance, make_rate, wait

_BUSY_SECONDS = 1.0
"""What a client is told to wait when nobody knows when a running call ends."""

_LOOKED_AT = 8
"""Entries at rest are looked for among this many, whenever a new key comes and the map is full."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """0 is unlimited. A key's own limits go first."""

    requests_per_minute: int = 0
    burst: int = 10
    """Requests of a key at once before its rate counts, at most `requests_per_minute`."""
    concurrent_requests: int = 0
    total_concurrent_requests: int = 0


class _KeyState:
    """What is known of one key: its limits as numbers, its bucket, its running calls."""

    __slots__ = ("arrival", "limit", "most", "principal", "rate", "running", "settings")

    def __init__(self) -> None:
        self.principal: Principal | None = None
        self.settings: LimitSettings | None = None
        self.rate: Rate | None = None
        self.limit = (b"", b"")
        self.most = 0
        self.arrival = 0
        self.running = 0

    def apply(self, principal: Principal, settings: LimitSettings) -> None:
        """Takes over limits that are new or have changed; what was used up and what runs stays."""
        self.principal, self.settings = principal, settings
        own = principal.requests_per_minute
        per_minute = settings.requests_per_minute if own is None else own
        self.rate = make_rate(per_minute, settings.burst) if per_minute else None
        self.limit = limit_header(self.rate) if self.rate else (b"", b"")
        own = principal.concurrent_requests
        self.most = settings.concurrent_requests if own is None else own

    def at_rest(self, now: int) -> bool:
        return not self.running and self.arrival <= now


class Permit:
    """Leave for one call to run. `release` gives it back, once, whatever happens to the call."""

    __slots__ = ("_limits", "_state", "headers")

    def __init__(self, limits: "Limits", state: _KeyState, headers: Headers) -> None:
        self.headers = headers
        """`x-ratelimit-*` for the answer; empty without a limit."""
        self._limits = limits
        self._state: _KeyState | None = state

    def release(self) -> None:
        """The call is over. A second time does nothing."""
        state = self._state
        if state is not None:
            self._state = None
            state.running -= 1
            self._limits.running -= 1


class Limits:
    """Rate and concurrency of every key. For the event loop's thread alone.

    A key that is at rest, with a full bucket and nothing running, needs no memory: above `keys` entries such are
    dropped, so the map grows past that only by keys that are in use at the same time.
    """

    def __init__(self, settings: LimitSettings, clock: Clock, *, keys: int = 20_000) -> None:
        self.running = 0
        """Calls that hold a permit."""
        self._settings = settings
        self._monotonic = clock.monotonic
        self._keys = keys
        self._states: dict[str, _KeyState] = {}

    def replace(self, settings: LimitSettings) -> None:
        """New limits from the next call on; running calls stay counted and used-up rates stay used up."""
        self._settings = settings

    def admit(self, call: Call) -> Permit:
        """Lets a call begin or refuses it; a refused call uses up nothing.

        Raises RateLimited with `retry_after` and headers for the key's own limits, and Unavailable, code
        `overloaded`, when the gateway as a whole runs as much as it may.
        """
        principal, settings = call.principal, self._settings
        now = int(self._monotonic() * 1e9)
        state = self._states.get(principal.key_id) or self._new_state(principal.key_id, now)
        if state.principal is not principal or state.settings is not settings:
            state.apply(principal, settings)
        rate = state.rate
        if rate is not None and (pause := wait(rate, state.arrival, now)) > 0:
            raise RateLimited(
                f"The limit of {rate.per_minute} requests per minute is reached.",
                retry_after=pause / 1e9,
                headers=rate_headers(state.limit, rate, state.arrival, now),
            )
        if state.most and state.running >= state.most:
            raise RateLimited(
                f"The limit of {state.most} concurrent requests is reached.",
                retry_after=_BUSY_SECONDS,
                headers=() if rate is None else rate_headers(state.limit, rate, state.arrival, now),
            )
        if settings.total_concurrent_requests and self.running >= settings.total_concurrent_requests:
            raise Unavailable("The gateway is busy.", code="overloaded", retry_after=_BUSY_SECONDS)
        state.running += 1
        self.running += 1
        if rate is None:
            return Permit(self, state, ())
        state.arrival = advance(rate, state.arrival, now)
        return Permit(self, state, rate_headers(state.limit, rate, state.arrival, now))

    def _new_state(self, key_id: str, now: int) -> _KeyState:
        if len(self._states) >= self._keys:
            self._drop_some_at_rest(now)
        state = self._states[key_id] = _KeyState()
        return state

    def _drop_some_at_rest(self, now: int) -> None:
        oldest = [key_id for key_id, _ in zip(self._states, range(_LOOKED_AT), strict=False)]
        for key_id in oldest:
            state = self._states.pop(key_id)
            if not state.at_rest(now):
                # Back at the end, so that the next look begins with others.
                self._states[key_id] = state
