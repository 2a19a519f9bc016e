"""Ollama's cloud as an upstream: its address, and where its keys stand."""

import logging
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from stellwerk.config.listeners import CloudProxy
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.vendors import keys_in_environment

COMPAT = "ollama-cloud-proxy"
CLOUD_VENDOR = "ollama-cloud"
"""The provider's name, too, unless the config gives it another one."""

_VARIABLES = ("OLLAMA_API_KEYS", "OLLAMA_API_KEY")
_FILE_VARIABLE, _FILE = "CONFIG_PATH", "config/config.yaml"
_MOST_BYTES = 1 << 20
_MOST_KEYS = 64
_log = logging.getLogger("stellwerk.app")


def cloud_keys(settings: CloudProxy, environ: Mapping[str, str]) -> tuple[Secret, ...]:
    """The keys of the config; without any those of the file of keys, and without any in that those of the environment.

    A file that cannot be used is reported and left out.
    """
    if own := tuple(dict.fromkeys(key for key in settings.keys if key)):
        return own
    chosen = settings.keys_file or environ.get(_FILE_VARIABLE, "").strip()
    try:
        found = _keys_of_file(Path(chosen or _FILE).expanduser())
    except FileNotFoundError:
        found = ()
        if chosen:
            _log.error("the file with keys for Ollama's cloud is not there; others are looked for")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        # What the parser says may repeat a line, and with it a key.
        found = ()
        _log.error("the file with keys for Ollama's cloud cannot be read: %s", type(error).__name__)
    return found or keys_of_environment(environ)


def keys_of_environment(environ: Mapping[str, str]) -> tuple[Secret, ...]:
    """The keys of the first variable that has any."""
    # Each alone: one that holds nothing but commas must not hide the next.
    for variable in _VARIABLES:
        given = keys_in_environment((variable,), environ)
        if found := _each_once(part for value in given for part in value.reveal().split(",")):
            return found
    return ()


def _keys_of_file(file: Path) -> tuple[Secret, ...]:
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("too large")
    read: Any = yaml.safe_load(content)
    listed = read.get("keys") if isinstance(read, dict) else None
    if not isinstance(listed, list):
        return ()
    return _each_once(str(key) for key in listed if isinstance(key, str | int))


def _each_once(texts: Iterable[str]) -> tuple[Secret, ...]:
    stripped = (text.strip() for text in texts)
    return tuple(Secret(text) for text in dict.fromkeys(text for text in stripped if text))[:_MOST_KEYS]


def cloud_address(url: str) -> str:
    """The address that /api and /v1 stand below, which people write with either of them."""
    return url.rstrip("/").removesuffix("/v1").removesuffix("/api").rstrip("/")


def is_own_url(url: str, own_urls: Collection[str]) -> bool:
    """Whether a base URL leads to the gateway itself, by whatever name of this machine that needs no look-up."""
    try:
        origin, _ = parse_base_url(url)
    except ValueError:
        return False
    try:
        address = ip_address(origin.host)
        near = address.is_loopback or address.is_unspecified
    except ValueError:
        near = origin.host.rstrip(".") == "localhost" or origin.host.rstrip(".").endswith(".localhost")
    return near and f"{origin.scheme}://127.0.0.1:{origin.port}" in own_urls
