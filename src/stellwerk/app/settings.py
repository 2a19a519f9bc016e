"""Cuts the config into the settings of each object; the only place where both are known."""

from pathlib import Path

import msgspec

from stellwerk.config.settings import Config
from stellwerk.engines.llama_cpp import LlamaCppSettings
from stellwerk.engines.slots import DEMO_MODEL, SlotSettings
from stellwerk.engines.supervisor import SupervisorSettings
from stellwerk.http.guard import GuardSettings
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.limits.admit import LimitSettings
from stellwerk.routing.catalogue import Alias
from stellwerk.routing.discovery import Settings as DiscoverySettings
from stellwerk.telemetry.logs import LogSettings

MODELS_FOLDER = "models"


def guard_settings(config: Config) -> GuardSettings:
    listen = config.listen
    # Behind a proxy the names are the proxy's business: it passes on what it was asked for.
    hosts = ("*",) if listen.behind_proxy else (*listen.allowed_hosts, listen.host)
    return GuardSettings(**msgspec.structs.asdict(config.guard), allowed_hosts=hosts)


def limit_settings(config: Config) -> LimitSettings:
    return LimitSettings(**msgspec.structs.asdict(config.limits))


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
