"""What one user, one key or one user's use of one model may, has used up and has running."""

from stellwerk.core.principal import Allowance
from stellwerk.limits.rate import Rate, advance, give_back, make_rate, remaining, replay, wait
from stellwerk.limits.window import Pair, Window

_NO_LIMITS = Allowance()


class Taking:
    """What one call took from one counter."""

    __slots__ = ("arrival", "counter", "request", "reserved", "tokens")

    def __init__(self, counter: "Counter") -> None:
        self.counter = counter
        self.request: Pair | None = None
        self.arrival = 0
        self.tokens: Pair | None = None
        self.reserved = 0

    def correct(self, tokens: int) -> None:
        """The call has used `tokens`, whatever was reserved for it."""
        if self.tokens is not None:
            self.counter.correct_tokens(self.tokens, tokens - self.reserved)

    def give_back(self, now: int) -> None:
        """The call never ran."""
        self.correct(0)
        if self.request is not None:
            self.counter.give_back_request(self.request, self.arrival, now)


class Counter:
    """Limits as numbers, a window for requests and one for tokens, and the calls that run. Times are nanoseconds."""

    __slots__ = (
        "_known_requests",
        "_known_tokens",
        "allowance",
        "arrival",
        "holders",
        "most",
        "pace",
        "requests",
        "running",
        "tokens",
        "whose",
    )

    def __init__(self, whose: str) -> None:
        self.whose = whose
        """`user`, `key` or `model`, for the message of a refusal."""
        self.running = 0
        self.holders = 0
        """Others that refer to this counter; it may not be forgotten before them."""
        self.allowance = _NO_LIMITS
        self.most = 0
        """Calls that may run at the same time, 0 without a limit."""
        self.requests: Window | None = None
        """None without a limit."""
        self.tokens: Window | None = None
        """None without a limit."""
        self.pace: Rate | None = None
        """How fast requests may follow each other, beside their number in a minute."""
        self.arrival = 0
        # What is known outlives the limit: one that is lifted and set again within a minute is as used up as before.
        self._known_requests: Window | None = None
        self._known_tokens: Window | None = None

    def set_allowance(self, allowance: Allowance, now: int) -> None:
        """Takes over limits that are new or have changed; what was used up and what runs stays."""
        if allowance == self.allowance:
            return
        self.allowance = allowance
        self.most = allowance.concurrent_requests or 0
        per_minute, burst = allowance.requests_per_minute or 0, allowance.burst or 0
        tokens_per_minute = allowance.tokens_per_minute or 0
        self._known_requests = _with_limit(self._known_requests, per_minute)
        self._known_tokens = _with_limit(self._known_tokens, tokens_per_minute)
        self.requests = self._known_requests if per_minute else None
        self.tokens = self._known_tokens if tokens_per_minute else None
        if self.requests is None or not 0 < burst < per_minute:
            # A bucket that holds a whole minute refuses nothing that the window admits.
            self.pace, self.arrival = None, 0
            return
        self.pace = make_rate(per_minute, burst)
        self.arrival = self.arrival or replay(self.pace, self.requests.history(), now)

    @property
    def limits(self) -> bool:
        """Whether it can ever refuse a call."""
        return bool(self.most) or self.requests is not None or self.tokens is not None

    def wait(self, now: int, tokens: int) -> int:
        """Nanoseconds until a request with so many tokens fits, 0 when it does now; running calls aside."""
        pause = 0 if self.requests is None else self.requests.wait(now)
        if self.pace is not None:
            pause = max(pause, wait(self.pace, self.arrival, now))
        if self.tokens is not None:
            pause = max(pause, self.tokens.wait(now, tokens))
        return pause

    def take(self, now: int, tokens: int) -> Taking:
        """Counts a request with so many tokens, at most as many as the limit; running calls aside."""
        taking = Taking(self)
        if self.requests is not None:
            taking.request = self.requests.add(now)
            if self.pace is not None:
                taking.arrival = self.arrival = advance(self.pace, self.arrival, now)
        if self.tokens is not None:
            taking.reserved = min(tokens, self.tokens.limit)
            taking.tokens = self.tokens.add(now, taking.reserved)
        return taking

    def correct_tokens(self, pair: Pair, difference: int) -> None:
        if self._known_tokens is not None:
            self._known_tokens.correct(pair, difference)

    def give_back_request(self, pair: Pair, own_arrival: int, now: int) -> None:
        if self._known_requests is not None:
            self._known_requests.correct(pair, -1)
        if self.pace is not None and own_arrival:
            self.arrival = give_back(self.pace, self.arrival, own_arrival, now)

    def remember(self, now: int, tokens: int) -> None:
        """Counts a call of the past, whether there are limits or not."""
        self._known_requests = self._known_requests or Window()
        self._known_requests.add(max(now, self._known_requests.latest))
        if tokens > 0:
            self._known_tokens = self._known_tokens or Window()
            self._known_tokens.add(max(now, self._known_tokens.latest), tokens)

    def requests_state(self, now: int) -> tuple[int, int]:
        """For a counter that limits requests: how many would be admitted now, one after the other, and the nanoseconds
        until all of them are back."""
        assert self.requests is not None
        left, whole = self.requests.state(now)
        if self.pace is None:
            return left, whole
        return min(left, remaining(self.pace, self.arrival, now)), max(whole, self.arrival - now)

    def reached(self, now: int, tokens: int) -> str:
        """Names the limit for which a request would wait longest."""
        longest, allowance = self.wait(now, tokens), self.allowance
        requests = f"{allowance.requests_per_minute} requests per minute"
        if self.requests is not None and self.requests.wait(now) == longest:
            return f"{requests} for this {self.whose}"
        if self.pace is not None and wait(self.pace, self.arrival, now) == longest:
            return f"{requests}, {self.pace.burst} at once, for this {self.whose}"
        return f"{allowance.tokens_per_minute} tokens per minute for this {self.whose}"

    def at_rest(self, now: int) -> bool:
        """Whether forgetting it would change nothing."""
        if self.running or self.holders or self.arrival > now:
            return False
        return not any(known and known.used(now) for known in (self._known_requests, self._known_tokens))


def _with_limit(window: Window | None, limit: int) -> Window | None:
    """A window is made when there is something to put in."""
    if window is None:
        return Window(limit) if limit else None
    window.limit = limit
    return window
