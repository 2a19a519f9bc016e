"""Builds every object, runs them, takes over a changed config and stops them in the right order."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from stellwerk import __version__
from stellwerk.api._guard import Routes
from stellwerk.api.dialects import render_error
from stellwerk.api.health import HealthAPI
from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.ollama.errors import render_error as render_ollama_error
from stellwerk.api.openai.conversations import Conversations
from stellwerk.api.openai.endpoints import OpenAIAPI
from stellwerk.app import settings as cut
from stellwerk.app.compat import compat_ports, open_compat
from stellwerk.app.listeners import MAIN, Listeners, Opened
from stellwerk.app.observation import Observation
from stellwerk.app.people import People
from stellwerk.app.providers import Providers
from stellwerk.app.registration import register_people
from stellwerk.app.registry import RegistryFile
from stellwerk.app.sigorest import COMPAT, SigoRestListeners
from stellwerk.app.store import Store
from stellwerk.config.problems import ConfigProblem
from stellwerk.config.reading import restart_needed
from stellwerk.config.settings import Config
from stellwerk.config.watch import ConfigWatch
from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import Principal
from stellwerk.core.secrets import Secret
from stellwerk.engines.slots import Slots
from stellwerk.http.pool import Pools
from stellwerk.http.router import Router
from stellwerk.http.serving import address_of, bind
from stellwerk.ledger.calls import CallLedger
from stellwerk.ledger.prices import cost
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.gateway import Gateway
from stellwerk.pipeline.settle import Settle
from stellwerk.providers.vendors import load_vendors
from stellwerk.records.uptime import UptimeRecorder
from stellwerk.routing.breaker import Breakers
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.discovery import Discovery
from stellwerk.routing.plan import may_see, plan
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.sessions.sessions import Sessions, SessionStore
from stellwerk.sessions.sql_store import SqlSessions
from stellwerk.sessions.store import FileSessions
from stellwerk.storage.writer import Writer
from stellwerk.telemetry.logs import LogWriter
from stellwerk.telemetry.metrics import Metrics

ADMIN_KEY_VARIABLE = "STELLWERK_ADMIN_KEY"
_SWEEP_SECONDS = 0.5
_OBJECTS_BETWEEN_COLLECTIONS = 20_000
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
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

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
            if self._config.engines.enabled:
                await self._engines.start()
                stack.push_async_callback(self._engines.stop)
            stack.callback(self._pools.close)
            stack.push_async_callback(self._end_tasks)
            more = await open_compat(
                self._config, self._sigorest, self._listeners, self._people, self._metrics, self._ollama
            )
            self._start_tasks(more)
            self._listen_to_signals()
            await self._serve(lambda: announce(self._listeners.opened(self._sigorest.authority)))

    async def _serve(self, announce: Callable[[], None]) -> None:
        ready = asyncio.Event()
        serving = asyncio.ensure_future(self._listeners.serve(ready))
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            _calm_collector()
            announce()
        waiting.cancel()
        await serving

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
        self._pools = Pools(cut.upstream_settings(config), self._metrics, clock)
        self._engines = Slots(
            cut.slot_settings(config, self._data),
            clock,
            self._environ,
            lambda: self._discovery.publish(),  # noqa: PLW0108  # discovery needs the engines and is made after them
        )
        self._registry = RegistryFile(self._data) if COMPAT in config.compat else None
        self._providers = Providers(
            vendors=self._vendors,
            environ=self._environ,
            own_urls=own_urls([address_of(bound)[1], *compat_ports(config)]),
            pools=self._pools,
            engines=self._engines,
            clock=clock,
            hide=self._logs.add_secret,
            price=self._people.price,
            registry=self._registry,
        )
        self._breakers = Breakers(cut.breaker_settings(config), clock)
        self._dispatch = Dispatch({}, self._metrics, config.upstream.attempts, self._breakers, clock)
        self._discovery = Discovery(
            self._catalogue,
            clock=clock,
            local=self._engines if config.engines.enabled else None,
            price=self._providers.price,
            settings=cut.discovery_settings(config),
        )
        self._take_upstreams(config)
        ledger = CallLedger(store.database, self._writer)
        self._gateway = Gateway(
            plan=partial(plan, catalogue=self._catalogue),
            admit=self._people.limits.admit,
            hold=self._people.charges.hold,
            dispatch=self._dispatch,
            settle=Settle((ledger.record, self._metrics.record, self._logs.log_call), cost),
            clock=clock,
        )
        self._build_listeners(bound)

    def _build_listeners(self, bound: socket.socket) -> None:
        self._listeners = Listeners(self._config, self._metrics, self._clock)
        self._observation = Observation(
            listeners=self._listeners,
            writer=self._writer,
            gateway=self._gateway,
            catalogue=self._catalogue,
            discovery=self._discovery,
            engines=self._engines,
            breakers=self._breakers,
            providers=self._providers,
            logs=self._logs,
        )
        self._observation.register(self._metrics)
        memory = MemoryBlock(self._data, self._clock)
        conversations = Conversations(
            self._gateway,
            Sessions(self._session_store(), self._clock),
            memory,
            is_anthropic=self._is_anthropic,
            is_local=self._people.is_local,
        )
        router = Router()
        self._register(Routes(router, self._people.keys, self._metrics), conversations)
        self._ollama = OllamaAPI(
            self._gateway,
            self._catalogue,
            lambda caller, model: may_see(caller, model, self._catalogue),
            self._config.upstream.total_seconds,
            lambda: [slot.model for slot in self._engines.status() if slot.model is not None],
            self._clock,
        )
        self._ollama.register(Routes(router, self._people.keys, self._metrics, render=render_ollama_error))
        self._listeners.add(MAIN, [bound], router, render_error)
        self._sigorest = SigoRestListeners(
            listeners=self._listeners,
            people=self._people,
            catalogue=self._catalogue,
            providers=self._providers,
            breakers=self._breakers,
            conversations=conversations,
            memory=memory,
            metrics=self._metrics,
            obstacles=self._observation.obstacles,
            config=lambda: self._config,
            data=self._data,
        )

    def _register(self, routes: Routes, conversations: Conversations) -> None:
        self._openai = OpenAIAPI(
            self._gateway,
            self._catalogue,
            lambda caller, model: may_see(caller, model, self._catalogue),
            self._config.upstream.total_seconds,
            conversations,
        )
        self._openai.register(routes)
        HealthAPI(
            version=__version__,
            obstacles=self._observation.obstacles,
            details=self._observation.details,
            metrics=self._metrics.render,
        ).register(routes)
        register_people(
            routes, self._people, catalogue=self._catalogue, engines=self._engines, config=lambda: self._config
        )

    def _session_store(self) -> SessionStore:
        if self._config.sessions.store == "files":
            return FileSessions(self._data / ".sessions")
        database = self._store.database
        return SqlSessions(database.read, database.write, self._clock)

    def _is_anthropic(self, name: str) -> bool:
        model = self._catalogue.get(name)
        return "claude" in (name if model is None else model.name).lower()

    def _cut_calls(self, may_go_on: Callable[[Principal], bool]) -> None:
        if cut := self._gateway.cut(may_go_on):
            _log.info("%d running calls were cut: their keys or accounts have ended", cut)

    def _take_prices(self) -> None:
        self._gateway.default_price = self._people.tariff.default
        self._discovery.publish()

    def _take_upstreams(self, config: Config) -> None:
        self._providers.take(config, self._discovery)
        self._dispatch.providers = self._providers.by_name

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
            *more,
        ]
        if self._registry is not None:
            works.append(self._registry.follow(lambda: self._take_upstreams(self._config)))
        for work in works:
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._report_end)

    async def _end_tasks(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _report_end(self, task: asyncio.Task[Any]) -> None:
        """A part that ends by itself leaves the gateway crippled in a way that nobody sees: better to stop."""
        if self._stopping or task.cancelled():
            return
        _log.error("a part of the gateway failed; it stops", exc_info=task.exception())
        self._listeners.stop()

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
        _log.info("stopping%s; running calls: %d", " at once" if again else "", self._gateway.in_flight)
        self._listeners.stop(now=again)

    # --- a changed config

    def _change(self, config: Config) -> None:
        needed = restart_needed(self._config, config)
        fixed = ("engines", "compat", "sigorest", "go_ollama", "sessions")
        needed += [name for name in fixed if getattr(config, name) != getattr(self._config, name)]
        money = msgspec.structs.replace(config.money, currency=self._config.money.currency)
        if config.money != money:
            needed.append("money.currency")
        if needed:
            _log.warning("a restart is needed for: %s", ", ".join(needed))
        kept = {name: getattr(self._config, name) for name in ("listen", *fixed)}
        config = msgspec.structs.replace(config, money=money, **kept)
        self._take_upstreams(config)
        pricing = asyncio.ensure_future(self._load_prices())
        self._tasks.add(pricing)
        pricing.add_done_callback(self._tasks.discard)
        self._dispatch.attempts = config.upstream.attempts
        self._breakers.settings = cut.breaker_settings(config)
        self._forget_failures()
        self._openai.total_seconds = self._ollama.total_seconds = config.upstream.total_seconds
        self._discovery.settings = cut.discovery_settings(config)
        self._listeners.change(config)
        self._people.change(config)
        self._logs.apply(cut.log_settings(config))
        self._config = config
        _log.info("the configuration has been taken over")

    def _forget_failures(self) -> None:
        """Somebody may have mended what was broken: targets and keys that were left alone get another chance."""
        self._breakers.reset()
        self._providers.try_all_keys()

    def _report_problems(self, problems: Sequence[ConfigProblem]) -> None:
        for problem in problems:
            _log.error("the configuration is wrong and stays as it was: %s", problem)


def own_urls(ports: Sequence[int]) -> list[str]:
    """Base URLs of this gateway: an upstream there would be a loop."""
    hosts = ("127.0.0.1", "localhost")
    origins = [f"{scheme}://{host}:{port}" for port in ports for host in hosts for scheme in ("http", "https")]
    return [f"{origin}{path}" for origin in origins for path in ("/v1", "")]


def _calm_collector() -> None:
    """What exists now stays, so the garbage collector need not walk through it again and again.

    Calls leave no cycles behind: looking for them after every 700 new objects finds nothing and holds up streams.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
