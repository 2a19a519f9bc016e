"""Cuts the config into the settings of each object; the only place where both are known."""

from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import msgspec

from stellwerk.config.settings import Config, OwnLimits
from stellwerk.core.principal import Allowance, Tier
from stellwerk.engines.llama_cpp import LlamaCppSettings
from stellwerk.engines.slots import DEMO_MODEL, SlotSettings
from stellwerk.engines.supervisor import SupervisorSettings
from stellwerk.http.guard import GuardSettings
from stellwerk.http.interfaces import machine_names
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.ledger.charges import ChargeSettings
from stellwerk.ledger.tariff import TariffSettings
from stellwerk.limits.admit import LimitSettings
from stellwerk.records.settings import Value
from stellwerk.routing.breaker import BreakerSettings
from stellwerk.routing.catalogue import Alias
from stellwerk.routing.discovery import Settings as DiscoverySettings
from stellwerk.telemetry.logs import LogSettings

MODELS_FOLDER = "models"


def guard_settings(config: Config, peers: tuple[IPv4Network | IPv6Network, ...] | None = None) -> GuardSettings:
    """`peers` are who may connect at all: then only the socket itself says who somebody is, and no proxy."""
    listen = config.listen
    if peers is not None:
        names = (*listen.allowed_hosts, *machine_names())
        return GuardSettings(**msgspec.structs.asdict(config.guard), allowed_hosts=names, peers=peers)
    # Behind a proxy the names are the proxy's business: it passes on what it was asked for.
    hosts = ("*",) if listen.behind_proxy else (*listen.allowed_hosts, listen.host)
    trusted = tuple(ip_network(text) for text in listen.trusted_proxies)
    return GuardSettings(**msgspec.structs.asdict(config.guard), allowed_hosts=hosts, trusted_proxies=trusted)


def limit_settings(config: Config, changed: Mapping[str, Value]) -> LimitSettings:
    """`changed` are the settings that an admin changed while the gateway ran; they go before the file's."""
    limits = config.limits
    tiers = {tier: _allowance(getattr(limits.tiers, tier)) for tier in Tier}
    for tier in (Tier.PAYG, Tier.SUB):
        rate = changed.get(f"rate_limits.{tier}")
        if rate is not None:
            tiers[tier] = msgspec.structs.replace(tiers[tier], requests_per_minute=int(rate))
    return LimitSettings(
        requests_per_minute=limits.requests_per_minute,
        burst=limits.burst,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_requests=limits.concurrent_requests,
        total_concurrent_requests=limits.total_concurrent_requests,
        tiers=tiers,
        models={name: _allowance(own) for name, own in limits.models.items()},
        assumed_output_tokens=config.money.assumed_output_tokens,
    )


def key_allowance(config: Config) -> Allowance:
    """The limits of a key that has none of its own."""
    limits = config.limits
    return Allowance(
        requests_per_minute=limits.requests_per_minute,
        burst=limits.burst,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_requests=limits.concurrent_requests,
    )


def _allowance(limits: OwnLimits) -> Allowance:
    return Allowance(**msgspec.structs.asdict(limits))


def charge_settings(config: Config) -> ChargeSettings:
    money = config.money
    return ChargeSettings(
        currency=money.currency,
        assumed_output_tokens=money.assumed_output_tokens,
        wait_seconds=money.wait_seconds,
    )


def tariff_settings(config: Config, changed: Mapping[str, Value]) -> TariffSettings:
    money = config.money
    return TariffSettings(
        currency=money.currency,
        # The shortest text of a float is what stood in the file.
        usd_rate=Decimal(repr(money.usd_rate)),
        input_per_1k=Decimal(changed.get("pricing.input_per_1k", repr(money.input_per_1k))),
        output_per_1k=Decimal(changed.get("pricing.output_per_1k", repr(money.output_per_1k))),
    )


def log_settings(config: Config) -> LogSettings:
    return LogSettings(**msgspec.structs.asdict(config.log))


def upstream_settings(config: Config) -> UpstreamSettings:
    upstream = config.upstream
    return UpstreamSettings(
        connect_seconds=upstream.connect_seconds,
        first_byte_seconds=upstream.first_byte_seconds,
        idle_seconds=upstream.idle_seconds,
        connections=upstream.connections,
        idle_connections=upstream.idle_connections,
        response_bytes=upstream.response_bytes,
        event_bytes=upstream.line_bytes,
    )


def breaker_settings(config: Config) -> BreakerSettings:
    return BreakerSettings(failures=config.upstream.breaker_failures, open_seconds=config.upstream.breaker_seconds)


def discovery_settings(config: Config) -> DiscoverySettings:
    return DiscoverySettings(refresh_seconds=config.discovery.refresh_seconds)


def slot_settings(config: Config, data: Path) -> SlotSettings:
    engines = config.engines
    folder = Path(engines.models_folder).expanduser() if engines.models_folder else data / MODELS_FOLDER
    demo = (DEMO_MODEL,) if engines.demo else ()
    return SlotSettings(
        folder=folder,
        bundled=demo,
        preload=tuple(path.stem for path in demo),
        first_port=engines.first_port,
        count=engines.slots,
        engine=LlamaCppSettings(
            backend=engines.backend,
            executable=engines.llama_server or "llama-server",
            context_length=engines.context,
            threads=engines.threads,
            parallel=engines.parallel,
        ),
        supervisor=SupervisorSettings(load_timeout=engines.load_seconds),
    )


def aliases(config: Config) -> dict[str, Alias]:
    return {name: Alias(targets=model.targets, description=model.description) for name, model in config.models.items()}
