"""Decides whether a call may begin now, and keeps count of those that run."""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import RateLimited, Unavailable
from stellwerk.core.ports import Likely
from stellwerk.core.principal import Allowance, Principal, Tier
from stellwerk.limits.callers import Caller, Callers
from stellwerk.limits.counter import Counter, Taking
from stellwerk.limits.headers import Headers, request_headers, token_headers
from stellwerk.limits.rate import make_rate, remaining
from stellwerk.limits.window import MINUTE

_BUSY_SECONDS = 1.0
"""What a client is told to wait when nobody knows when a running call ends."""

_NO_LIMITS = Allowance()


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """0 is unlimited. A key's and a user's own limits go before these, each for itself."""

    requests_per_minute: int = 0
    """The first four are of each key."""
    burst: int = 0
    """Requests at once before a steady pace counts; 0 allows a whole minute's share at once."""
    tokens_per_minute: int = 0
    concurrent_requests: int = 0
    total_concurrent_requests: int = 0
    tiers: Mapping[Tier, Allowance] = msgspec.field(default_factory=dict)
    """Of each user, over all of his keys."""
    models: Mapping[str, Allowance] = msgspec.field(default_factory=dict)
    """Of each user on one model, by the model's name."""
    assumed_output_tokens: int = 1024
    """Tokens that an answer is taken for while it runs when the client has set no bound."""


class PastCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of an earlier process that still counts."""

    key_id: str
    user_id: int
    model: str
    at: float
    """Unix seconds."""
    tokens: int = 0


class RateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Requests per minute of a user; None without a limit."""

    limit: int | None
    remaining: int | None
    resets_in: float
    """Seconds until all of them are back."""


class Permit:
    """Leave for one call to run. `release` or `refund` gives it back, once, whatever happens to the call."""

    __slots__ = ("_counters", "_limits", "_takings", "headers")

    def __init__(
        self, limits: "Limits", counters: Sequence[Counter], takings: Sequence[Taking], headers: Headers
    ) -> None:
        self.headers = headers
        """`x-ratelimit-*` for the answer; empty without a limit."""
        self._limits = limits
        self._counters: Sequence[Counter] | None = counters
        self._takings = takings

    def release(self, tokens: int | None = None) -> None:
        """The call is over and has used so many tokens: 0 when it failed, None when nobody knows (the estimate stays).

        A second time does nothing.
        """
        counters = self._counters
        if counters is None:
            return
        self._counters = None
        self._limits.running -= 1
        for counter in counters:
            counter.running -= 1
        if tokens is not None:
            for taking in self._takings:
                taking.correct(tokens)

    def refund(self) -> None:
        """The call was refused after all, by somebody else: it has used nothing up. Does nothing after a release."""
        if self._counters is not None:
            self.release()
            now = self._limits.now()
            for taking in self._takings:
                taking.give_back(now)


class Limits:
    """Requests, tokens and concurrency of every user, key and model. For the event loop's thread alone.

    Who is at rest, with nothing used up in the last minute and nothing running, needs no memory: above `keys` entries
    such are dropped, so the maps grow past that only by those who are in use at the same time.
    """

    def __init__(self, settings: LimitSettings, clock: Clock, *, keys: int = 20_000) -> None:
        self.running = 0
        """Calls that hold a permit."""
        self._settings = settings
        self._clock = clock
        self._monotonic = clock.monotonic
        self._callers = Callers(keys)
        self._by_key = self._callers.by_key

    def now(self) -> int:
        """Monotonic nanoseconds."""
        return int(self._monotonic() * 1e9)

    def replace(self, settings: LimitSettings) -> None:
        """New limits from the next call on; running calls stay counted and what is used up stays used up."""
        self._settings = settings

    def admit(self, call: Call, estimate: Likely, model: str | None = None) -> Permit:
        """Lets a call begin or refuses it; a refused call uses up nothing. `model` is the canonical name, when known.

        Raises RateLimited with `retry_after` and headers for the limits of user, key and model, and Unavailable, code
        `overloaded`, when the gateway as a whole runs as much as it may.
        """
        principal, settings = call.principal, self._settings
        caller = self._by_key.get(principal.key_id)
        if caller is None or caller.principal is not principal or caller.settings is not settings:
            caller = self._enter(principal, settings)
        models: Sequence[Counter] = self._model_counters(call, settings, model) if settings.models else ()
        if models:
            return self._admit_limited((*caller.counters, *models), (*caller.limiting, *models), estimate)
        if caller.limiting:
            return self._admit_limited(caller.counters, caller.limiting, estimate)
        if settings.total_concurrent_requests and self.running >= settings.total_concurrent_requests:
            raise _busy()
        self.running += 1
        for counter in caller.counters:
            counter.running += 1
        return Permit(self, caller.counters, (), ())

    def status(self, principal: Principal) -> RateStatus:
        """What is left of a user's requests per minute; uses nothing up."""
        allowance = _user_allowance(principal, self._settings)
        limit, burst = allowance.requests_per_minute or 0, allowance.burst or 0
        if not limit:
            return RateStatus(limit=None, remaining=None, resets_in=0.0)
        counter, now = self._callers.by_user.get(principal.user_id), self.now()
        if counter is not None:
            # Calls of an earlier process are counted before anybody has told the counter its limits.
            counter.set_allowance(allowance, now)
        left, whole = limit, 0
        if counter is not None and counter.requests is not None:
            left = max(0, limit - counter.requests.used(now))
            whole = max(counter.requests_state(now)[1], counter.arrival - now)
        if 0 < burst < limit:
            left = min(left, remaining(make_rate(limit, burst), 0 if counter is None else counter.arrival, now))
        return RateStatus(limit=limit, remaining=left, resets_in=whole / 1e9)

    def seed(self, past: Iterable[PastCall]) -> None:
        """Counts calls of the last minute that another process has admitted, before this one admits its first."""
        now, wall = self.now(), self._clock.now()
        for call in sorted(past, key=lambda call: call.at):
            # A wall clock that was set back must not keep anybody out for longer than a minute.
            age = max(0, int((wall - call.at) * 1e9))
            if age >= MINUTE:
                continue
            caller = self._callers.enter(call.key_id, call.user_id, now)
            counters = list(caller.counters)
            if call.model in self._settings.models:
                counters.append(self._callers.model(call.user_id, call.model, now))
            for counter in counters:
                counter.remember(now - age, call.tokens)

    def _enter(self, principal: Principal, settings: LimitSettings) -> Caller:
        now = self.now()
        caller = self._callers.enter(principal.key_id, principal.user_id, now)
        caller.user.set_allowance(_user_allowance(principal, settings), now)
        caller.key.set_allowance(_key_allowance(principal, settings), now)
        caller.limiting = tuple(counter for counter in caller.counters if counter.limits)
        caller.principal, caller.settings = principal, settings
        return caller

    def _model_counters(self, call: Call, settings: LimitSettings, canonical: str | None) -> Sequence[Counter]:
        """An alias may have limits of its own, beside those of the model that it stands for.

        Limits of a bare name are those of every `provider/name`: else the longer name would be a way around them.
        """
        found = []
        names = (call.model,) if canonical is None else (call.model, canonical, canonical.partition("/")[2])
        for name in dict.fromkeys(names):
            allowance = settings.models.get(name)
            if allowance is not None:
                now = self.now()
                counter = self._callers.model(call.principal.user_id, name, now)
                counter.set_allowance(allowance, now)
                found.append(counter)
        return found

    def _admit_limited(self, counters: Sequence[Counter], limiting: Sequence[Counter], estimate: Likely) -> Permit:
        """First asks everybody and then takes from everybody: nothing is half taken."""
        settings = self._settings
        at = self._monotonic()
        now = int(at * 1e9)
        tokens = 1
        for counter in limiting:
            if counter.tokens is not None:
                output = estimate.output_tokens
                if output is None:
                    output = settings.assumed_output_tokens * estimate.answers
                tokens = max(1, estimate.input_tokens + output)
                break
        pause, tightest = 0, limiting[0]
        for counter in limiting:
            needed = counter.wait(now, tokens)
            if needed > pause:
                pause, tightest = needed, counter
        if pause:
            raise _refusal(_seconds(at, pause), tightest.reached(now, tokens), _headers(limiting, now))
        for counter in limiting:
            if counter.most and counter.running >= counter.most:
                reached = f"{counter.most} concurrent requests for this {counter.whose}"
                raise _refusal(_BUSY_SECONDS, reached, _headers(limiting, now))
        if settings.total_concurrent_requests and self.running >= settings.total_concurrent_requests:
            raise _busy()
        self.running += 1
        for counter in counters:
            counter.running += 1
        takings = [counter.take(now, tokens) for counter in limiting]
        return Permit(self, counters, takings, _headers(limiting, now))


def _user_allowance(principal: Principal, settings: LimitSettings) -> Allowance:
    own, tier = principal.user_allowance, settings.tiers.get(principal.tier, _NO_LIMITS)
    return Allowance(
        requests_per_minute=_first(own.requests_per_minute, tier.requests_per_minute),
        burst=_first(own.burst, tier.burst),
        tokens_per_minute=_first(own.tokens_per_minute, tier.tokens_per_minute),
        concurrent_requests=_first(own.concurrent_requests, tier.concurrent_requests),
    )


def _key_allowance(principal: Principal, settings: LimitSettings) -> Allowance:
    own = principal.allowance
    return Allowance(
        requests_per_minute=_first(own.requests_per_minute, settings.requests_per_minute),
        burst=_first(own.burst, settings.burst),
        tokens_per_minute=_first(own.tokens_per_minute, settings.tokens_per_minute),
        concurrent_requests=_first(own.concurrent_requests, settings.concurrent_requests),
    )


def _first(own: int | None, default: int | None) -> int | None:
    return default if own is None else own


def _headers(limiting: Sequence[Counter], now: int) -> Headers:
    """Of the limit with the least left, one for requests and one for tokens."""
    requests = tokens = None
    for counter in limiting:
        if counter.requests is not None:
            left, whole = counter.requests_state(now)
            if requests is None or left < requests[1]:
                requests = counter.requests.limit, left, whole
        if counter.tokens is not None:
            left, whole = counter.tokens.state(now)
            if tokens is None or left < tokens[1]:
                tokens = counter.tokens.limit, left, whole
    headers: Headers = () if requests is None else request_headers(*requests)
    return headers if tokens is None else headers + token_headers(*tokens)


def _seconds(at: float, pause: int) -> float:
    """`pause` nanoseconds after `at`, in seconds that lead there although floats are added."""
    seconds, end = pause / 1e9, int(at * 1e9) + pause
    while int((at + seconds) * 1e9) < end:
        seconds += 1e-6
    return seconds


def _refusal(seconds: float, reached: str, headers: Headers) -> RateLimited:
    return RateLimited(
        f"Rate limit exceeded. Try again in {math.ceil(seconds)} s. The limit of {reached} is reached.",
        retry_after=seconds,
        headers=headers,
    )


def _busy() -> Unavailable:
    return Unavailable("The gateway is busy.", code="overloaded", retry_after=_BUSY_SECONDS)
