"""uvicorn as host: it accepts the sockets of one listener, runs the ASGI side and drains both."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Generator
from functools import partial
from typing import Any

import uvicorn

from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.listener import Listener
from stellwerk.http.server import ServerProtocol

_TICKS_BETWEEN_SWEEPS = 5
_BACKLOG = 4096
_TLS_GOODBYE_SECONDS = 2.0
"""How long a closed TLS connection waits for its client to say goodbye too: an idle client may never read again."""
_TRIES_FOR_A_FREE_PORT = 8
_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class CannotListen(OSError):
    """A listener cannot be opened: `strerror` is the bare reason, the whole text a sentence for the operator."""

    def __init__(self, number: int | None, reason: str, where: str) -> None:
        super().__init__(number, reason)
        self.where = where

    def __str__(self) -> str:
        return f"Cannot listen on {self.where}: {self.strerror}."


class Server(uvicorn.Server):
    """A uvicorn server for one listener. Signals belong to the application, which may run several of these."""

    def __init__(
        self,
        listener: Listener,
        application: AsgiApplication,
        drain_seconds: float,
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
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
        self._ssl_context = ssl_context
        self.ready = asyncio.Event()
        """Set once requests are answered."""

    def set_drain_seconds(self, seconds: float) -> None:
        """How long a shutdown that begins from now on waits for running answers."""
        self.config.timeout_graceful_shutdown = round(seconds)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ssl_context is None:
            await super().startup(sockets)
        else:
            await self._start_tls(self._ssl_context, sockets or [])
        self.ready.set()

    async def _start_tls(self, context: ssl.SSLContext, sockets: list[socket.socket]) -> None:
        """What `startup` of uvicorn does, with time limits for both ends of a TLS connection."""
        await self.lifespan.startup()
        protocol = partial(
            ServerProtocol,
            self.config,
            self.server_state,
            self.lifespan.state,
            listener=self._listener,
        )
        self.servers = [
            await asyncio.get_running_loop().create_server(
                protocol,
                sock=each,
                ssl=context,
                ssl_handshake_timeout=self._listener.guard.settings.head_seconds,
                ssl_shutdown_timeout=_TLS_GOODBYE_SECONDS,
                backlog=self.config.backlog,
            )
            for each in sockets
        ]
        self.started = True

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
    """A bound socket that is not listening yet. Raises CannotListen when the address is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(error, host, port) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise _cannot_listen(error, host, port) from error
    return bound


def bind_loopback(port: int) -> list[socket.socket]:
    """Sockets for 127.0.0.1 and, where the machine has IPv6, for ::1 on the same port: `localhost` may mean either.

    Raises CannotListen when one of them is taken: clients would reach another program half of the time.
    """
    if port:
        return _bind_both(port)
    # Any free one: what is free for the first address may be taken for the second.
    for _ in range(_TRIES_FOR_A_FREE_PORT - 1):
        with contextlib.suppress(CannotListen):
            return _bind_both(0)
    return _bind_both(0)


def _bind_both(port: int) -> list[socket.socket]:
    bound = [bind("127.0.0.1", port)]
    try:
        bound.append(bind("::1", address_of(bound[0])[1]))
    except OSError as error:
        if error.errno not in _NO_SUCH_ADDRESS:
            bound[0].close()
            raise
    return bound


def _cannot_listen(error: OSError, host: str, port: int) -> CannotListen:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        # Its number is none of errno's.
        return CannotListen(errno.EADDRNOTAVAIL, "the host name is not known", where)
    reasons = {
        errno.EADDRINUSE: "another program listens there",
        errno.EADDRNOTAVAIL: "this is not an address of this machine",
        errno.EACCES: "ports below 1024 need more rights",
    }
    return CannotListen(error.errno, reasons.get(error.errno or 0) or error.strerror or "unknown reason", where)


def address_of(bound: socket.socket) -> tuple[str, int]:
    name: Any = bound.getsockname()
    return str(name[0]), int(name[1])
