"""Connections to upstreams, kept open between requests."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable, UpstreamError, UpstreamTimeout
from stellwerk.http.upstream import Answer, ConnectionDied, UpstreamConnection, UpstreamSettings

_PRINTABLE = re.compile(r"[\x21-\x7e]*")
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?|[0-9a-f.]*:[0-9a-f:.]*")


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Scheme, host and port: what a connection, and the credential sent over it, is bound to."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of the Host header (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


def parse_base_url(url: str) -> tuple[Origin, str]:
    """Splits a base URL into origin and path without a closing slash. Raises ValueError saying what is wrong."""
    # urlsplit drops line ends without a word, and everything else here would end up in a request's head.
    if _PRINTABLE.fullmatch(url) is None:
        raise ValueError("a base URL has no spaces and no characters outside ASCII")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("a base URL starts with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a base URL carries no user name and no password")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has no query and no fragment")
    if not parts.hostname or _HOST.fullmatch(parts.hostname) is None:
        raise ValueError("a base URL names a host")
    if parts.port == 0:
        raise ValueError("a base URL has a port between 1 and 65535")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Origin(scheme=parts.scheme, host=parts.hostname, port=port), parts.path.rstrip("/")


class PoolWatch(Protocol):
    """Counts connections; never raises."""

    def connected(self) -> None: ...

    def reused(self) -> None: ...


class Pool:
    """The connections to one origin."""

    def __init__(
        self, origin: Origin, settings: UpstreamSettings, watch: PoolWatch, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        self.origin = origin
        self.settings = settings
        self._watch = watch
        self._tls = tls
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._dialling = 0
        self._waiting: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._closed = False

    async def send(self, request: bytes, deadline: float) -> Answer:
        """Sends a whole request and returns its answer once the head is here.

        A kept connection that turns out to be dead before any byte came back is replaced.
        `deadline` is in monotonic seconds. Raises UpstreamError; when cancelled, the connection is closed.
        """
        connection = self._take_idle() or await self._connect()
        while connection.used:
            self._watch.reused()
            try:
                return await _head(connection.request(request, deadline))
            except ConnectionDied:
                connection = await self._connect()
        return await _head(connection.request(request, deadline))

    def _take_idle(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        return None

    async def _connect(self) -> UpstreamConnection:
        settings = self.settings
        waiting = False
        try:
            async with asyncio.timeout(settings.connect_seconds):
                if self._is_full():
                    waiting = True
                    kept = await self._wait_for_room()
                    waiting = False
                    if kept is not None:
                        return kept
                else:
                    self._dialling += 1
                return await self._dial()
        except TimeoutError:
            if waiting:
                raise Unavailable(
                    "All connections to the upstream are in use.", retry_after=1, may_fall_back=True
                ) from None
            raise UpstreamTimeout("The upstream could not be reached in time.", may_fall_back=True) from None
        except ssl.SSLError:
            raise UpstreamError(
                "The upstream's TLS certificate or protocol is not valid.", may_fall_back=True
            ) from None
        except OSError:
            raise UpstreamError(
                "The upstream cannot be reached.", code="upstream_unreachable", may_fall_back=True
            ) from None

    def _is_full(self) -> bool:
        return len(self._all) + self._dialling >= self.settings.connections

    async def _dial(self) -> UpstreamConnection:
        """Opens a connection on a place that is already counted in `_dialling`."""
        origin = self.origin
        secure = origin.scheme == "https"
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: UpstreamConnection(self.settings, self._keep, self._forget),
                origin.host,
                origin.port,
                ssl=self._tls() if secure else None,
                server_hostname=origin.host if secure else None,
            )
            if connection.alive:
                self._all.add(connection)
        finally:
            self._dialling -= 1
            self._admit_next()
        self._watch.connected()
        return connection

    async def _wait_for_room(self) -> UpstreamConnection | None:
        """Waits in line for a connection that has become free; None means a place to dial from, counted already."""
        waiter: asyncio.Future[UpstreamConnection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.done() or waiter.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(waiter)
            elif (kept := waiter.result()) is not None:
                self._keep(kept)
            else:
                self._dialling -= 1
                self._admit_next()
            raise

    def _keep(self, connection: UpstreamConnection) -> None:
        # Handed over directly: whoever asks next must not overtake those who wait.
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._closed or len(self._idle) >= self.settings.idle_connections:
            connection.close()
        else:
            self._idle.append(connection)

    def _forget(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)
        self._admit_next()

    def _admit_next(self) -> None:
        while self._waiting and not self._is_full():
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._dialling += 1
                waiter.set_result(None)

    def sweep(self, now: float) -> None:
        for connection in list(self._all):
            answer = connection.answer
            if answer is not None and not connection.reading_held:
                answer.sweep(now)

    def close(self) -> None:
        """Ends every connection; one that is opened afterwards serves its request and is not kept."""
        self._closed = True
        for connection in list(self._all):
            connection.close()


async def _head(answer: Answer) -> Answer:
    try:
        await answer.head()
    except BaseException:
        answer.abort()
        raise
    return answer


class Pools:
    """All pools of the process, by origin; the one place from which connections go out."""

    def __init__(self, settings: UpstreamSettings, watch: PoolWatch, clock: Clock) -> None:
        self._settings = settings
        self._watch = watch
        self._clock = clock
        self._pools: dict[Origin, Pool] = {}
        self._context: ssl.SSLContext | None = None

    def pool(self, origin: Origin, settings: UpstreamSettings | None = None) -> Pool:
        """The pool of an origin; made at first use. Origins come from the configuration, never from a request.

        `settings` hold for connections that are opened from now on, in place of those that the pool had.
        """
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, settings or self._settings, self._watch, self._tls)
        elif settings is not None:
            pool.settings = settings
        return pool

    def _tls(self) -> ssl.SSLContext:
        # Reading the machine's certificates takes tens of milliseconds: not before the first https origin is used.
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def forget(self, origin: Origin) -> None:
        """Closes and drops a pool whose origin is not used any more."""
        pool = self._pools.pop(origin, None)
        if pool is not None:
            pool.close()

    def sweep(self) -> None:
        """Ends answers that have been silent for too long. Called about twice a second."""
        now = self._clock.monotonic()
        for pool in self._pools.values():
            pool.sweep(now)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
