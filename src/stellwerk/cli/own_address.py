"""Where the gateway of this machine listens, by the configuration that it would start with."""

from collections.abc import Mapping
from pathlib import Path

from stellwerk.config.problems import ConfigError
from stellwerk.config.reading import data_folder, find, load_beside
from stellwerk.config.settings import Config


def local_url(host: str, port: int) -> str:
    """Under which programs on this machine reach what listens there."""
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_url(config: Config) -> str:
    return local_url(config.listen.host, config.listen.port)


def find_own_url(data: Path | None, environ: Mapping[str, str]) -> str:
    """Of the gateway of this data folder.

    The default address where the configuration cannot be read: it may belong to the gateway's user alone, or name
    variables that only the gateway has, and neither keeps anybody from asking.
    """
    try:
        return own_url(load_beside(find(None, environ, data_folder(data, environ)), environ))
    except (ConfigError, OSError):
        return own_url(Config())
