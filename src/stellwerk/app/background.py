"""The work that runs as long as the gateway does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_log = logging.getLogger("stellwerk.app")


class Background:
    """Owns its tasks: keeps them, and ends them together."""

    def __init__(self, failed: Callable[[], None]) -> None:
        """`failed` is called when work that should never end has ended: a gateway that is crippled in a way that
        nobody sees had better stop."""
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    def start(self, works: Iterable[Awaitable[None]]) -> None:
        """Work that goes on until `end`."""
        for work in works:
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._report)

    def spawn(self, work: Awaitable[None]) -> None:
        """Work that comes to an end by itself."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cancels everything and waits for it."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _report(self, task: "asyncio.Task[Any]") -> None:
        if self._ending or task.cancelled():
            return
        _log.error("a part of the gateway failed; it stops", exc_info=task.exception())
        self._failed()
