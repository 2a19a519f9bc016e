"""Where the gateway of this machine listens: where it says, else where its configuration would have it."""

from collections.abc import Mapping
from pathlib import Path

from stellwerk.config.problems import ConfigError
from stellwerk.config.reading import data_folder, find, load_beside
from stellwerk.config.settings import Config
from stellwerk.storage.address_note import noted_address

_SECTION = "STELLWERK_LISTEN"
_PORT = "STELLWERK_LISTEN__PORT"


def local_url(host: str, port: int) -> str:
    """Under which programs on this machine reach what listens there."""
    if host in {"0.0.0.0", "::"}:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_url(data: Path | None, environ: Mapping[str, str]) -> str:
    """Of the gateway of this data folder.

    A port in the environment goes first, then the address that the gateway has noted, then the configuration.
    Raises ConfigError.
    """
    folder = data_folder(data, environ)
    noted = None if _names_port(environ) else noted_address(folder)
    if noted is not None:
        return local_url(*noted)
    listen = load_beside(find(None, environ, folder), environ).listen
    return local_url(listen.host, listen.port)


def find_own_url(data: Path | None, environ: Mapping[str, str]) -> str:
    """The same, and the default address where the configuration cannot be read.

    It may belong to the gateway's user alone, or name variables that only the gateway has, and neither keeps anybody
    from asking.
    """
    try:
        return own_url(data, environ)
    except (ConfigError, OSError):
        listen = Config().listen
        return local_url(listen.host, listen.port)


def _names_port(environ: Mapping[str, str]) -> bool:
    # Port 0 stands for any free one, which only the gateway knows.
    return _SECTION in environ or environ.get(_PORT, "0").strip() != "0"
