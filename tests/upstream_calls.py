"""The calling side of tests about upstreams: pools with a clock that a test holds, and an upstream of raw bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from stellwerk.http.pool import Origin, Pool, Pools
from stellwerk.http.upstream import UpstreamSettings
from tests.running_listener import Clock

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n"


@dataclass
class Counts:
    connections: int = 0
    reuses: int = 0

    def connected(self) -> None:
        self.connections += 1

    def reused(self) -> None:
        self.reuses += 1


class Calls:
    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = Counts()
        self.pools = Pools(UpstreamSettings(), self.watch, self.clock)

    def pool(self, port: int, scheme: str = "http", host: str = "127.0.0.1", **settings) -> Pool:
        return self.pools.pool(Origin(scheme=scheme, host=host, port=port), UpstreamSettings(**settings))

    async def send(self, pool: Pool, request: bytes = GET, seconds: float = 1e6):
        return await pool.send(request, self.clock.monotonic() + seconds)

    async def read(self, pool: Pool, request: bytes = GET) -> bytes:
        return await (await self.send(pool, request)).read()

    def advance(self, seconds: float) -> None:
        """Lets `seconds` pass in which no byte came."""
        self.pools.sweep()
        self.clock.ahead += seconds
        self.pools.sweep()

    async def close(self) -> None:
        self.pools.close()
        # The transports close themselves in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)


@dataclass
class Line:
    """One connection to the raw upstream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    """1 for the first connection."""

    async def request(self) -> bytes:
        """The next request's head; its body, if it has one, stays unread. b"" when the caller has left."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Returns when the caller has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


def answer(body: bytes = b"ok", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (extra, len(body), body)


@dataclass
class RawUpstream:
    """Runs `talk` for each connection and closes it when that returns."""

    talk: Callable[[Line], Awaitable[None]]
    port: int = 0
    connections: int = 0
    tasks: set[asyncio.Task] = field(default_factory=set)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, talk) -> AsyncIterator["RawUpstream"]:
        upstream = cls(talk)
        server = await asyncio.start_server(upstream._serve, "127.0.0.1", 0)
        upstream.port = server.sockets[0].getsockname()[1]
        try:
            yield upstream
        finally:
            server.close()
            for task in upstream.tasks:
                task.cancel()
            await asyncio.gather(*upstream.tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.talk(Line(reader, writer, self.connections))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()


def says(*pieces, close=False):
    """An upstream that answers every request with these bytes, piece by piece."""

    async def talk(line):
        while await line.request():
            for piece in pieces:
                await line.say(piece)
                await asyncio.sleep(0)
            if close:
                return

    return talk


def silent_after(data=b""):
    """An upstream that says this much and then nothing; `left` is set when the caller has gone."""
    left, said = asyncio.Event(), asyncio.Event()

    async def talk(line):
        await line.request()
        await line.say(data)
        said.set()
        await line.gone()
        left.set()

    return talk, said, left


async def pour(reply) -> bytes:
    got = []
    await reply.pour(got.append)
    return b"".join(got)


async def take_pieces(reply) -> bytes:
    got = b""
    while piece := await reply.next():
        got += piece
    return got


READERS = [pytest.param(lambda reply: reply.read(), id="read"), pytest.param(take_pieces, id="next"), pour]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  # nothing tells when a socket has been read
            await asyncio.sleep(0)
