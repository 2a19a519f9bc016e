"""The sockets of a gateway: the main listener, and those for the clients of other systems."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import msgspec

from stellwerk.app import settings as cut
from stellwerk.app.web_origins import WebOrigins
from stellwerk.config.settings import Config
from stellwerk.core.clock import Clock
from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.cors import Origins
from stellwerk.http.guard import Guard
from stellwerk.http.listener import Listener, RenderError, Watch
from stellwerk.http.router import Router
from stellwerk.http.serving import Server, address_of

MAIN = "main"
_log = logging.getLogger("stellwerk.app")


class ListenerStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    addresses: tuple[str, ...]
    state: str
    """`open`, or `down` when it could not be opened."""
    reason: str | None = None
    tls: bool = False
    peers: tuple[str, ...] | None = None
    """The networks that may connect; None is everybody who can."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gateway answers from now on, and what stayed closed."""

    host: str
    """Of the main listener, as its port."""
    port: int
    listeners: Sequence[ListenerStatus]
    authority: Path | None
    """What clients of a TLS listener have to trust; None without one, and for an operator's own certificate."""
    chat_model: str | None = None
    """One that can be tried; None when there is none yet."""


class _Open(msgspec.Struct, frozen=True):
    listener: Listener
    guard: Guard
    server: Server
    sockets: Sequence[socket.socket]
    peers: tuple[IPv4Network | IPv6Network, ...] | None
    tls: bool


class Listeners:
    """Every listener of the process; the main one comes first, and when it ends, all of them do."""

    def __init__(
        self, config: Config, watch: Watch, clock: Clock, ending: Callable[[], None], origins: WebOrigins
    ) -> None:
        """`ending` is called before the first port is given back, and may be called again."""
        self._config = config
        self._watch = watch
        self._clock = clock
        self._ending = ending
        self.origins = origins
        self._open: dict[str, _Open] = {}
        self._down: dict[str, str] = {}

    def add(
        self,
        name: str,
        sockets: Sequence[socket.socket],
        router: Router,
        render_error: RenderError,
        *,
        peers: tuple[IPv4Network | IPv6Network, ...] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        origins: Origins | None = None,
    ) -> None:
        """`peers` are who may connect; None is everybody who can. The sockets are closed at the end. `origins` are
        whose pages may read answers; None is those of the config."""
        guard = Guard(cut.guard_settings(self._config, peers))
        origins = self.origins.everywhere if origins is None else origins
        listener = Listener(
            router=router,
            guard=guard,
            render_error=render_error,
            watch=self._watch,
            clock=self._clock,
            origins=origins,
        )
        application = AsgiApplication(router, render_error, self._clock, self._config.guard.body_bytes, origins)
        server = Server(listener, application, self._config.drain_seconds, ssl_context=ssl_context)
        self._open[name] = _Open(listener, guard, server, sockets, peers, ssl_context is not None)

    def give_up(self, name: str, reason: str) -> None:
        """A listener that cannot be opened; the others go on."""
        self._down[name] = reason
        _log.error("the listener %s stays closed: %s", name, reason)

    async def serve(self, ready: asyncio.Event) -> None:
        """Serves until `stop`; `ready` is set once every listener answers."""
        serving = [asyncio.ensure_future(each.server.serve(list(each.sockets))) for each in self._open.values()]
        starting = asyncio.ensure_future(self._all_ready(ready))
        try:
            # The first that ends takes the others along, whether it was told to or failed.
            await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
            self.stop()
            await asyncio.gather(*serving)
        finally:
            starting.cancel()

    async def _all_ready(self, ready: asyncio.Event) -> None:
        for each in self._open.values():
            await each.server.ready.wait()
        ready.set()

    def stop(self, *, now: bool = False) -> None:
        self._ending()
        for each in self._open.values():
            each.server.stop(now=now)

    def change(self, config: Config) -> None:
        """Takes over what can change while they are open."""
        self._config = config
        for each in self._open.values():
            each.guard.settings = cut.guard_settings(config, each.peers)
            each.server.set_drain_seconds(config.drain_seconds)

    def close(self) -> None:
        for each in self._open.values():
            for bound in each.sockets:
                bound.close()

    @property
    def stopping(self) -> bool:
        return any(each.server.should_exit for each in self._open.values())

    @property
    def draining(self) -> bool:
        return any(each.listener.draining for each in self._open.values())

    @property
    def connections(self) -> int:
        """Open connections of clients."""
        return sum(len(each.listener.connections) for each in self._open.values())

    def ports(self) -> set[int]:
        """The TCP ports of all that are open."""
        return {address_of(bound)[1] for each in self._open.values() for bound in each.sockets}

    def routers(self) -> dict[str, Router]:
        """What each listener serves."""
        return {name: each.listener.router for name, each in self._open.items()}

    def opened(self, authority: Path | None, chat_model: str | None) -> Opened:
        """`authority` is what signed the certificate of those with TLS, `chat_model` one that can be tried."""
        host, port = address_of(self._open[MAIN].sockets[0])
        return Opened(host=host, port=port, listeners=self.status(), authority=authority, chat_model=chat_model)

    def status(self) -> list[ListenerStatus]:
        opened = [
            ListenerStatus(
                name=name,
                addresses=tuple(_shown(bound) for bound in each.sockets),
                state="open",
                tls=each.tls,
                peers=None if each.peers is None else tuple(map(str, each.peers)),
            )
            for name, each in self._open.items()
        ]
        return opened + [
            ListenerStatus(name=name, addresses=(), state="down", reason=reason) for name, reason in self._down.items()
        ]


def _shown(bound: socket.socket) -> str:
    try:
        host, port = address_of(bound)
    except OSError:
        return "closed"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
