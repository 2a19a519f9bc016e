"""Origins of web pages as browsers write them in the header `Origin`: scheme, host and, unless it is usual, port."""

import re
from ipaddress import IPv6Address

MOST_CHARACTERS = 300

_SHAPE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,31})://(?P<authority>[^/?#\\]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(?P<port>[1-9][0-9]{0,4}))?")
_USUAL_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}


class NotAnOrigin(ValueError):
    """`code` is one of `origin_wildcard`, `origin_null`, `origin_port`, `url_path` and `origin_form`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def read_origin(text: str) -> str:
    """The one spelling that browsers use for it. Raises NotAnOrigin.

    `null` is none: whoever opens a file or a sandboxed frame has it, and nobody can be told from anybody else.
    """
    lower = text.lower()
    if lower == "null":
        raise NotAnOrigin("origin_null")
    if "*" in lower:
        raise NotAnOrigin("origin_wildcard")
    shape = _SHAPE.fullmatch(lower) if len(text) <= MOST_CHARACTERS else None
    authority = _AUTHORITY.fullmatch(shape["authority"]) if shape is not None else None
    if shape is None or authority is None:
        raise NotAnOrigin("origin_form")
    if shape["rest"]:
        raise NotAnOrigin("url_path")
    host, port = _read_host(authority["host"]), authority["port"]
    if port is None:
        return f"{shape['scheme']}://{host}"
    if int(port) > 65535:
        raise NotAnOrigin("origin_form")
    if int(port) == _USUAL_PORTS.get(shape["scheme"]):
        raise NotAnOrigin("origin_port")
    return f"{shape['scheme']}://{host}:{port}"


def _read_host(host: str) -> str:
    if not host.startswith("["):
        return host
    try:
        return f"[{IPv6Address(host[1:-1])}]"
    except ValueError:
        raise NotAnOrigin("origin_form") from None
