"""URLs that a person may set, read by one strict grammar: what another parser could read differently is refused."""

import re
from ipaddress import IPv4Address, IPv6Address

from stellwerk.core.errors import BadRequest
from stellwerk.http.pool import Origin

MOST_CHARACTERS = 2048

_PLAIN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_SHAPE = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?]*)(?P<target>.*)", re.ASCII | re.IGNORECASE)
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9._-]{1,253}))(?::(?P<port>[1-9][0-9]{0,4}))?", re.ASCII
)
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""As the last part of a host it makes resolvers read the whole of it as an IPv4 address."""
_TARGET = re.compile(r'(?:[^%"<>]|%[0-9A-Fa-f]{2})*', re.ASCII)
_LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa", "ip6-localhost", "ip6-loopback")
_OTHER_PROTOCOLS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
)
"""From 1024 on: the ports that no browser calls (Fetch standard), because what listens there takes the lines of an
HTTP request for commands."""


class UrlRefused(BadRequest):
    """A URL that is not called. The message says what is wrong and the remedy, never the URL or its addresses."""

    code = "url_refused"

    def __init__(self, message: str, *, param: str = "url") -> None:
        super().__init__(message, param=param)


class Url(Origin, frozen=True, kw_only=True):
    """Scheme, host, port and target. `host` is lower case; an address stands in its shortest form, no brackets."""

    target: str
    """Path and query as they go into the request line."""

    @property
    def origin(self) -> str:
        """`https://host`, with the port unless it is the scheme's own."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an address, so that no name has to be resolved."""
        return ":" in self.host or _NUMBER.fullmatch(self.host.rpartition(".")[2]) is not None

    @property
    def is_local_name(self) -> bool:
        """Whether the host is a name that means this machine or its network whatever a resolver says of it."""
        return any(self.host == name or self.host.endswith(f".{name}") for name in _LOCAL_NAMES)

    @property
    def speaks_http(self) -> bool:
        """Whether the port is not one that belongs to another protocol."""
        return self.port in (80, 443) or (self.port >= 1024 and self.port not in _OTHER_PROTOCOLS)


def parse_url(url: str) -> Url:
    """Reads a URL without asking anybody. Raises UrlRefused."""
    if len(url) > MOST_CHARACTERS:
        raise UrlRefused(f"The URL is longer than {MOST_CHARACTERS} characters.")
    if _PLAIN.fullmatch(url) is None or "\\" in url:
        raise UrlRefused(
            "The URL has a space, a backslash, a control character or one outside ASCII: "
            "write these with percent signs, and such a host name as xn--…."
        )
    shape = _SHAPE.fullmatch(url)
    if shape is None:
        raise UrlRefused("The URL does not start with https:// or http://.")
    if "#" in url:
        raise UrlRefused("The URL has a fragment: leave out everything from the # on.")
    authority = shape["authority"].lower()
    if "@" in authority:
        raise UrlRefused("The URL has a user name or a password: leave out everything before the @.")
    host, port = _parse_authority(authority)
    scheme = shape["scheme"].lower()
    target = shape["target"]
    if _TARGET.fullmatch(target) is None:
        raise UrlRefused("The URL has a quotation mark, < or > or a lone % in its path: write %22, %3C, %3E or %25.")
    if not target.startswith("/"):
        target = f"/{target}"
    return Url(scheme=scheme, host=host, port=port or (443 if scheme == "https" else 80), target=target)


def canonical_origin(text: str) -> str:
    """The one spelling of an origin such as `HTTP://Example.com:80/`. Raises UrlRefused when it is none."""
    url = parse_url(text)
    if url.target != "/":
        raise UrlRefused("The origin has a path or a query: leave out everything behind the port.")
    return url.origin


def _parse_authority(authority: str) -> tuple[str, int]:
    """Host and port; 0 where there is none."""
    found = _AUTHORITY.fullmatch(authority)
    port = int(found["port"] or 0) if found is not None else 0
    host = _read_host(found["six"], found["name"]) if found is not None else None
    if host is None or port > 65535:
        raise UrlRefused(
            "The URL does not name its host plainly: write a name like hooks.example.com or an address in its usual "
            "form, without a dot behind it, and at most a port from 1 to 65535."
        )
    return host, port


def _read_host(six: str | None, name: str) -> str | None:
    try:
        if six is not None:
            return str(IPv6Address(six))
        if _NUMBER.fullmatch(name.rpartition(".")[2]) is not None:
            return str(IPv4Address(name))
    except ValueError:
        return None
    return name if _NAME.fullmatch(name) is not None else None
