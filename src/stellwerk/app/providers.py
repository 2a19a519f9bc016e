"""The upstreams of the config as providers: makes them, keeps those that stay, and tells discovery what to ask."""

import logging
from collections.abc import Callable, Mapping

import msgspec

from stellwerk.app import settings as cut
from stellwerk.app.registry import Placement, RegistryFile, place
from stellwerk.app.upstreams import UpstreamPlan, plan_upstreams
from stellwerk.config.settings import Config
from stellwerk.core.clock import Clock
from stellwerk.core.plan import Price
from stellwerk.core.ports import Engines, Provider
from stellwerk.core.secrets import Secret
from stellwerk.http.fetch import Fetch
from stellwerk.http.pool import Pools, parse_base_url
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.ledger.prices import PriceBook
from stellwerk.providers.key_ring import KeyStatus
from stellwerk.providers.local import Local
from stellwerk.providers.ocr import Ocr, known_models
from stellwerk.providers.ollama import Ollama
from stellwerk.providers.ollama_native import OllamaNative
from stellwerk.providers.openai_compatible import OpenAICompatible
from stellwerk.providers.registry import RegistryModel
from stellwerk.providers.vendors import Vendor
from stellwerk.routing.discovery import Discovery, Lister, Source

_log = logging.getLogger("stellwerk.app")


class Providers:
    """Every provider by name, as the dispatcher uses them."""

    def __init__(
        self,
        *,
        vendors: Mapping[str, Vendor],
        environ: Mapping[str, str],
        own_urls: list[str],
        pools: Pools,
        engines: Engines,
        ocr: Callable[[], Ocr | None],
        clock: Clock,
        hide: Callable[[Secret], None],
        price: Callable[[str, str, Price | None], Price | None],
        registry: RegistryFile | None,
        parked: Callable[[str, int, int], None],
    ) -> None:
        """`ocr` gives the reader of pages where there is one, `hide` keeps a secret out of the log, `price` turns a
        published price into what it costs here; `registry` names models by short names; `parked` hears of provider,
        place and number of its keys when one is not known there."""
        self._parked = parked
        self._vendors = vendors
        self._environ = environ
        self.own_urls = own_urls
        """Base URLs of the gateway itself; what changes here counts with the next `take`."""
        self._pools = pools
        self.fetch = Fetch(pools, clock)
        self._engines = engines
        self._ocr = ocr
        self._clock = clock
        self._hide = hide
        self._own_price = price
        self._registry = registry
        self._prices = PriceBook(clock)
        self._price_vendors: dict[str, str] = {}
        self._plans: Mapping[str, UpstreamPlan] = {}
        self._placement = Placement(upstreams={})
        self.by_name: dict[str, Provider] = {}

    def take(self, config: Config, discovery: Discovery) -> None:
        """Makes the providers of `config`; those whose settings did not change stay as they are."""
        planned: Mapping[str, UpstreamPlan] = plan_upstreams(config, self._vendors, self._environ, self.own_urls)
        if self._registry is not None:
            self._placement = place(
                self._registry.models,
                planned,
                configured=config.providers,
                vendors=self._vendors,
                environ=self._environ,
                own_urls=self.own_urls,
            )
            planned = self._placement.upstreams
        base = cut.upstream_settings(config)
        providers: dict[str, Provider] = {}
        sources = []
        for name, each in planned.items():
            provider = self._make(name, each, base, config.upstream.total_seconds)
            providers[name] = provider
            sources.append(self._source(name, each, provider))
        if config.engines.enabled:
            local = _with_patience(base, None, config.upstream.total_seconds)
            providers[Local.name] = Local(self._engines, lambda origin: self._pools.pool(origin, local), self._clock)
        reader = self._ocr()
        if reader is not None:
            providers[Ocr.name] = reader
            sources.append(Source(lister=reader, listed=False, known=known_models()))
        self._price_vendors = {name: each.price_vendor for name, each in planned.items() if each.price_vendor}
        self._plans = planned
        self.by_name = providers
        discovery.configure(sources=sources, aliases=cut.aliases(config))

    def _make(self, name: str, each: UpstreamPlan, base: UpstreamSettings, total: float) -> OpenAICompatible:
        settings = each.settings
        self._hide_all(*settings.keys, *(Secret(value) for _, value in settings.headers))
        origin, _ = parse_base_url(settings.base_url)
        # A machine of one's own may have to load the model first, and reads long prompts slowly.
        patience = total if settings.local else base.first_byte_seconds
        pool = self._pools.pool(origin, _with_patience(base, each.first_byte_seconds, patience))
        kept = self.by_name.get(name) if self._plans.get(name) == each else None
        if isinstance(kept, OpenAICompatible):
            return kept
        kind = OpenAICompatible if each.ollama_url is None else OllamaNative
        return kind(settings, pool, self._clock, lambda index: self._parked(name, index, len(settings.keys)))

    def _source(self, name: str, each: UpstreamPlan, provider: OpenAICompatible) -> Source:
        lister: Lister = provider
        if each.ollama_url is not None and each.settings.local:
            lister = Ollama(self.fetch, address=each.ollama_url, name=name)
        elif isinstance(provider, OllamaNative):
            lister = Ollama(provider.fetch, address="", name=name, local=False)
        return Source(
            lister=lister,
            open=each.any_model,
            listed=each.settings.lists_models or bool(each.settings.models),
            known=provider.configured_models(),
            registered=self._placement.models.get(name, ()),
            changes_often=each.ollama_url is not None and each.settings.local,
        )

    def _hide_all(self, *secrets: Secret) -> None:
        try:
            for secret in secrets:
                self._hide(secret)
        except ValueError as error:
            _log.warning("not every secret can be kept out of the log: %s", error)

    # --- prices

    def price(self, provider: str, model: str) -> Price | None:
        """What a model costs now, in the ledger's currency; None when nobody has said."""
        vendor = self._price_vendors.get(provider)
        published = self._prices.price(vendor, model) if vendor is not None else None
        if published is None:
            published = self._placement.price(provider, model)
        return self._own_price(provider, model, published)

    async def load_prices(self) -> bool:
        """Whether prices are there that were not before. Only once somebody has a price: importing them takes half a
        second and much memory."""
        if not self._price_vendors or self._prices.loaded:
            return False
        await self._prices.load()
        return True

    # --- what others see

    def key_states(self) -> dict[str, list[KeyStatus]]:
        """Of the providers that have keys."""
        providers = {name: each for name, each in self.by_name.items() if isinstance(each, OpenAICompatible)}
        return {name: states for name, each in providers.items() if (states := each.key_status())}

    def try_all_keys(self) -> None:
        """Gives every key that was refused another chance."""
        for provider in self.by_name.values():
            if isinstance(provider, OpenAICompatible):
                provider.try_all_keys()

    def registered(self) -> Mapping[str, RegistryModel]:
        """The rows of the registry that lead somewhere, by short name."""
        return {row.shortcode: row for row in self._placement.rows.values()}


def _with_patience(base: UpstreamSettings, configured: float | None, otherwise: float) -> UpstreamSettings:
    """The settings with the seconds that this upstream has until its first byte."""
    seconds = otherwise if configured is None else configured
    return base if seconds == base.first_byte_seconds else msgspec.structs.replace(base, first_byte_seconds=seconds)
