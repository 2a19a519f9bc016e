"""Opens the listeners for sigoREST's clients: plain HTTP for this machine, TLS for the networks that are trusted."""

import ipaddress
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from stellwerk import __version__
from stellwerk.api._guard import Routes
from stellwerk.api.openai.conversations import Conversations
from stellwerk.api.sigorest.chat import Chat
from stellwerk.api.sigorest.endpoints import BreakerState, SigoRestAPI
from stellwerk.api.sigorest.errors import render_error
from stellwerk.app.listeners import Listeners
from stellwerk.app.people import People
from stellwerk.app.providers import Providers
from stellwerk.config.listeners import SigoRest
from stellwerk.config.settings import Config
from stellwerk.core.plan import Model
from stellwerk.http.certificates import Certificate, CertificateError, check_certificate, ensure_certificate
from stellwerk.http.interfaces import machine_addresses, machine_names
from stellwerk.http.router import Router
from stellwerk.http.serving import CannotListen, bind, bind_loopback
from stellwerk.http.tls import LiveContext
from stellwerk.routing.breaker import Breakers
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.plan import may_see
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.telemetry.metrics import Metrics

COMPAT = "sigorest"
_HTTP, _HTTPS = "sigorest http", "sigorest https"
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_log = logging.getLogger("stellwerk.app")


class SigoRestListeners:
    """Makes the routes of both listeners and opens them; a port or certificate that cannot be had closes only one."""

    def __init__(
        self,
        *,
        listeners: Listeners,
        people: People,
        catalogue: Catalogue,
        providers: Providers,
        breakers: Breakers,
        conversations: Conversations,
        memory: MemoryBlock,
        metrics: Metrics,
        obstacles: Callable[[], list[str]],
        config: Callable[[], Config],
        data: Path,
    ) -> None:
        self._listeners = listeners
        self._people = people
        self._catalogue = catalogue
        self._providers = providers
        self._breakers = breakers
        self._conversations = conversations
        self._memory = memory
        self._metrics = metrics
        self._obstacles = obstacles
        self._config = config
        self._data = data
        self.authority: Path | None = None
        """The certificate that clients of the networks have to trust; None while there is none of our own."""

    async def open(self) -> list[Coroutine[Any, Any, None]]:
        """Opens what the config says; returns the work that has to run as long as they are open."""
        config = self._config().sigorest
        try:
            sockets = bind_loopback(config.http_port)
        except CannotListen as error:
            self._listeners.give_up(_HTTP, str(error))
        else:
            router = self._router(lambda: True)
            self._listeners.add(_HTTP, sockets, router, render_error, peers=_LOOPBACK)
        return await self._open_lan(config) if config.lan_trust else []

    async def _open_lan(self, config: SigoRest) -> list[Coroutine[Any, Any, None]]:
        live = LiveContext(lambda now: self._certificate(config, now), self._people.clock)
        try:
            await live.open()
            bound = bind("0.0.0.0", config.https_port)
        except (CertificateError, CannotListen) as error:
            self._listeners.give_up(_HTTPS, str(error))
            return []
        router = self._router(lambda: self._config().sigorest.lan_may_change_memory)
        peers = tuple(ipaddress.ip_network(text) for text in config.lan_networks)
        self._listeners.add(_HTTPS, [bound], router, render_error, peers=peers, ssl_context=live.context)
        self.authority = live.certificate.authority
        if self.authority is not None:
            _log.warning("clients of %s need this certificate authority: %s", _HTTPS, self.authority)
        return [live.run()]

    def _certificate(self, config: SigoRest, now: datetime) -> Certificate:
        if config.certificate is not None and config.certificate_key is not None:
            return check_certificate(Path(config.certificate), Path(config.certificate_key), now=now)
        return ensure_certificate(
            self._data / "certs",
            names=(*machine_names(), *self._config().listen.allowed_hosts),
            addresses=machine_addresses(),
            now=now,
        )

    def _router(self, may_change_memory: Callable[[], bool]) -> Router:
        router = Router()
        routes = Routes(
            router,
            self._people.keys,
            self._metrics,
            trusted=self._people.trusted_peer,
            render=render_error,
            origins=self._listeners.origins.everywhere,
        )
        chat = Chat(self._conversations, self._find, lambda: self._config().upstream.total_seconds)
        SigoRestAPI(
            chat=chat,
            models=self._catalogue.models,
            offers=self._offers,
            may_see=lambda caller, model: may_see(caller, model, self._catalogue),
            registry=self._providers.registered,
            breakers=self._breaker_states,
            obstacles=self._obstacles,
            memory=self._memory,
            may_change_memory=may_change_memory,
            run=self._people.run,
            fetch=self._people.fetch,
            clock=self._people.clock,
            version=__version__,
        ).register(routes)
        return router

    def _offers(self, model: Model) -> bool:
        """Models with a short name, of this machine, and those that the operator has named: the table is a whitelist,
        and what else a vendor has is not on it."""
        return model.shortcode is not None or model.local or model.id in self._config().models

    def _find(self, name: str) -> Model | None:
        model = self._catalogue.get(name)
        return model if model is not None and self._offers(model) else None

    def _breaker_states(self) -> list[BreakerState]:
        return [
            BreakerState(model=f"{each.provider}/{each.model}", open=each.state != "closed", failures=each.failures)
            for each in self._breakers.status()
        ]
