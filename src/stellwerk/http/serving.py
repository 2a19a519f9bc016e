"""uvicorn as host: it accepts the sockets of one listener, runs the ASGI side and drains both."""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from functools import partial
from typing import Any

import uvicorn

from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.listener import Listener
from stellwerk.http.server import ServerProtocol

_TICKS_BETWEEN_SWEEPS = 5
_BACKLOG = 4096


class Server(uvicorn.Server):
    """A uvicorn server for one listener. Signals belong to the application, which may run several of these."""

    def __init__(self, listener: Listener, application: AsgiApplication, drain_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=partial(ServerProtocol, listener=listener),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                # The peer is who the socket says it is: a header can say anything.
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=round(drain_seconds),
            )
        )
        self._listener = listener
        self.ready = asyncio.Event()
        """Set once requests are answered."""

    def set_drain_seconds(self, seconds: float) -> None:
        """How long a shutdown that begins from now on waits for running answers."""
        self.config.timeout_graceful_shutdown = round(seconds)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if counter % _TICKS_BETWEEN_SWEEPS == 0:
            self._listener.sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, lets answers finish for the drain time and ends what is left."""
        self._listener.drain()
        await super().shutdown(sockets)
        self._listener.abort()

    def stop(self, *, now: bool = False) -> None:
        """Begins the shutdown; with `now` it does not wait for running answers."""
        self.should_exit = True
        self.force_exit = self.force_exit or now


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that is not listening yet. Raises OSError when the address is taken or not ours."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def address_of(bound: socket.socket) -> tuple[str, int]:
    name: Any = bound.getsockname()
    return str(name[0]), int(name[1])
