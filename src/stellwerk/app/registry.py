"""Brings the registry of short names together with the upstreams: which model is to be had where, and for how much."""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import msgspec

from stellwerk.app.upstreams import UpstreamPlan, fault_of
from stellwerk.config.settings import Provider as ProviderConfig
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model, Price
from stellwerk.providers.openai_compatible import ProviderSettings
from stellwerk.providers.registry import FILE_NAME, Registry, RegistryModel, load
from stellwerk.providers.vendors import Vendor, keys_in_environment

_LOOK_SECONDS = 5.0
_MAX_OWN_PROVIDERS = 50
_NAME_CHARACTERS = 32
_log = logging.getLogger("stellwerk.app")

_Stamp: TypeAlias = tuple[int, int, int] | None


class RegistryFile:
    """Owns what the table says: the operator's `models.csv` in the data folder, or the built-in one.

    Reads it when it is made, and says in the log what cannot be used of it.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._seen, self._registry = self._read()

    @property
    def models(self) -> tuple[RegistryModel, ...]:
        return self._registry.models

    def reread(self) -> bool:
        """Whether the file has changed since it was read last; then it has been read again. Reads files."""
        if self._stamp() == self._seen:
            return False
        self._seen, self._registry = self._read()
        return True

    async def follow(self, changed: Callable[[], None], *, seconds: float = _LOOK_SECONDS) -> None:
        """Looks at the file for ever; `changed` is called each time after it was read again."""
        while True:
            await asyncio.sleep(seconds)
            if await asyncio.to_thread(self.reread):
                _log.info("%s has been read again", FILE_NAME)
                changed()

    def _read(self) -> tuple[_Stamp, Registry]:
        # Looked at before it is read: what is written in between is found the next time.
        stamp = self._stamp()
        registry = load(self._data)
        for warning in registry.warnings:
            _log.warning("%s: %s", FILE_NAME, warning)
        return stamp, registry

    def _stamp(self) -> _Stamp:
        try:
            found = (self._data / FILE_NAME).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The upstreams of a moment and what the registry knows about their models."""

    upstreams: Mapping[str, UpstreamPlan]
    """All of them, with those that only the registry names."""
    models: Mapping[str, tuple[Model, ...]] = {}
    """By provider, what `routing.discovery.Source.registered` takes."""
    rows: Mapping[tuple[str, str], RegistryModel] = {}
    """By provider and upstream name without regard to case."""

    def row(self, provider: str, model: str) -> RegistryModel | None:
        return self.rows.get((provider, model.casefold()))

    def price(self, provider: str, model: str) -> Price | None:
        """In USD, as the table states it; None for what it does not name."""
        row = self.row(provider, model)
        return row.price if row is not None else None


def place(
    rows: Sequence[RegistryModel],
    upstreams: Mapping[str, UpstreamPlan],
    *,
    configured: Mapping[str, ProviderConfig],
    vendors: Mapping[str, Vendor],
    environ: Mapping[str, str],
    own_urls: Collection[str] = (),
) -> Placement:
    """Finds the provider of every row; an endpoint that belongs to none becomes a provider of its own.

    Rows whose vendor is not among the upstreams, or whose key is not set, are left out and named in the log.
    """
    placed: dict[str, list[RegistryModel]] = {}
    own = _OwnProviders(upstreams, environ, own_urls)
    homes = {name: _home(name, upstreams, configured) for name in vendors}
    for row in rows:
        vendor = _vendor(row, vendors)
        name = homes[vendor.name] if vendor is not None else own.find(row)
        if name is None:
            own.missing.setdefault(row.key_variable, []).append(row.shortcode)
        elif not (only := upstreams[name].settings.models if name in upstreams else ()) or row.id in only:
            placed.setdefault(name, []).append(row)
    own.report()
    all_upstreams = {**upstreams, **own.plans(placed)}
    return Placement(
        upstreams=all_upstreams,
        models={name: tuple(_model(row, all_upstreams[name]) for row in found) for name, found in placed.items()},
        rows={(name, row.id.casefold()): row for name, found in placed.items() for row in found},
    )


def _vendor(row: RegistryModel, vendors: Mapping[str, Vendor]) -> Vendor | None:
    """Whose endpoint it is, when the row also takes the key from where the vendor's is."""
    for vendor in vendors.values():
        if vendor.base_url is not None and _same_place(vendor.base_url, row.base_url):
            return vendor if row.key_variable in {"", *vendor.key_variables} else None
    return None


def _home(vendor: str, upstreams: Iterable[str], configured: Mapping[str, ProviderConfig]) -> str | None:
    """The provider that stands for a vendor: the one of its name, else the first that is configured as one."""
    vendor_of = {name: (configured[name].vendor or name) if name in configured else name for name in upstreams}
    if vendor_of.get(vendor) == vendor:
        return vendor
    return next((name for name, of in vendor_of.items() if of == vendor), None)


def _same_place(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    same_host = (first.scheme, first.netloc.casefold()) == (second.scheme, second.netloc.casefold())
    return same_host and first.path.rstrip("/") == second.path.rstrip("/")


class _OwnProviders:
    """Collects the endpoints that belong to no vendor."""

    def __init__(
        self, upstreams: Mapping[str, UpstreamPlan], environ: Mapping[str, str], own_urls: Collection[str]
    ) -> None:
        self._upstreams = upstreams
        self._environ = environ
        self._own_urls = own_urls
        self._names: dict[tuple[str, str], str | None] = {}
        self._settings: dict[str, ProviderSettings] = {}
        self.missing: dict[str, list[str]] = {}
        """Shortcodes by the variable that would have to be set."""

    def find(self, row: RegistryModel) -> str | None:
        """The provider for a row; None when its key is not set or its endpoint cannot be used."""
        place = row.base_url, row.key_variable
        if place not in self._names:
            self._names[place] = self._make(*place)
        return self._names[place]

    def plans(self, placed: Mapping[str, Sequence[RegistryModel]]) -> dict[str, UpstreamPlan]:
        """Each offers what the table says and nothing else, so it is never asked for a list."""
        return {
            name: UpstreamPlan(
                settings=msgspec.structs.replace(settings, embeddings=any(row.embeds for row in placed.get(name, ()))),
                any_model=False,
            )
            for name, settings in self._settings.items()
        }

    def report(self) -> None:
        for variable, shortcodes in self.missing.items():
            named = ", ".join(shortcodes[:3]) + (", …" if len(shortcodes) > 3 else "")
            unset = bool(variable) and not keys_in_environment((variable,), self._environ)
            reason = f"{variable} is not set" if unset else "they have no provider"
            _log.info(
                "models that are known by short names are not offered (%d: %s): %s", len(shortcodes), named, reason
            )

    def _make(self, base_url: str, variable: str) -> str | None:
        for name, plan in self._upstreams.items():
            if not variable and _same_place(plan.settings.base_url, base_url):
                return name
        keys = keys_in_environment((variable,), self._environ) if variable else ()
        if variable and not keys:
            return None
        settings = ProviderSettings(
            name=self._free_name(base_url),
            base_url=base_url,
            keys=keys,
            completions=False,
            lists_models=False,
        )
        fault = "it is the gateway itself" if base_url in self._own_urls else fault_of(settings)
        if fault is None and len(self._settings) >= _MAX_OWN_PROVIDERS:
            fault = f"the table names more than {_MAX_OWN_PROVIDERS} endpoints"
        if fault is not None:
            _log.error("the endpoint %s of %s is left out: %s", settings.name, FILE_NAME, fault)
            return None
        self._settings[settings.name] = settings
        return settings.name

    def _free_name(self, base_url: str) -> str:
        """The host as a provider's name, with a number when it is taken."""
        host = urlsplit(base_url).netloc.rpartition("@")[2].casefold()
        stem = re.sub(r"[^a-z0-9]+", "-", host).strip("-")[: _NAME_CHARACTERS - 4].rstrip("-") or "own"
        names = (stem, *(f"{stem}-{number}" for number in range(2, _MAX_OWN_PROVIDERS + len(self._upstreams) + 3)))
        return next(name for name in names if name not in self._upstreams and name not in self._settings)


def _model(row: RegistryModel, upstream: UpstreamPlan) -> Model:
    settings = upstream.settings
    return Model(
        provider=settings.name,
        name=row.id,
        id=f"{settings.name}/{row.id}",
        owned_by=settings.owned_by or settings.name,
        context_length=row.max_input or None,
        # Of an embedding model the table states the numbers of its vector.
        max_output_tokens=None if row.embeds else row.max_output or None,
        operations=frozenset(
            {Operation.EMBEDDING, Operation.RERANK} if row.embeds else {Operation.CHAT, Operation.COMPLETION}
        ),
        local=settings.local,
        shortcode=row.shortcode,
        temperature=row.temperature,
        completion_tokens=row.completion_tokens,
    )
