"""A listener of our own server on a real socket, with handlers that a test chooses."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import msgspec
import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import OPEN
from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.guard import Guard, GuardSettings
from stellwerk.http.listener import Listener
from stellwerk.http.router import Route, Router
from stellwerk.http.serving import Server, address_of, bind


class Clock(SystemClock):
    """The machine's clock, which a test can put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return SystemClock.monotonic() + self.ahead


@dataclass
class Watch:
    refusals: list[str] = field(default_factory=list)
    leavers: int = 0

    def refused(self, code: str) -> None:
        self.refusals.append(code)

    def left(self) -> None:
        self.leavers += 1


def render_error(error, _path):
    return error.status, ((b"content-type", b"application/json"), *error.headers), msgspec.json.encode(
        {"code": error.code, "message": error.message}
    )


async def echo(exchange) -> None:
    seen = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query.decode(),
        "body": exchange.body.decode("latin-1"),
        "headers": {name.decode(): value.decode("latin-1") for name, value in exchange.headers.items()},
    }
    exchange.respond(200, ((b"content-type", b"application/json"),), msgspec.json.encode(seen))


@dataclass
class Running:
    port: int
    listener: Listener
    router: Router
    watch: Watch
    clock: Clock
    server: Server
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def add(self, method, path, handler) -> None:
        self.router.add(Route(method, path, OPEN, handler))

    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def disconnect(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def exchange(self, data: bytes, *, seconds: float = 5.0) -> bytes:
        """Sends bytes and returns everything that comes back until the server closes or falls silent."""
        reader, writer = await self.connect()
        writer.write(data)
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while part := await reader.read(65536):
                    got += part
        return got

    def advance(self, seconds: float) -> None:
        self.clock.ahead += seconds
        self.listener.sweep()


@pytest.fixture
async def serve():
    """Starts listeners: `await serve(GuardSettings(...))`."""
    running = []

    async def start(settings: GuardSettings | None = None) -> Running:
        clock, watch, router = Clock(), Watch(), Router()
        router.add(Route("POST", "/echo", OPEN, echo))
        router.add(Route("GET", "/echo", OPEN, echo))
        router.add(Route("GET", "/things/{rest}", OPEN, echo))
        listener = Listener(
            router=router, guard=Guard(settings or GuardSettings()), render_error=render_error, watch=watch, clock=clock
        )
        application = AsgiApplication(router, render_error, clock, listener.guard.settings.body_bytes)
        server = Server(listener, application, drain_seconds=5)
        bound = bind("127.0.0.1", 0)
        task = asyncio.ensure_future(server.serve([bound]))
        async with asyncio.timeout(5):
            while not server.started:
                await asyncio.sleep(0)
        running.append((Running(address_of(bound)[1], listener, router, watch, clock, server), task))
        return running[-1][0]

    yield start
    for each, task in running:
        each.server.stop(now=True)
        await task
        await each.disconnect()
