"""Opens the listener for AI Gateway's clients: requests that are queued, and the administration of models."""

import logging
from collections.abc import Mapping

from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.ai_gateway.access import TokenKeys
from stellwerk.api.ai_gateway.administration import AdministrationAPI
from stellwerk.api.ai_gateway.errors import render_error
from stellwerk.api.ai_gateway.health import HealthAPI
from stellwerk.api.ai_gateway.models import Models, Reader
from stellwerk.api.ai_gateway.names import DOCUMENTED, ModelNames, ShortName
from stellwerk.api.ai_gateway.queueing import QueueingAPI
from stellwerk.api.ai_gateway.resolution import Resolution
from stellwerk.api.ai_gateway.sharing import render_shared, share
from stellwerk.api.ai_gateway.tokens import TokensAPI
from stellwerk.api.jobs.endpoints import JobsAPI
from stellwerk.api.login import LoginAPI
from stellwerk.app.go_ollama import COMPAT as GO_OLLAMA
from stellwerk.app.jobs import JobParts
from stellwerk.app.line import Line
from stellwerk.app.listeners import Listeners
from stellwerk.app.people import People
from stellwerk.app.web_origins import own_names
from stellwerk.auth.access_tokens import MintSettings, TokenMint
from stellwerk.config.ai_gateway_file import COMPAT
from stellwerk.config.jobs import AIGateway
from stellwerk.config.reading import ai_gateway_notes
from stellwerk.config.settings import Config
from stellwerk.core.plan import Model
from stellwerk.engines.slots import Slots
from stellwerk.http.router import Router
from stellwerk.http.serving import CannotListen, address_of, bind, bind_loopback
from stellwerk.limits.clients import ClientLimits
from stellwerk.routing.catalogue import Catalogue
from stellwerk.telemetry.metrics import Metrics

_THIS_MACHINE = ("127.0.0.1", "localhost")
_DAY = 86_400.0
_log = logging.getLogger("stellwerk.app")


class AIGatewayListener:
    """Makes the routes and opens the listener; a port that cannot be had closes only it."""

    def __init__(
        self,
        config: Config,
        *,
        listeners: Listeners,
        people: People,
        login_secret: bytes,
        metrics: Metrics,
        jobs: JobParts,
        line: Line,
        catalogue: Catalogue,
        engines: Slots,
        environ: Mapping[str, str],
        reader: Reader | None = None,
    ) -> None:
        """`reader` reads pages on this machine."""
        self._config = config
        self._listeners = listeners
        self._people = people
        self._login_secret = login_secret
        self._metrics = metrics
        self._jobs = jobs
        self._line = line
        self._catalogue = catalogue
        self._engines = engines
        self._environ = environ
        self._reader = reader

    def open(self, other: Router | None = None) -> None:
        """`other` are the routes for Go Ollama API's clients, when they ask at the same port."""
        settings = self._config.ai_gateway
        for note in ai_gateway_notes(self._config, self._environ):
            _log.warning("%s", note)
        if settings.demo_login:
            _log.warning("programs on this machine may be admin of %s with the password admin", COMPAT)
        router = self.make_router()
        who = COMPAT if other is None else f"{COMPAT}+{GO_OLLAMA}"
        try:
            sockets = (
                bind_loopback(settings.port) if settings.host in _THIS_MACHINE else [bind(settings.host, settings.port)]
            )
        except CannotListen as error:
            self._listeners.give_up(f"{who} {settings.port}", str(error))
            return
        name = f"{who} {address_of(sockets[0])[1]}"
        if other is None:
            self._listeners.add(name, sockets, router, render_error)
        else:
            self._listeners.add(name, sockets, share(router, other), render_shared)

    def make_router(self) -> Router:
        """Everything that its clients may ask for."""
        config, people = self._config, self._people
        settings, jobs = config.ai_gateway, self._jobs
        mint = TokenMint(self._login_secret, people.clock, MintSettings(access_seconds=settings.access_minutes * 60))
        router = Router()
        routes = Routes(router, TokenKeys(people.keys, mint.verify_refresh), self._metrics, render=render_error)
        names = ModelNames(
            short_names(settings), lambda name: self._catalogue.plan(name) is not None, self._default_reader
        )
        resolution = Resolution(config.ocr.resolution)
        HealthAPI(people.clock).register(routes)
        self._register_login(routes, mint)
        QueueingAPI(
            jobs.jobs,
            names=names,
            limits=ClientLimits(settings.requests_per_minute, settings.burst, people.clock),
            accept=jobs.intake.accept_call,
            wait=jobs.patience.wait,
            queue_of=self._queue_of,
            resolution=lambda: resolution.now,
            missing=self._line.note_missing,
            max_waiting=settings.max_waiting,
        ).register(routes)
        JobsAPI(jobs.jobs, jobs.ownership, jobs.patience).register(Registry(routes))
        AdministrationAPI(
            models=self._models(names, resolution),
            names=names,
            jobs=jobs.jobs,
            resolution=resolution,
            run=people.run,
            fetch=people.fetch,
            clock=people.clock,
            queue_of=self._queue_of,
            width=self._line.width,
            workers=config.jobs.workers,
            max_waiting=config.jobs.max_waiting if settings.max_waiting is None else settings.max_waiting,
        ).register(routes)
        return router

    def _register_login(self, routes: Routes, mint: TokenMint) -> None:
        people, settings = self._people, self._config.ai_gateway
        login = LoginAPI(
            run=people.run,
            fetch=people.fetch,
            passwords=people.passwords,
            mint=mint,
            digest=people.digest,
            clock=people.clock,
            on_change=people.refresh,
            refresh_seconds=settings.refresh_days * _DAY,
        )
        names = own_names(self._config)
        TokensAPI(login, people.fetch, demo_login=settings.demo_login, names=names).register(routes)
        login.register_refresh(Registry(routes))

    def _models(self, names: ModelNames, resolution: Resolution) -> Models:
        return Models(
            names=names,
            engines=self._engines,
            reader=self._reader,
            find=self._catalogue.get,
            is_broken=self._is_broken,
            resolution=resolution,
            clock=self._people.clock,
        )

    def _default_reader(self) -> str | None:
        engine = self._config.ocr.engine
        return engine if self._catalogue.plan(engine) is not None else None

    def _queue_of(self, name: str) -> str:
        """An alias has no queue of its own."""
        plan = self._catalogue.plan(name)
        return name if plan is None else plan.stands_for or plan.name

    def _is_broken(self, model: Model) -> bool:
        return any(
            (each.provider, each.model) == (model.provider, model.name) and each.state != "closed"
            for each in self._line.breakers.status()
        )


def short_names(settings: AIGateway) -> dict[str, ShortName]:
    """The documented ones and those of the config, without those that it switches off."""
    shorts: dict[str, ShortName] = {}
    for short in dict.fromkeys((*DOCUMENTED, *settings.models)):
        documented = DOCUMENTED.get(short)
        said = settings.models.get(short)
        if said is None or said.enabled:
            name = (said.name if said is not None else None) or documented or short
            port = None if said is None else said.port
            shorts[short] = ShortName(short=short, name=name, documented=documented, port=port)
    return shorts
