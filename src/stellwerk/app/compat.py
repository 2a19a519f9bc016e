"""The listeners for the clients of other systems, as the config's `compat` names them."""

from collections.abc import Coroutine
from typing import Any

from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.app import go_ollama, sigorest
from stellwerk.app.listeners import Listeners
from stellwerk.app.people import People
from stellwerk.config.settings import Config
from stellwerk.telemetry.metrics import Metrics


def compat_ports(config: Config) -> list[int]:
    """The ports that they take; 0 where any free one is taken."""
    ports: list[int] = []
    if sigorest.COMPAT in config.compat:
        ports += [config.sigorest.http_port, config.sigorest.https_port]
    if go_ollama.COMPAT in config.compat:
        ports += config.go_ollama.ports
    return ports


async def open_compat(
    config: Config,
    sigorest_listeners: sigorest.SigoRestListeners,
    listeners: Listeners,
    people: People,
    metrics: Metrics,
    ollama: OllamaAPI,
) -> list[Coroutine[Any, Any, None]]:
    """Opens what the config names; returns the work that has to run as long as they are open."""
    if go_ollama.COMPAT in config.compat:
        go_ollama.open_go_ollama(
            config.go_ollama, listeners=listeners, people=people, metrics=metrics, generate=ollama.generate
        )
    return await sigorest_listeners.open() if sigorest.COMPAT in config.compat else []
