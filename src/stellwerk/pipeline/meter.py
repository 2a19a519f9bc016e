"""Counts one call while it passes."""

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.core.plan import Price, Target


class CallMeter:
    """What is known of one call so far; becomes its Outcome exactly once."""

    __slots__ = ("_call", "_clock", "_first_byte", "attempts", "error", "status", "target", "usage")

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self._first_byte: float | None = None
        self.attempts = 0
        self.target: Target | None = None
        self.usage: Usage | None = None
        self.status = 200
        self.error: str | None = None

    def attempt(self, target: Target) -> None:
        self.attempts += 1
        self.target = target
        self.usage = None

    def begin(self) -> float:
        if self._first_byte is None:
            self._first_byte = self._clock.monotonic()
        return self._first_byte - self._call.received

    def count(self, usage: Usage) -> None:
        self.usage = usage

    def fail(self, status: int, code: str) -> None:
        """The first failure stays: what follows from it says less."""
        if self.error is None:
            self.status = status
            self.error = code

    def outcome(self, cost: int | None) -> Outcome:
        call = self._call
        target = self.target
        duration = self._clock.monotonic() - call.received
        first = self._first_byte
        return Outcome(
            id=call.id,
            at=self._clock.now() - duration,
            key_id=call.principal.key_id,
            operation=call.operation,
            model=call.model,
            provider=target.provider if target is not None else None,
            target=target.model if target is not None else None,
            stream=call.stream,
            status=self.status,
            error=self.error,
            attempts=self.attempts,
            usage=self.usage,
            cost=cost,
            duration=duration,
            first_byte=first - call.received if first is not None else None,
        )

    @property
    def price(self) -> Price | None:
        return self.target.price if self.target is not None else None
