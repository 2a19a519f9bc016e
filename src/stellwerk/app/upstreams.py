"""Which providers there are: those of the config, those the environment has keys for, and an Ollama nearby."""

import logging
import re
from collections.abc import Collection, Mapping

import msgspec

from stellwerk.app.ollama_cloud import (
    CLOUD_VENDOR,
    COMPAT,
    cloud_address,
    cloud_keys,
    is_own_url,
    keys_of_environment,
)
from stellwerk.config.settings import Config
from stellwerk.config.settings import Discovery as DiscoveryConfig
from stellwerk.config.settings import Provider as ProviderConfig
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.ollama import DEFAULT_ADDRESS, ollama_address
from stellwerk.providers.openai_compatible import ProviderSettings
from stellwerk.providers.vendors import Vendor, VendorAccess, keys_in_environment, vendors_in_environment

OLLAMA = "ollama"

_SENDABLE = re.compile(r"[!-~]{1,4096}")
_log = logging.getLogger("stellwerk.app")


class UpstreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One provider that is to exist."""

    settings: ProviderSettings
    price_vendor: str | None = None
    first_byte_seconds: float | None = None
    ollama_url: str | None = None
    """Where to ask for the models when it is an Ollama, whose own API knows more about them."""
    any_model: bool = True
    """Models that it does not list may be asked for too."""


def plan_upstreams(
    config: Config, vendors: Mapping[str, Vendor], environ: Mapping[str, str], own_urls: Collection[str] = ()
) -> dict[str, UpstreamPlan]:
    """Providers by name; what is configured goes before what is found. `own_urls` are the gateway's own base URLs.

    One whose address or key cannot be used is reported and left out: variables of the environment are made for other
    programs, and the models of the others are to be had all the same.
    """
    planned = {name: _configured(name, provider, vendors, environ) for name, provider in config.providers.items()}
    if config.discovery.environment:
        for access in vendors_in_environment(vendors, environ):
            if access.vendor.name == OLLAMA or access.base_url in own_urls:
                # Clients are told of the gateway by the same variables that tell the gateway of a vendor.
                continue
            planned.setdefault(access.vendor.name, _found(access))
    url = _ollama_url(config.discovery, environ)
    # Where an Ollama is looked for, the gateway itself may listen for the clients of one.
    if config.discovery.ollama and OLLAMA not in planned and not is_own_url(url, own_urls):
        planned[OLLAMA] = _ollama(OLLAMA, url, ())
    if CLOUD_VENDOR not in planned and (cloud := _cloud(config, environ)) is not None:
        planned[CLOUD_VENDOR] = cloud
    faults = {name: fault for name, plan in planned.items() if (fault := fault_of(plan.settings)) is not None}
    if CLOUD_VENDOR in planned and is_own_url(planned[CLOUD_VENDOR].settings.base_url, own_urls):
        faults[CLOUD_VENDOR] = "its address is one of this gateway's own"
    for name, fault in faults.items():
        _log.error("the provider %s is left out: %s", name, fault)
    return {name: plan for name, plan in planned.items() if name not in faults}


def fault_of(settings: ProviderSettings) -> str | None:
    """Why a provider cannot be used; never repeats what it was given."""
    try:
        parse_base_url(settings.base_url)
    except ValueError:
        return "its address is not of the form http://host:port/path"
    if not _SENDABLE.fullmatch(settings.base_url):
        return "its address holds blanks or characters outside ASCII"
    if not all(_SENDABLE.fullmatch(key.reveal()) for key in settings.keys):
        return "a key of it holds blanks, line breaks or characters outside ASCII, or is longer than 4096 characters"
    return None


def _configured(
    name: str, provider: ProviderConfig, vendors: Mapping[str, Vendor], environ: Mapping[str, str]
) -> UpstreamPlan:
    headers = tuple((header, value.reveal()) for header, value in provider.headers.items())
    vendor = vendors.get(provider.vendor or name)
    base_url = provider.base_url or (vendor.base_url if vendor is not None else None) or ""
    has_keys = provider.api_key is not None or bool(provider.api_keys)
    if (provider.vendor or name) in (OLLAMA, CLOUD_VENDOR):
        if (provider.vendor or name) == CLOUD_VENDOR:
            plan = _ollama_cloud(name, base_url, _own_keys(provider) if has_keys else keys_of_environment(environ))
        else:
            url = (provider.base_url or ollama_address(environ)).rstrip("/").removesuffix("/v1")
            plan = _ollama(name, url, _own_keys(provider))
        settings = msgspec.structs.replace(plan.settings, headers=headers, models=provider.models)
        return msgspec.structs.replace(
            plan,
            settings=settings,
            first_byte_seconds=provider.first_byte_seconds,
            ollama_url=None if provider.models else plan.ollama_url,
            any_model=not provider.models,
        )
    keys = _own_keys(provider)
    if not has_keys and vendor is not None:
        keys = keys_in_environment(vendor.key_variables, environ)
    return UpstreamPlan(
        settings=msgspec.structs.replace(
            _settings(name, base_url, keys, vendor), headers=headers, models=provider.models
        ),
        price_vendor=vendor.price_vendor if vendor is not None else None,
        first_byte_seconds=provider.first_byte_seconds,
        any_model=not provider.models,
    )


def _own_keys(provider: ProviderConfig) -> tuple[Secret, ...]:
    """The keys that the config names, each once and without empty ones."""
    given = (*([provider.api_key] if provider.api_key is not None else []), *provider.api_keys)
    return tuple(dict.fromkeys(key for key in given if key))


def _found(access: VendorAccess) -> UpstreamPlan:
    vendor = access.vendor
    return UpstreamPlan(
        settings=_settings(vendor.name, access.base_url, access.keys, vendor), price_vendor=vendor.price_vendor
    )


def _settings(name: str, base_url: str, keys: tuple[Secret, ...], vendor: Vendor | None) -> ProviderSettings:
    if vendor is None:
        # It may be anything, and what it cannot do it says itself.
        return ProviderSettings(name=name, base_url=base_url, keys=keys, rerank="rerank")
    return ProviderSettings(
        name=name,
        base_url=base_url,
        keys=keys,
        owned_by=vendor.owned_by,
        local=vendor.local,
        completions=vendor.completions,
        embeddings=vendor.embeddings,
        rerank=vendor.rerank,
        lists_models=vendor.models,
        stream_options=vendor.stream_options,
        model_prefix=vendor.model_prefix,
    )


def _ollama_url(discovery: DiscoveryConfig, environ: Mapping[str, str]) -> str:
    """Ollama's own variables count as long as the config says nothing else."""
    return ollama_address(environ) if discovery.ollama_url == DEFAULT_ADDRESS else discovery.ollama_url.rstrip("/")


def _ollama(name: str, url: str, keys: tuple[Secret, ...]) -> UpstreamPlan:
    settings = ProviderSettings(name=name, base_url=f"{url}/v1", keys=keys, owned_by=OLLAMA, local=True)
    return UpstreamPlan(settings=settings, ollama_url=url)


def _cloud(config: Config, environ: Mapping[str, str]) -> UpstreamPlan | None:
    """Ollama's cloud as a provider, when its clients have a listener here or the environment has keys for it."""
    settings = config.ollama_cloud_proxy
    if COMPAT in config.compat:
        keys = cloud_keys(settings, environ)
    else:
        keys = keys_of_environment(environ) if config.discovery.environment else ()
    return _ollama_cloud(CLOUD_VENDOR, settings.base_url, keys) if keys else None


def _ollama_cloud(name: str, url: str, keys: tuple[Secret, ...]) -> UpstreamPlan:
    url = cloud_address(url)
    settings = ProviderSettings(name=name, base_url=f"{url}/v1", keys=keys, owned_by=CLOUD_VENDOR)
    return UpstreamPlan(settings=settings, ollama_url=url)
