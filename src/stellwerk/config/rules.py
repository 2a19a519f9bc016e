"""What types cannot say about the settings: values that must fit each other, addresses, and names that form a loop."""

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple
from urllib.parse import urlsplit

from stellwerk.config.engines import Engines
from stellwerk.config.listeners import SigoRest
from stellwerk.config.models import PublicModel
from stellwerk.config.problems import Value
from stellwerk.config.settings import Config, Listen, Provider
from stellwerk.core.secrets import Secret
from stellwerk.core.web_origin import NotAnOrigin, read_origin

_VISIBLE = re.compile(r"[!-~]*")
_PRINTABLE = re.compile(r"[ -~]*")
_OWN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
)
"""Headers that frame the request: set twice they let one request be read as two."""
_OWN_PROVIDER = "local"
_ENGINES = frozenset({"xllamacpp", "llama-server", "vllm"})
COMMAND_PLACEHOLDERS = frozenset({"model", "host", "port", "key", "context", "threads", "parallel", "mmproj"})
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""Other braces stand for themselves: arguments may be JSON."""


class Breach(NamedTuple):
    path: tuple[str | int, ...]
    code: str
    values: Mapping[str, Value]


def _breach(*path: str | int, code: str, **values: Value) -> Breach:
    return Breach(path, code, values)


def breaches(config: Config, vendors: Collection[str] | None) -> Iterator[Breach]:
    """Every rule that `config` breaks, with the path of the value to change; `vendors` None does not check those."""
    yield from _listening(config.listen, config.listen.host, "listen")
    yield from _listening(config.listen, config.go_ollama.host, "go_ollama")
    yield from _listening(config.listen, config.ollama_cloud_proxy.host, "ollama_cloud_proxy")
    yield from _listening(config.listen, config.ai_gateway.host, "ai_gateway")
    yield from _networks(config.listen.trusted_proxies, "listen", "trusted_proxies")
    yield from _cors(config.listen)
    yield from _sigorest(config.sigorest)
    if config.guard.target_bytes > config.guard.head_bytes:
        yield _breach("guard", "target_bytes", code="target_past_head")
    yield from _ports(config)
    yield from _address(config.discovery.ollama_url, "discovery", "ollama_url")
    yield from _address(config.ollama_cloud_proxy.base_url, "ollama_cloud_proxy", "base_url")
    yield from _address(config.hub.endpoint, "hub", "endpoint")
    yield from _address(config.hub.ollama_registry, "hub", "ollama_registry")
    yield from _secrets(config)
    yield from _engines(config.engines)
    for index, origin in enumerate(config.egress.allowed_origins):
        yield from _origin(origin, "egress", "allowed_origins", index)
    for name, provider in config.providers.items():
        yield from _provider(provider, "providers", name)
        if name == _OWN_PROVIDER:
            yield _breach("providers", name, code="own_provider")
        elif vendors is not None:
            yield from _vendor(name, provider, vendors)
    yield from _loops(config.models)
    for name, model in config.models.items():
        if model.weights and len(model.weights) != len(model.targets):
            yield _breach("models", name, "weights", code="weights", targets=len(model.targets))


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach a socket bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listening(listen: Listen, host: str, section: str) -> Iterator[Breach]:
    if not (is_loopback(host) or listen.allowed_hosts or listen.behind_proxy):
        yield _breach(section, "host", code="public_bind", host=host)


def _networks(texts: Collection[str], *path: str) -> Iterator[Breach]:
    for index, text in enumerate(texts):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            yield _breach(*path, index, code="not_a_network", network=text)


def _cors(listen: Listen) -> Iterator[Breach]:
    for index, text in enumerate(listen.cors_origins):
        if text == "*":
            continue
        try:
            read_origin(text)
        except NotAnOrigin as error:
            yield _breach("listen", "cors_origins", index, code=error.code, origin=text)


def _sigorest(sigorest: SigoRest) -> Iterator[Breach]:
    yield from _networks(sigorest.lan_networks, "sigorest", "lan_networks")
    if (sigorest.certificate is None) is not (sigorest.certificate_key is None):
        missing = "certificate_key" if sigorest.certificate_key is None else "certificate"
        yield _breach("sigorest", missing, code="half_a_certificate")


def _ports(config: Config) -> Iterator[Breach]:
    first, slots = config.engines.first_port, config.engines.slots
    last = first + slots - 1
    if not config.engines.enabled:
        return
    if last > 65535:
        yield _breach("engines", "first_port", code="ports_past_end", slots=slots, first=first, last=last)
    elif first <= config.listen.port <= last:
        yield _breach("listen", "port", code="port_taken", port=config.listen.port, first=first, last=last)


def _engines(engines: Engines) -> Iterator[Breach]:
    for name, engine in engines.commands.items():
        if name in _ENGINES:
            yield _breach("engines", "commands", name, code="own_engine", name=name)
        for index, argument in enumerate(engine.command):
            yield from _placeholders(argument, "engines", "commands", name, "command", index)
        for variable, value in engine.environment.items():
            yield from _placeholders(value.reveal(), "engines", "commands", name, "environment", variable)
    for model, settings in engines.models.items():
        if settings.engine is not None and settings.engine not in {*_ENGINES, *engines.commands}:
            yield _breach("engines", "models", model, "engine", code="unknown_engine", name=settings.engine)


def _placeholders(text: str, *path: str | int) -> Iterator[Breach]:
    for placeholder in _PLACEHOLDER.findall(text):
        if placeholder not in COMMAND_PLACEHOLDERS:
            yield _breach(*path, code="unknown_placeholder", name=placeholder)


def _secrets(config: Config) -> Iterator[Breach]:
    for index, key in enumerate(config.ollama_cloud_proxy.keys):
        yield from _visible(key, "ollama_cloud_proxy", "keys", index)
    yield from _visible(config.ollama_cloud_proxy.token, "ollama_cloud_proxy", "token")
    yield from _visible(config.hub.token, "hub", "token")


def _visible(secret: Secret | None, *path: str | int) -> Iterator[Breach]:
    if secret is not None and not _VISIBLE.fullmatch(secret.reveal()):
        yield _breach(*path, code="secret_characters")


def _provider(provider: Provider, *path: str) -> Iterator[Breach]:
    if provider.base_url is not None:
        yield from _address(provider.base_url, *path, "base_url")
    yield from _visible(provider.api_key, *path, "api_key")
    for index, key in enumerate(provider.api_keys):
        yield from _visible(key, *path, "api_keys", index)
    for name, value in provider.headers.items():
        if name.lower() in _OWN_HEADERS:
            yield _breach(*path, "headers", name, code="header_name")
        elif not _PRINTABLE.fullmatch(value.reveal()):
            yield _breach(*path, "headers", name, code="header_characters")


def _vendor(name: str, provider: Provider, vendors: Collection[str]) -> Iterator[Breach]:
    vendor = provider.vendor or name
    if vendor in vendors or (provider.vendor is None and provider.base_url is not None):
        return
    path = ("providers", name, "vendor") if provider.vendor else ("providers", name)
    near = get_close_matches(vendor, vendors, n=1, cutoff=0.6)
    if near:
        yield _breach(*path, code="unknown_vendor_near", name=vendor, near=near[0])
    else:
        yield _breach(*path, code="unknown_vendor", name=vendor)


def _address(url: str, *path: str | int) -> Iterator[Breach]:
    code = _fault(url)
    if code:
        yield _breach(*path, code=code)


def _origin(url: str, *path: str | int) -> Iterator[Breach]:
    code = _fault(url) or ("url_path" if urlsplit(url).path not in ("", "/") else None)
    if code:
        yield _breach(*path, code=code)


def _fault(url: str) -> str | None:
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        return "url_characters"
    if not url.lower().startswith(("http://", "https://")):
        return "url_scheme"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "url_host"
    if "@" in parts.netloc:
        return "url_userinfo"
    if not host or port == 0:
        return "url_host"
    return "url_query" if "?" in url or "#" in url else None


def _loops(models: Mapping[str, PublicModel]) -> Iterator[Breach]:
    """Each model whose targets lead back to it; walked without recursion, as a chain may be as long as the map."""
    for name in models:
        seen: set[str] = set()
        waiting = list(models[name].targets)
        while waiting:
            target = waiting.pop()
            if target == name:
                yield _breach("models", name, "targets", code="model_loop", model=name)
                break
            if target in models and target not in seen:
                seen.add(target)
                waiting += models[target].targets
