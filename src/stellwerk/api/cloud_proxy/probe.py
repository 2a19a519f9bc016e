"""Whether the cloud answers, asked seldom."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError

State = Literal["reachable", "unreachable", "error"]

LONGEST_WAIT: Final = 5.0
"""Seconds that the cloud has for its answer."""
GOOD_FOR: Final = 10.0
"""Seconds for which an answer counts: whoever asks more often hears the same."""


class CloudProbe:
    """Asks at most one question at a time, whoever wants to know."""

    def __init__(self, ask: Callable[[], Awaitable[int]], clock: Clock) -> None:
        """`ask` gives the status of the cloud's answer; it raises GatewayError and OSError without one."""
        self._ask = ask
        self._clock = clock
        self._turn = asyncio.Lock()
        self._last: tuple[float, State] | None = None

    async def state(self) -> State:
        async with self._turn:
            if self._last is None or self._clock.monotonic() - self._last[0] >= GOOD_FOR:
                found = await self._look()
                self._last = self._clock.monotonic(), found
            return self._last[1]

    async def _look(self) -> State:
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                status = await self._ask()
        except (GatewayError, OSError):
            return "unreachable"
        return "reachable" if status < 500 else "error"
