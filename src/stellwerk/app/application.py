"""Builds every object, runs them, takes over a changed config and stops them in the right order."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from stellwerk import __version__
from stellwerk.api.dialects import render_error
from stellwerk.app import settings as cut
from stellwerk.app.auto_switch import AutoSwitch
from stellwerk.app.background import Background
from stellwerk.app.changes import without_fixed_changes
from stellwerk.app.collector import calm_collector
from stellwerk.app.compat import CompatListeners, compat_ports, own_urls
from stellwerk.app.line import Line
from stellwerk.app.listeners import MAIN, Listeners, Opened
from stellwerk.app.local_models import LocalModelParts
from stellwerk.app.main_apis import MainAPIs
from stellwerk.app.notices import Notices
from stellwerk.app.observation import Observation
from stellwerk.app.ocr import OcrParts
from stellwerk.app.people import People
from stellwerk.app.providers import Providers
from stellwerk.app.registry import RegistryFile
from stellwerk.app.sigorest import COMPAT
from stellwerk.app.store import Store
from stellwerk.app.web_origins import web_origins
from stellwerk.config.problems import ConfigProblem
from stellwerk.config.settings import Config
from stellwerk.config.watch import ConfigWatch
from stellwerk.core.call import Operation
from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import Principal
from stellwerk.core.secrets import Secret
from stellwerk.engines.crashes import Crash, crash_recorder
from stellwerk.engines.slot_settings import DEMO_MODEL
from stellwerk.http.pool import Pools
from stellwerk.http.serving import address_of, bind
from stellwerk.ledger.calls import CallLedger
from stellwerk.ledger.upstream_usage import UpstreamUsage
from stellwerk.providers.vendors import load_vendors
from stellwerk.records.uptime import UptimeRecorder
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.discovery import Discovery
from stellwerk.storage.address_note import AddressNote
from stellwerk.storage.writer import Writer
from stellwerk.telemetry.logs import LogWriter
from stellwerk.telemetry.metrics import Metrics

ADMIN_KEY_VARIABLE = "STELLWERK_ADMIN_KEY"
_SWEEP_SECONDS = 0.5
_log = logging.getLogger("stellwerk.app")


class Application:
    """One gateway process. `run` builds and starts everything and returns when it has been stopped."""

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        data: Path,
        config_file: Path | None,
        environ: Mapping[str, str],
        logs: LogWriter,
    ) -> None:
        self._config = config
        self._store = store
        self._data = data
        self._config_file = config_file
        self._environ = environ
        self._logs = logs
        self._clock = SystemClock()
        self._vendors = load_vendors()
        self._metrics = Metrics(version=__version__, currency=config.money.currency)
        self._catalogue = Catalogue()
        self._address = AddressNote(data)
        self._background = Background(lambda: self._listeners.stop())  # noqa: PLW0108  # they are made later

    async def run(self, announce: Callable[[Opened], None]) -> None:
        """`announce` is called once requests are answered. Raises OSError for a taken port."""
        bound = bind(self._config.listen.host, self._config.listen.port)
        async with AsyncExitStack() as stack:
            stack.callback(bound.close)
            self._writer = Writer(self._store.database.writing)
            stack.push_async_callback(asyncio.to_thread, self._writer.close)
            self._build(bound)
            stack.callback(self._listeners.close)
            stack.push_async_callback(self._people.stop)
            await self._people.start()
            stack.push_async_callback(self._notices.webhooks.stop)
            await self._notices.webhooks.refresh()
            await self._notices.webhooks.recover()
            await self._local.start()
            stack.push_async_callback(self._local.stop)
            await self._ocr.start()
            stack.push_async_callback(self._ocr.stop)
            stack.callback(self._pools.close)
            stack.push_async_callback(self._background.end)
            await self._jobs.start()
            stack.push_async_callback(self._jobs.stop)
            more = await self._compat.open()
            if self._config.compat:
                self._take_upstreams(self._config)
            self._start_tasks(more)
            self._listen_to_signals()
            stack.callback(self._address.remove)
            await self._serve(announce)

    async def _serve(self, announce: Callable[[Opened], None]) -> None:
        ready = asyncio.Event()
        serving = asyncio.ensure_future(self._listeners.serve(ready))
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            calm_collector()
            opened = self._listeners.opened(self._compat.authority, self._chat_model())
            self._note_address(opened)
            announce(opened)
        waiting.cancel()
        await serving

    def _note_address(self, opened: Opened) -> None:
        try:
            self._address.write(opened.host, opened.port)
        except OSError as error:
            _log.warning("other commands look for this gateway where the configuration says: %s", error)

    def _chat_model(self) -> str | None:
        """The one for the first try: that of the package, which costs nothing, else the first of all."""
        chat = [model.id for model in self._catalogue.models() if Operation.CHAT in model.operations]
        return DEMO_MODEL.stem if DEMO_MODEL.stem in chat else next(iter(chat), None)

    # --- building

    def _build(self, bound: socket.socket) -> None:
        config, store, clock = self._config, self._store, self._clock
        secret = self._environ.get(ADMIN_KEY_VARIABLE)
        self._people = People(
            config,
            store=store,
            writer=self._writer,
            clock=clock,
            admin_key=Secret(secret) if secret else None,
            prices_changed=self._take_prices,
            access_changed=self._cut_calls,
        )
        self._notices = Notices(
            self._people, store.seal, lambda: self._config.egress.allowed_origins, config.money.currency
        )
        self._pools = Pools(cut.upstream_settings(config), self._metrics, clock)
        self._local = LocalModelParts(
            config,
            data=self._data,
            clock=clock,
            environ=self._environ,
            pools=self._pools,
            changed=lambda: self._discovery.publish(),  # noqa: PLW0108  # made after the engines, which it needs
            on_crash=self._note_crash(crash_recorder(self._writer.submit)),
            hide=self._logs.add_secret,
            stopping=lambda: self._listeners.stopping,
        )
        self._engines = self._local.slots
        self._auto_switch = AutoSwitch(self._people, self._engines, lambda: self._config)
        self._registry = RegistryFile(self._data) if COMPAT in config.compat else None
        self._ocr = OcrParts(lambda: self._config, data=self._data, clock=clock, environ=self._environ)
        self._providers = Providers(
            vendors=self._vendors,
            environ=self._environ,
            own_urls=own_urls([address_of(bound)[1], *compat_ports(config)]),
            pools=self._pools,
            engines=self._engines,
            ocr=lambda: self._ocr.provider,
            clock=clock,
            hide=self._logs.add_secret,
            price=self._people.price,
            registry=self._registry,
            parked=self._notices.park_key,
        )
        self._line = self._make_line()
        self._discovery = Discovery(
            self._catalogue,
            clock=clock,
            local=self._engines if config.engines.enabled else None,
            price=self._providers.price,
            settings=cut.discovery_settings(config),
        )
        self._take_upstreams(config)
        self._build_listeners(bound)

    def _make_line(self) -> Line:
        ledger, usage = CallLedger(self._store.database, self._writer), UpstreamUsage(self._writer)
        return Line(
            self._config,
            catalogue=self._catalogue,
            people=self._people,
            engines=self._engines,
            metrics=self._metrics,
            hold=self._notices.watching(self._people.charges.hold),
            recorders=(
                ledger.record,
                usage.record,
                self._metrics.record,
                self._logs.log_call,
                self._notices.record,
            ),
            redact=self._logs.redact,
            allowed_origins=lambda: self._config.egress.allowed_origins,
            clock=self._clock,
        )

    def _build_listeners(self, bound: socket.socket) -> None:
        origins = web_origins(self._config, self._environ)
        self._listeners = Listeners(self._config, self._metrics, self._clock, self._address.remove, origins)
        self._observation = Observation(
            listeners=self._listeners,
            writer=self._writer,
            gateway=self._line.gateway,
            catalogue=self._catalogue,
            discovery=self._discovery,
            engines=self._engines,
            breakers=self._line.breakers,
            gates=self._line.gates,
            providers=self._providers,
            reader=self._ocr.status,
            logs=self._logs,
        )
        self._observation.register(self._metrics)
        self._apis = MainAPIs(
            lambda: self._config,
            line=self._line,
            people=self._people,
            notices=self._notices,
            store=self._store,
            catalogue=self._catalogue,
            local=self._local,
            providers=self._providers,
            discovery=self._discovery,
            auto_switch=self._auto_switch,
            ocr=self._ocr,
            observation=self._observation,
            metrics=self._metrics,
            data=self._data,
            stopping=lambda: self._listeners.stopping,
        )
        self._jobs = self._apis.jobs
        self._listeners.add(MAIN, [bound], self._apis.router, render_error, origins=origins.at_ollama)
        self._compat = CompatListeners(
            lambda: self._config,
            listeners=self._listeners,
            people=self._people,
            notices=self._notices,
            metrics=self._metrics,
            login_secret=self._store.login_secret,
            ollama=self._apis.ollama,
            openai=self._apis.openai,
            providers=self._providers,
            catalogue=self._catalogue,
            engines=self._engines,
            line=self._line,
            jobs=self._jobs,
            reader=self._ocr,
            conversations=self._apis.conversations,
            memory=self._apis.memory,
            obstacles=self._observation.obstacles,
            data=self._data,
            environ=self._environ,
            hide=self._logs.add_secret,
        )

    def _cut_calls(self, may_go_on: Callable[[Principal], bool]) -> None:
        if cut := self._line.gateway.cut(may_go_on):
            _log.info("%d running calls were cut: their keys or accounts have ended", cut)

    def _take_prices(self) -> None:
        self._line.gateway.default_price = self._people.tariff.default
        self._discovery.publish()

    def _take_upstreams(self, config: Config) -> None:
        self._providers.take(config, self._discovery)
        self._line.take_providers(self._providers.by_name)

    def _note_crash(self, record: Callable[[Crash], None]) -> Callable[[Crash], None]:
        def note(crash: Crash) -> None:
            record(crash)
            self._notices.crash(msgspec.to_builtins(crash))

        return note

    # --- running

    def _start_tasks(self, more: Sequence[Coroutine[Any, Any, None]]) -> None:
        watch = ConfigWatch(
            self._config_file, self._environ, self._config, self._change, self._report_problems, vendors=self._vendors
        )
        self._config_watch = watch
        people = self._people
        uptime = UptimeRecorder(people.run, self._observation.look, self._clock)
        works = [
            watch.run(),
            people.follow(),
            people.keep_house(),
            uptime.run(),
            self._discover(),
            self._sweep(),
            self._line.missing.run(),
            self._auto_switch.run(),
            *self._notices.works(),
            *self._jobs.works(),
            *more,
        ]
        if self._registry is not None:
            works.append(self._registry.follow(lambda: self._take_upstreams(self._config)))
        self._background.start(works)

    async def _discover(self) -> None:
        await self._load_prices()
        await self._discovery.run()

    async def _load_prices(self) -> None:
        if await self._providers.load_prices():
            self._discovery.publish()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._pools.sweep()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        self._forget_failures()
        self._config_watch.poke()

    def _stop(self) -> None:
        """The first signal lets running answers finish, the second does not."""
        again = self._listeners.stopping
        _log.info("stopping%s; running calls: %d", " at once" if again else "", self._line.gateway.in_flight)
        self._listeners.stop(now=again)

    # --- a changed config

    def _change(self, config: Config) -> None:
        config = without_fixed_changes(self._config, config)
        self._take_upstreams(config)
        self._background.spawn(self._load_prices())
        self._line.change(config)
        self._forget_failures()
        self._apis.change(config)
        self._discovery.settings = cut.discovery_settings(config)
        self._listeners.change(config)
        self._ocr.change(config)
        self._people.change(config)
        self._logs.apply(cut.log_settings(config))
        self._config = config
        _log.info("the configuration has been taken over")

    def _forget_failures(self) -> None:
        """Somebody may have mended what was broken: targets and keys that were left alone get another chance."""
        self._line.breakers.reset()
        self._providers.try_all_keys()

    def _report_problems(self, problems: Sequence[ConfigProblem]) -> None:
        for problem in problems:
            _log.error("the configuration is wrong and stays as it was: %s", problem)
