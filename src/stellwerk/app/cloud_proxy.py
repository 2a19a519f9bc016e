"""Opens the listener for Ollama Cloud Proxy's clients: a few paths of Ollama's cloud, with the operator's keys."""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Container, Mapping
from ipaddress import ip_address

from stellwerk.api._guard import Routes
from stellwerk.api.cloud_proxy.access import Door
from stellwerk.api.cloud_proxy.endpoints import PREFIXES, CloudProxyAPI
from stellwerk.api.cloud_proxy.errors import make_renderer
from stellwerk.api.cloud_proxy.names import cloud_name
from stellwerk.api.cloud_proxy.probe import CloudProbe
from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.openai.endpoints import OpenAIAPI
from stellwerk.app.listeners import Listeners
from stellwerk.app.ollama_cloud import CLOUD_VENDOR, COMPAT, cloud_address, cloud_keys
from stellwerk.app.people import People
from stellwerk.app.providers import Providers
from stellwerk.config.listeners import CloudProxy
from stellwerk.config.rules import is_loopback
from stellwerk.core.errors import Unavailable
from stellwerk.core.secrets import Secret
from stellwerk.http.interfaces import machine_addresses
from stellwerk.http.pool import parse_base_url
from stellwerk.http.router import Router
from stellwerk.http.serving import CannotListen, bind, bind_loopback
from stellwerk.pipeline.gateway import Gateway
from stellwerk.providers.ollama_native import OllamaNative
from stellwerk.telemetry.metrics import Metrics

_TOKEN_VARIABLE, _OPEN_VARIABLE = "PROXY_AUTH_TOKEN", "ALLOW_UNAUTHENTICATED_ACCESS"
_THIS_MACHINE = ("127.0.0.1", "localhost")
_ASKING_SECONDS = 60.0
_LOOK_UP_SECONDS = 5.0
_log = logging.getLogger("stellwerk.app")


async def open_cloud_proxy(
    settings: CloudProxy,
    environ: Mapping[str, str],
    *,
    listeners: Listeners,
    people: People,
    metrics: Metrics,
    ollama: OllamaAPI,
    openai: OpenAIAPI,
    providers: Providers,
    gateway: Gateway,
    ports: Collection[int],
    names: Container[str],
    hide: Callable[[Secret], None],
) -> None:
    """One listener, which stays closed without keys for the cloud. `ports` are the gateway's own, `names` those of
    this machine; `hide` keeps a secret out of the log."""
    keys = cloud_keys(settings, environ)
    fault = await _fault(settings, keys, providers, ports)
    if fault is not None:
        listeners.give_up(COMPAT, fault)
        return
    try:
        bound = bind_loopback(settings.port) if settings.host in _THIS_MACHINE else [bind(settings.host, settings.port)]
    except CannotListen as error:
        listeners.give_up(COMPAT, f"{error} A real Ollama has the same port; ollama_cloud_proxy.port takes another.")
        return
    token = _token(settings, environ)
    if token is not None:
        _hide(token, hide)
    origins = listeners.origins.at_ollama
    door = Door(
        token,
        unauthenticated=_is_open(settings, environ),
        trusted=people.trusted_peer,
        names=names,
        origins=origins,
    )
    _warn(door, token, settings.host)
    render = make_renderer(configured=door.configured, several_keys=len(keys) > 1)
    cloud = CloudProxyAPI(
        provider=CLOUD_VENDOR,
        ask=lambda method, target, body: _cloud(providers).ask(method, target, body, seconds=_ASKING_SECONDS),
        probe=CloudProbe(lambda: _status(providers, settings.base_url), people.clock),
        fetch=people.fetch,
        gateway=gateway,
    )
    router = Router()
    routes = Routes(router, people.keys, metrics, admit=door.admit, render=render)
    cloud.register(routes, Routes(router, people.keys, metrics, admit=door.admit_to_statistics, render=render))
    for prefix in PREFIXES:
        ollama.register_calls(routes, prefix, _catalogue_name)
    openai.register_calls(routes, "/v1", _catalogue_name)
    listeners.add(COMPAT, bound, router, render, origins=origins)


def _catalogue_name(asked: str) -> str:
    return f"{CLOUD_VENDOR}/{cloud_name(asked)}" if asked else ""


async def _fault(
    settings: CloudProxy, keys: Collection[Secret], providers: Providers, ports: Collection[int]
) -> str | None:
    """Why the listener stays closed; None when it can be opened."""
    if not keys:
        return "There are no keys for Ollama's cloud: set OLLAMA_API_KEYS, or ollama_cloud_proxy.keys."
    if await _leads_here(settings.base_url, ports):
        return "ollama_cloud_proxy.base_url leads to this gateway itself."
    if not isinstance(providers.by_name.get(CLOUD_VENDOR), OllamaNative):
        return f"The provider {CLOUD_VENDOR} cannot be used; the log has the reason."
    return None


async def _leads_here(url: str, ports: Collection[int]) -> bool:
    """Whether a base URL leads to one of the gateway's own ports, also by a name that has to be looked up."""
    origin, _ = parse_base_url(url)
    if origin.port not in ports:
        return False
    try:
        async with asyncio.timeout(_LOOK_UP_SECONDS):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    own = set(machine_addresses())
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    return any(each in own or each.is_loopback or each.is_unspecified for each in addresses)


def _token(settings: CloudProxy, environ: Mapping[str, str]) -> Secret | None:
    return settings.token or Secret(environ.get(_TOKEN_VARIABLE, "").strip()) or None


def _is_open(settings: CloudProxy, environ: Mapping[str, str]) -> bool:
    return settings.allow_unauthenticated or environ.get(_OPEN_VARIABLE, "").strip().lower() == "true"


def _hide(token: Secret, hide: Callable[[Secret], None]) -> None:
    try:
        hide(token)
    except ValueError as error:
        _log.warning("the token of %s cannot be kept out of the log: %s", COMPAT, error)


def _warn(door: Door, token: Secret | None, host: str) -> None:
    if not door.configured:
        _log.warning("%s has no token: only keys of this gateway are taken. Set %s.", COMPAT, _TOKEN_VARIABLE)
    elif not is_loopback(host) and token is None:
        _log.warning("%s is open to programs on this machine alone: others have to show a key or token", COMPAT)


def _cloud(providers: Providers) -> OllamaNative:
    """As it is now: a changed config makes providers anew."""
    found = providers.by_name.get(CLOUD_VENDOR)
    if not isinstance(found, OllamaNative):
        raise Unavailable("There are no keys for Ollama's cloud at the moment.")
    return found


async def _status(providers: Providers, base_url: str) -> int:
    status, _ = await providers.fetch("GET", f"{cloud_address(base_url)}/api", None)
    return status
