"""Builds every object, runs them, takes over a changed config and stops them in the right order."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from stellwerk import __version__
from stellwerk.api._errors import render_error
from stellwerk.api._guard import Routes
from stellwerk.api.health import HealthAPI
from stellwerk.api.openai.endpoints import OpenAIAPI
from stellwerk.app import settings as cut
from stellwerk.app.people import People
from stellwerk.app.registration import register_people
from stellwerk.app.store import Store
from stellwerk.app.upstreams import UpstreamPlan, plan_upstreams
from stellwerk.config.problems import ConfigProblem
from stellwerk.config.reading import restart_needed
from stellwerk.config.settings import Config
from stellwerk.config.watch import ConfigWatch
from stellwerk.core.clock import SystemClock
from stellwerk.core.plan import Price
from stellwerk.core.ports import Provider
from stellwerk.core.principal import Principal
from stellwerk.core.secrets import Secret
from stellwerk.engines.slots import Slots
from stellwerk.http.asgi import AsgiApplication
from stellwerk.http.fetch import Fetch
from stellwerk.http.guard import Guard
from stellwerk.http.listener import Listener
from stellwerk.http.pool import Pools, parse_base_url
from stellwerk.http.router import Router
from stellwerk.http.serving import Server, address_of, bind
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.ledger.calls import CallLedger
from stellwerk.ledger.prices import PriceBook, cost
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.gateway import Gateway
from stellwerk.pipeline.settle import Settle
from stellwerk.providers.local import Local
from stellwerk.providers.ollama import Ollama
from stellwerk.providers.openai_compatible import OpenAICompatible
from stellwerk.providers.vendors import load_vendors
from stellwerk.records.uptime import Look, UptimeRecorder
from stellwerk.routing.catalogue import Catalogue
from stellwerk.routing.discovery import Discovery, Lister, Source
from stellwerk.routing.plan import may_see, plan
from stellwerk.storage.writer import Writer
from stellwerk.telemetry.logs import LogWriter
from stellwerk.telemetry.metrics import Metrics

ADMIN_KEY_VARIABLE = "STELLWERK_ADMIN_KEY"
_SWEEP_SECONDS = 0.5
_CRASHED = "failed"
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
        self._prices = PriceBook(self._clock)
        self._price_vendors: dict[str, str] = {}
        self._providers: dict[str, Provider] = {}
        self._plans: dict[str, UpstreamPlan] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def run(self, announce: Callable[[str, int], None]) -> None:
        """`announce` is called with host and port once requests are answered. Raises OSError for a taken port."""
        bound = bind(self._config.listen.host, self._config.listen.port)
        async with AsyncExitStack() as stack:
            stack.callback(bound.close)
            self._writer = Writer(self._store.database.writing)
            stack.push_async_callback(asyncio.to_thread, self._writer.close)
            self._build(address_of(bound)[1])
            stack.push_async_callback(self._people.stop)
            await self._people.start()
            if self._config.engines.enabled:
                await self._engines.start()
                stack.push_async_callback(self._engines.stop)
            stack.callback(self._pools.close)
            stack.push_async_callback(self._end_tasks)
            self._start_tasks()
            self._listen_to_signals()
            serving = asyncio.ensure_future(self._server.serve([bound]))
            ready = asyncio.ensure_future(self._server.ready.wait())
            await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                _calm_collector()
                announce(*address_of(bound))
            ready.cancel()
            await serving

    # --- building

    def _build(self, port: int) -> None:
        config, store, clock = self._config, self._store, self._clock
        self._own_urls = [f"http://{host}:{port}{path}" for host in ("127.0.0.1", "localhost") for path in ("/v1", "")]
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
        self._ledger = CallLedger(store.database, self._writer)
        self._pools = Pools(cut.upstream_settings(config), self._metrics, clock)
        self._fetch = Fetch(self._pools, clock)
        self._engines = Slots(
            cut.slot_settings(config, self._data),
            clock,
            self._environ,
            lambda: self._discovery.publish(),  # noqa: PLW0108  # discovery needs the engines and is made after them
        )
        self._dispatch = Dispatch(self._providers, self._metrics, config.upstream.attempts)
        self._discovery = Discovery(
            self._catalogue,
            clock=clock,
            local=self._engines if config.engines.enabled else None,
            price=self._price,
            settings=cut.discovery_settings(config),
        )
        self._take_upstreams(config)
        self._gateway = Gateway(
            plan=partial(plan, catalogue=self._catalogue),
            admit=self._people.limits.admit,
            hold=self._people.charges.hold,
            dispatch=self._dispatch,
            settle=Settle((self._ledger.record, self._metrics.record, self._logs.log_call), cost),
            clock=clock,
        )
        self._guard = Guard(cut.guard_settings(config))
        router = Router()
        self._register(Routes(router, self._people.keys, self._metrics))
        self._listener = Listener(
            router=router, guard=self._guard, render_error=render_error, watch=self._metrics, clock=clock
        )
        application = AsgiApplication(router, render_error, clock, config.guard.body_bytes)
        self._server = Server(self._listener, application, config.drain_seconds)
        self._watch_metrics()

    def _register(self, routes: Routes) -> None:
        self._openai = OpenAIAPI(
            self._gateway,
            self._catalogue,
            lambda caller, model: may_see(caller, model, self._catalogue),
            self._config.upstream.total_seconds,
        )
        self._openai.register(routes)
        HealthAPI(
            version=__version__, obstacles=self._obstacles, details=self._details, metrics=self._metrics.render
        ).register(routes)
        register_people(
            routes, self._people, catalogue=self._catalogue, engines=self._engines, config=lambda: self._config
        )

    def _cut_calls(self, may_go_on: Callable[[Principal], bool]) -> None:
        if cut := self._gateway.cut(may_go_on):
            _log.info("%d running calls were cut: their keys or accounts have ended", cut)

    def _take_prices(self) -> None:
        self._gateway.default_price = self._people.tariff.default
        self._discovery.publish()

    def _take_upstreams(self, config: Config) -> None:
        """Makes the providers of `config`; those whose settings did not change stay as they are."""
        planned = plan_upstreams(config, self._vendors, self._environ, self._own_urls)
        base = cut.upstream_settings(config)
        sources: list[Source] = []
        providers: dict[str, Provider] = {}
        for name, each in planned.items():
            settings = each.settings
            self._hide(*([settings.key] if settings.key else []), *(Secret(value) for _, value in settings.headers))
            origin, _ = parse_base_url(settings.base_url)
            # A machine of one's own may have to load the model first, and reads long prompts slowly.
            patience = config.upstream.total_seconds if settings.local else base.first_byte_seconds
            pool = self._pools.pool(origin, _with_patience(base, each.first_byte_seconds, patience))
            if self._plans.get(name) == each:
                provider = self._providers[name]
            else:
                provider = OpenAICompatible(settings, pool, self._clock)
            providers[name] = provider
            lister: Lister = provider
            if each.ollama_url is not None:
                lister = Ollama(self._fetch, address=each.ollama_url, name=name)
            sources.append(
                Source(
                    lister=lister,
                    open=each.any_model,
                    listed=settings.lists_models or bool(settings.models),
                    known=provider.configured_models() if isinstance(provider, OpenAICompatible) else (),
                )
            )
        if config.engines.enabled:
            local = _with_patience(base, None, config.upstream.total_seconds)
            providers[Local.name] = Local(self._engines, lambda origin: self._pools.pool(origin, local), self._clock)
        self._price_vendors = {name: each.price_vendor for name, each in planned.items() if each.price_vendor}
        self._discovery.configure(sources=sources, aliases=cut.aliases(config))
        self._plans = planned
        self._providers = providers
        self._dispatch.providers = providers

    def _hide(self, *secrets: Secret) -> None:
        """Keeps secrets of upstreams out of the log."""
        try:
            for secret in secrets:
                self._logs.add_secret(secret)
        except ValueError as error:
            _log.warning("not every secret can be kept out of the log: %s", error)

    def _price(self, provider: str, model: str) -> Price | None:
        vendor = self._price_vendors.get(provider)
        published = self._prices.price(vendor, model) if vendor is not None else None
        return self._people.price(provider, model, published)

    # --- running

    def _start_tasks(self) -> None:
        watch = ConfigWatch(
            self._config_file, self._environ, self._config, self._change, self._report_problems, vendors=self._vendors
        )
        self._config_watch = watch
        uptime = UptimeRecorder(self._people.run, self._look, self._clock)
        people = self._people
        works = (watch.run(), people.follow(), people.keep_house(), uptime.run(), self._discover(), self._sweep())
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
        self._server.stop()

    async def _discover(self) -> None:
        await self._load_prices()
        await self._discovery.run()

    async def _load_prices(self) -> None:
        """Only once somebody has a price: importing them takes half a second and much memory."""
        if self._price_vendors and not self._prices.loaded:
            await self._prices.load()
            self._discovery.publish()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._pools.sweep()

    async def _look(self) -> Look:
        """For the uptime history; draining is no fault."""
        slots = self._engines.status()
        crashed = any(slot.state == _CRASHED for slot in slots)
        return Look(
            degraded=crashed or not self._writer.healthy,
            active_models=sum(slot.model is not None for slot in slots) or len(self._catalogue.models()),
        )

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._config_watch.poke)

    def _stop(self) -> None:
        """The first signal lets running answers finish, the second does not."""
        again = self._server.should_exit
        _log.info("stopping%s; running calls: %d", " at once" if again else "", self._gateway.in_flight)
        self._server.stop(now=again)

    # --- a changed config

    def _change(self, config: Config) -> None:
        needed = restart_needed(self._config, config)
        if config.engines != self._config.engines:
            needed.append("engines")
        money = msgspec.structs.replace(config.money, currency=self._config.money.currency)
        if config.money != money:
            needed.append("money.currency")
        if needed:
            _log.warning("a restart is needed for: %s", ", ".join(needed))
        config = msgspec.structs.replace(config, listen=self._config.listen, engines=self._config.engines, money=money)
        self._take_upstreams(config)
        pricing = asyncio.ensure_future(self._load_prices())
        self._tasks.add(pricing)
        pricing.add_done_callback(self._tasks.discard)
        self._dispatch.attempts = config.upstream.attempts
        self._openai.total_seconds = config.upstream.total_seconds
        self._discovery.settings = cut.discovery_settings(config)
        self._server.set_drain_seconds(config.drain_seconds)
        self._guard.settings = cut.guard_settings(config)
        self._people.change(config)
        self._logs.apply(cut.log_settings(config))
        self._config = config
        _log.info("the configuration has been taken over")

    def _report_problems(self, problems: Sequence[ConfigProblem]) -> None:
        for problem in problems:
            _log.error("the configuration is wrong and stays as it was: %s", problem)

    # --- what it looks like from outside

    def _obstacles(self) -> list[str]:
        obstacles = []
        if self._listener.draining:
            obstacles.append("draining")
        if not self._writer.healthy:
            obstacles.append("storage_unavailable")
        return obstacles

    def _details(self) -> Mapping[str, Any]:
        return {
            "version": __version__,
            "obstacles": self._obstacles(),
            "in_flight": self._gateway.in_flight,
            "models": len(self._catalogue.models()),
            "providers": self._discovery.status(),
            "slots": self._engines.status(),
            "broken_models": dict(self._engines.broken()),
            "ledger": {"backlog": self._writer.backlog, "dropped": self._writer.dropped},
        }

    def _watch_metrics(self) -> None:
        watch = self._metrics.watch
        watch("in_flight", "Calls that are being answered.", lambda: self._gateway.in_flight)
        watch("connections_open", "Open connections of clients.", lambda: len(self._listener.connections))
        watch("local_slots", "Engine slots by state.", self._slots_by_state)
        watch("ledger_queue_depth", "Ledger rows that wait for their commit.", lambda: self._writer.backlog)
        watch("ledger_rows_dropped_total", "Ledger rows that were lost.", lambda: self._writer.dropped, kind="counter")
        watch("log_queue_depth", "Log lines that wait to be written.", lambda: self._logs.waiting)
        watch("log_lines_dropped_total", "Log lines that were lost.", lambda: self._logs.dropped, kind="counter")

    def _slots_by_state(self) -> dict[str, float]:
        states: dict[str, float] = {}
        for slot in self._engines.status():
            states[slot.state] = states.get(slot.state, 0) + 1
        return states


def _calm_collector() -> None:
    """What exists now stays, so the garbage collector need not walk through it again and again.

    Calls leave no cycles behind: looking for them after every 700 new objects finds nothing and holds up streams.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)


def _with_patience(base: UpstreamSettings, configured: float | None, otherwise: float) -> UpstreamSettings:
    """The settings with the seconds that this upstream has until its first byte."""
    seconds = otherwise if configured is None else configured
    return base if seconds == base.first_byte_seconds else msgspec.structs.replace(base, first_byte_seconds=seconds)
