"""A listener on a real socket with handlers that a test chooses: our own protocol, or the same routes over ASGI."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
import uvicorn

from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import OPEN
from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.cors import NOBODY, Origins
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
    return (
        error.status,
        ((b"content-type", b"application/json"), *error.headers),
        msgspec.json.encode({"code": error.code, "message": error.message}),
    )


async def echo(exchange) -> None:
    seen = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query.decode("latin-1"),
        "body": exchange.body.decode("latin-1"),
        "headers": {name.decode(): value.decode("latin-1") for name, value in exchange.headers.items()},
    }
    exchange.respond(200, ((b"content-type", b"application/json"),), msgspec.json.encode(seen))


class PlainServer(uvicorn.Server):
    """uvicorn with its own protocol; signals belong to the test run."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield

    def stop(self, *, now: bool = False) -> None:
        self.should_exit = True
        self.force_exit = now


@dataclass
class Running:
    port: int
    listener: Listener
    router: Router
    watch: Watch
    clock: Clock
    server: Server | PlainServer
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
        self.writers.clear()

    async def exchange(self, data: bytes, *, seconds: float = 30.0) -> bytes:
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


@contextlib.asynccontextmanager
async def listening(
    settings: GuardSettings | None = None,
    *,
    plain: bool = False,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
    origins: Origins = NOBODY,
) -> AsyncIterator[Running]:
    """A running listener; with `plain` behind uvicorn's own protocol instead of ours, with `context` behind TLS."""
    clock, watch, router = Clock(), Watch(), Router()
    router.add(Route("POST", "/echo", OPEN, echo))
    router.add(Route("GET", "/echo", OPEN, echo))
    router.add(Route("GET", "/things/{rest}", OPEN, echo))
    listener = Listener(
        router=router,
        guard=Guard(settings or GuardSettings()),
        render_error=render_error,
        watch=watch,
        clock=clock,
        origins=origins,
    )
    application = AsgiApplication(router, render_error, clock, listener.guard.settings.body_bytes, origins)
    server: Server | PlainServer
    if plain:
        server = PlainServer(
            uvicorn.Config(
                application,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                timeout_graceful_shutdown=5,
            )
        )
    else:
        server = Server(listener, application, drain_seconds=5, ssl_context=context)
    bound = bind(host, 0)
    task = asyncio.ensure_future(server.serve([bound]))
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0)
    running = Running(address_of(bound)[1], listener, router, watch, clock, server)
    try:
        yield running
    finally:
        await running.disconnect()
        server.stop(now=True)
        await task
