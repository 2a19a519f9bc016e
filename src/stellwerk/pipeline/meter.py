"""Counts one call while it passes."""

import msgspec

from stellwerk.core.call import Call, Operation
from stellwerk.core.clock import Clock
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.core.plan import Price, Target
from stellwerk.core.ports import Hold, Likely

_FRAME_BYTES = 350
"""What an event of a stream may weigh without its text: with less, a stream of single tokens would cost too much."""
_BYTES_PER_TOKEN = 4


class RunningCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has not ended yet."""

    id: str
    operation: Operation
    model: str
    """As the client named it."""
    key_id: str
    user_id: int
    provider: str | None
    """Where it was sent last; None as long as it waits for money or its turn."""
    target: str | None
    stream: bool
    background: bool
    """It is made for a job."""
    seconds: float
    """Since it arrived."""
    first_byte: float | None
    """Seconds from its arrival to the first byte of its answer; None before."""


class CallMeter:
    """What is known of one call so far; becomes its Outcome exactly once."""

    __slots__ = (
        "_call",
        "_clock",
        "_default_price",
        "_estimate",
        "_events",
        "_first_byte",
        "_size",
        "attempts",
        "error",
        "hold",
        "status",
        "target",
        "upstream_key",
        "usage",
    )

    def __init__(self, call: Call, clock: Clock, estimate: Likely, default_price: Price | None = None) -> None:
        """`default_price` counts where a target has none; both are those of the moment at which the call began."""
        self._call = call
        self._clock = clock
        self._estimate = estimate
        self._default_price = default_price
        self._first_byte: float | None = None
        self._events = 0
        self._size = 0
        self.hold: Hold | None = None
        self.attempts = 0
        self.target: Target | None = None
        self.usage: Usage | None = None
        self.upstream_key: int | None = None
        self.status = 200
        self.error: str | None = None

    @property
    def call_id(self) -> str:
        return self._call.id

    def running(self) -> RunningCall:
        call, target, first = self._call, self.target, self._first_byte
        return RunningCall(
            id=call.id,
            operation=call.operation,
            model=call.model,
            key_id=call.principal.key_id,
            user_id=call.principal.user_id,
            provider=target.provider if target is not None else None,
            target=target.model if target is not None else None,
            stream=call.stream,
            background=call.background,
            seconds=self._clock.monotonic() - call.received,
            first_byte=first - call.received if first is not None else None,
        )

    def attempt(self, target: Target) -> None:
        self.attempts += 1
        self.target = target
        self.usage = None
        self.upstream_key = None

    def begin(self) -> float:
        if self._first_byte is None:
            self._first_byte = self._clock.monotonic()
        return self._first_byte - self._call.received

    def deliver(self, events: int, size: int) -> None:
        self._events += events
        self._size += size

    def count(self, usage: Usage) -> None:
        self.usage = usage

    def fail(self, status: int, code: str) -> None:
        """The first failure stays: what follows from it says less."""
        if self.error is None:
            self.status = status
            self.error = code

    @property
    def was_cut_uncounted(self) -> bool:
        """The upstream had counted the prompt only, as some do in their first event, when the call failed."""
        return self.error is not None and self.usage is not None and not self.usage.output_tokens

    def own_count(self) -> Usage | None:
        """What the call used up as far as we can tell; None when the client was given nothing.

        For upstreams that report nothing and for streams that were cut: an answer is never free because nobody
        counted it.
        """
        if not self._events:
            return None
        text = max(0, self._size - self._events * _FRAME_BYTES)
        # The estimate is more than the prompt should have, by a third.
        return Usage(
            input_tokens=-(-self._estimate.input_tokens * 3 // 4),
            output_tokens=0 if self._estimate.output_tokens == 0 else max(self._events, text // _BYTES_PER_TOKEN),
        )

    def outcome(self, usage: Usage | None, cost: int | None, *, estimated: bool) -> Outcome:
        call = self._call
        target = self.target
        duration = self._clock.monotonic() - call.received
        first = self._first_byte
        return Outcome(
            id=call.id,
            at=self._clock.now() - duration,
            key_id=call.principal.key_id,
            user_id=call.principal.user_id,
            operation=call.operation,
            model=call.model,
            provider=target.provider if target is not None else None,
            target=target.model if target is not None else None,
            stream=call.stream,
            status=self.status,
            error=self.error,
            attempts=self.attempts,
            usage=usage,
            estimated=estimated,
            cost=cost,
            duration=duration,
            first_byte=first - call.received if first is not None else None,
            upstream_key=self.upstream_key,
        )

    @property
    def price(self) -> Price | None:
        target = self.target
        if target is None:
            return None
        return self._default_price if target.price is None else target.price
