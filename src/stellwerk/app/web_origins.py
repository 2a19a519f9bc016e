"""Whose pages may use the listeners from a browser: the config says it, and for Ollama's API its own variable too."""

import logging
from collections.abc import Mapping

import msgspec

from stellwerk.config.settings import Config
from stellwerk.http.cors import Origins, read_origins
from stellwerk.http.interfaces import machine_names

_VARIABLE = "OLLAMA_ORIGINS"
_MOST = 64
_SHOWN_CHARACTERS = 100
_log = logging.getLogger("stellwerk.app")


class WebOrigins(msgspec.Struct, frozen=True):
    everywhere: Origins
    """Those of the config."""
    at_ollama: Origins
    """On listeners that speak Ollama's API: those that `OLLAMA_ORIGINS` names beside them."""


def web_origins(config: Config, environ: Mapping[str, str]) -> WebOrigins:
    """What the variable holds that is no origin is reported and left out."""
    own = config.listen.cors_origins
    everywhere, _ = read_origins(own)
    given = [part.strip() for part in environ.get(_VARIABLE, "").strip("\"' ").split(",", _MOST)[:_MOST]]
    at_ollama, wrong = read_origins((*own, *filter(None, given)), patterns=True)
    for entry in wrong:
        _log.warning(
            "%r in %s is left out: it is none of *, https://host, http://host:port, http://host:* and scheme://*",
            entry[:_SHOWN_CHARACTERS],
            _VARIABLE,
        )
    return WebOrigins(everywhere, at_ollama)


def own_names(config: Config) -> frozenset[str]:
    """The names under which programs on this machine ask, in lower case."""
    return frozenset(name.lower().rstrip(".") for name in (*config.listen.allowed_hosts, *machine_names()))
