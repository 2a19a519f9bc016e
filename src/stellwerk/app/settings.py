"""Cuts the config into the settings of each object; the only place where both are known."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import msgspec

from stellwerk.config.engines import EngineModel
from stellwerk.config.settings import Config, OwnLimits
from stellwerk.core.principal import Allowance, Tier
from stellwerk.engines.command_engine import EngineCommand
from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.liveness import LivenessSettings
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.options import EngineDefaults, EngineOverrides
from stellwerk.engines.slot_settings import DEMO_MODEL, SlotSettings
from stellwerk.engines.supervisor import SupervisorSettings
from stellwerk.engines.vllm import VllmProgram
from stellwerk.http.guard import GuardSettings
from stellwerk.http.interfaces import machine_names
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.ledger.charges import ChargeSettings
from stellwerk.ledger.tariff import TariffSettings
from stellwerk.limits.admit import LimitSettings
from stellwerk.limits.gate import GateSettings
from stellwerk.pipeline.images import ImageSettings
from stellwerk.providers.ocr import MODEL as OCR_MODEL
from stellwerk.records.settings import Value
from stellwerk.routing.breaker import BreakerSettings
from stellwerk.routing.catalogue import Alias
from stellwerk.routing.choice import Choice, Group
from stellwerk.routing.discovery import Settings as DiscoverySettings
from stellwerk.routing.planner import PlanRules
from stellwerk.telemetry.logs import LogSettings

DEMO_EMBEDDING_MODEL = DEMO_MODEL.with_name("stellwerk-demo-embedding.gguf")
MODELS_FOLDER = "models"
ENGINES_FOLDER = "engines"
_OWN_WAITING = 1_000
"""Calls that may wait for a model of our own."""
_SPARE_READERS = 3
"""Calls that are let in to the reader of pages beyond those that are being read."""


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


def image_settings(config: Config) -> ImageSettings:
    return ImageSettings(request_bytes=config.guard.body_bytes)


def breaker_settings(config: Config) -> BreakerSettings:
    return BreakerSettings(failures=config.upstream.breaker_failures, open_seconds=config.upstream.breaker_seconds)


def discovery_settings(config: Config) -> DiscoverySettings:
    return DiscoverySettings(refresh_seconds=config.discovery.refresh_seconds, prefixes=config.routing.prefixes)


def slot_settings(config: Config, data: Path) -> SlotSettings:
    engines = config.engines
    folder = Path(engines.models_folder).expanduser() if engines.models_folder else data / MODELS_FOLDER
    return SlotSettings(
        folder=folder,
        state=data / ENGINES_FOLDER,
        bundled=(DEMO_MODEL, DEMO_EMBEDDING_MODEL) if engines.demo else (),
        preload=(DEMO_MODEL.stem,) if engines.demo else (),
        named={name: Path(model.path).expanduser() for name, model in engines.models.items() if model.path},
        projectors=tuple(Path(model.mmproj).expanduser() for model in engines.models.values() if model.mmproj),
        first_port=engines.first_port,
        count=engines.slots,
        defaults=EngineDefaults(
            engine=engines.backend,
            context=engines.context,
            threads=engines.threads,
            parallel=engines.parallel,
            batch=engines.batch,
            flash_attention=engines.flash_attention,
            mlock=engines.mlock,
            kv_cache=engines.kv_cache,
            load_seconds=engines.load_seconds,
            idle_seconds=engines.idle_seconds,
        ),
        overrides={name: _engine_overrides(model) for name, model in engines.models.items()},
        programs=EnginePrograms(
            llama_server=engines.llama_server or "llama-server",
            vllm=VllmProgram(executable=engines.vllm.program or "vllm", arguments=engines.vllm.arguments),
            commands={name: EngineCommand(**msgspec.structs.asdict(each)) for name, each in engines.commands.items()},
        ),
        memory_mib=engines.memory_mib,
        supervisor=SupervisorSettings(liveness=_liveness(config)),
    )


def _liveness(config: Config) -> LivenessSettings:
    usual = LivenessSettings()
    # Whoever lets clients wait for longer has engines that take that long.
    return msgspec.structs.replace(usual, patience=max(usual.patience, config.upstream.first_byte_seconds))


def _engine_overrides(model: EngineModel) -> EngineOverrides:
    said = {name: value for name, value in msgspec.structs.asdict(model).items() if name not in ("path", "type")}
    return EngineOverrides(
        **said
        | {
            "type": ModelType(model.type) if model.type else None,
            # As a scan finds it.
            "mmproj": Path(model.mmproj).expanduser().resolve() if model.mmproj else None,
            "pinned": model.pinned or None,
        }
    )


def groups(config: Config) -> dict[str, Group]:
    """Public names whose targets are chosen from. One that keeps its order has no group: its second target answers
    only as long as the first one fails."""
    return {
        name: Group(choice=Choice(model.choice), weights=model.weights, sticky=model.sticky)
        for name, model in config.models.items()
        if model.choice != "order"
    }


def plan_rules(config: Config) -> PlanRules:
    routing = config.routing
    return PlanRules(capability_fallback=routing.capability_fallback, request_fallbacks=routing.request_fallbacks)


def gate_settings(config: Config) -> dict[str, GateSettings]:
    return {name: GateSettings(**msgspec.structs.asdict(gate)) for name, gate in config.gates.items()}


def own_gates(config: Config) -> Callable[[str], GateSettings]:
    """The gates of the models that we run, by their names: as wide as their engine computes side by side."""
    engines = config.engines
    usual = GateSettings(max_concurrent=engines.parallel, max_waiting=_OWN_WAITING)
    # A reader takes turns between documents by itself; jobs must not fill its line.
    own = {OCR_MODEL: GateSettings(max_concurrent=config.ocr.workers + _SPARE_READERS, max_waiting=_OWN_WAITING)} | {
        name: GateSettings(max_concurrent=model.parallel, max_waiting=_OWN_WAITING)
        for name, model in engines.models.items()
        if model.parallel is not None
    }
    return lambda name: own.get(name, usual)


def aliases(config: Config) -> dict[str, Alias]:
    return {name: Alias(targets=model.targets, description=model.description) for name, model in config.models.items()}
