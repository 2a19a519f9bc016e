"""Looks at the gateway again and again: one look at a time, rarer while nobody answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from stellwerk.tui.snapshot import Snapshot
from stellwerk.tui.source import Source
from stellwerk.tui.trouble import ConsoleTrouble

_PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
_REFUSED_PAUSE = 30.0
"""A wrong token stays wrong, and a gateway counts those who keep trying."""


def pause_after(trouble: ConsoleTrouble, failures: int) -> float:
    """Seconds until the next look after so many failures in a row."""
    if trouble.status in {401, 403}:
        return _REFUSED_PAUSE
    return _PAUSES[min(failures, len(_PAUSES)) - 1]


class Feed:
    """Owns the source. `show` is called after each look, `lose` after a failed one with the seconds to the next."""

    def __init__(
        self,
        choose: Callable[[], Awaitable[Source]],
        *,
        show: Callable[[Snapshot], None],
        lose: Callable[[ConsoleTrouble, float], None],
        every: float,
    ) -> None:
        self._choose = choose
        self._show = show
        self._lose = lose
        self._every = every
        self._wanted = asyncio.Event()
        self.source: Source | None = None
        """None while nobody answers."""

    def hurry(self) -> None:
        """The next look is at once; after one that runs, when one runs."""
        self._wanted.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        failures = 0
        while True:
            self._wanted.clear()
            try:
                if self.source is None:
                    self.source = await self._choose()
                self._show(await self.source.read())
                failures, pause = 0, self._every
            except ConsoleTrouble as trouble:
                # A gateway that comes back may be another one, or may have other routes.
                self.source = None
                failures += 1
                pause = pause_after(trouble, failures)
                self._lose(trouble, pause)
            await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            return
