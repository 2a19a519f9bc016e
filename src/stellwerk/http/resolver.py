"""Addresses of host names, looked up without waiting in the loop and without using up its threads."""

import asyncio
import socket

_AT_ONCE = 2


class Resolver:
    """The system's resolver, asked for a few names at a time.

    A lookup that nobody waits for any more still occupies one of the few threads which all lookups of the process
    share; names that somebody made slow must not take them all.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._running: set[asyncio.Task[list[str]]] = set()

    @property
    def running(self) -> int:
        """Lookups that have not ended, whether somebody waits for them or not."""
        return len(self._running)

    async def __call__(self, host: str, port: int) -> list[str]:
        await self._places.acquire()
        lookup = asyncio.ensure_future(_look_up(host, port))
        self._running.add(lookup)
        lookup.add_done_callback(self._done)
        return await asyncio.shield(lookup)

    def _done(self, lookup: asyncio.Task[list[str]]) -> None:
        self._running.discard(lookup)
        self._places.release()
        if not lookup.cancelled():
            # Read, so that asyncio does not report a failure that nobody waits for.
            lookup.exception()


async def _look_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(where[0]) for *_, where in found]
