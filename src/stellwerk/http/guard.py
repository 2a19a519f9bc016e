"""What a request must look like before anybody reads it: limits, deadlines, one valid Host, an honest path.

Pure decisions; the server protocol carries them out.
"""

import ipaddress
import re
from collections.abc import Container, Mapping

import msgspec

from stellwerk.core.errors import BadRequest, Forbidden, GatewayError, HeaderTooLarge, TooLarge, UnsupportedMedia
from stellwerk.http.peer import Network, is_one_of, read_address


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and bytes; each bound is meant per connection or per request, `connections` per listener."""

    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 15.0
    write_stall_seconds: float = 30.0
    head_bytes: int = 32 * 1024
    head_fields: int = 64
    target_bytes: int = 8 * 1024
    body_bytes: int = 8 * 1024 * 1024
    connections: int = 4096
    allowed_hosts: tuple[str, ...] = ()
    """Names that a Host header may carry beside addresses and `localhost`; `*` allows every name."""
    trusted_proxies: tuple[Network, ...] = ()
    """Where reverse proxies stand whose `x-forwarded-for` is believed."""
    peers: tuple[Network, ...] | None = None
    """Who may connect, by the address of the socket's other end alone; None: everybody."""


SINGLE_FIELDS = frozenset(
    {
        b"host",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
    }
)
"""A second one of these would leave open which of the two counts."""

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII)
_SUSPICIOUS = re.compile(rb"//|/\.\.?(?:/|$)|%2e|%2f|%5c|%00|[#;\\\x00-\x20\x7f-\xff]", re.IGNORECASE)
_MOST_KNOWN_HOSTS = 256


class Guard:
    """Checks heads against the settings of one listener; remembers the Hosts that it has accepted."""

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self._names = frozenset(name.lower().rstrip(".") for name in settings.allowed_hosts)
        self._known_hosts: set[bytes] = set()

    def check_peer(self, peer: str) -> None:
        """Raises Forbidden, code `peer_not_allowed`, for a peer in none of the networks that may connect.

        An IPv4 address inside IPv6 is the IPv4 address; a peer without an address, as of a UNIX socket, is in none.
        """
        peers = self.settings.peers
        if peers is None:
            return
        # The system names the interface of a link-local address behind it; networks are about addresses.
        address = read_address(peer.partition("%")[0])
        if address is None or not is_one_of(address, peers):
            raise Forbidden("This listener does not serve your address.", code="peer_not_allowed")

    def check_head(self, target: bytes, version: str, headers: Mapping[bytes, bytes], fields: int) -> None:
        """Raises the error that a request with this head deserves; `fields` counts its header lines."""
        settings = self.settings
        if fields > settings.head_fields:
            raise HeaderTooLarge(f"The request has more than {settings.head_fields} header fields.")
        if len(target) > settings.target_bytes:
            raise BadRequest(f"The URL is longer than {settings.target_bytes} bytes.", code="url_too_long")
        # Before the target: the first line of an HTTP/2 client has no path either, and is to hear the reason.
        if version != "1.1":
            _check_version(version, headers)
        if not target.startswith(b"/"):
            raise BadRequest("The request target must be a path that starts with '/'.", code="invalid_path")
        host = headers.get(b"host")
        if host is None:
            if version != "1.0":
                raise BadRequest("The request has no Host header.", code="invalid_host")
        elif host not in self._known_hosts:
            self._check_host(host)

    def _check_host(self, host: bytes) -> None:
        match = _HOST.fullmatch(host.decode("latin-1"))
        if match is None:
            raise BadRequest("The Host header is not a valid host name.", code="invalid_host")
        name = match["name"].lower().rstrip(".")
        if not self._is_allowed(name):
            raise BadRequest(
                "This host name is not served here. Add it to `listen.allowed_hosts` in the configuration.",
                code="host_not_allowed",
            )
        if len(self._known_hosts) < _MOST_KNOWN_HOSTS:
            self._known_hosts.add(host)

    def _is_allowed(self, name: str) -> bool:
        return name in self._names or "*" in self._names or _is_nobodys(name)

    def check_body(self, headers: Mapping[bytes, bytes]) -> int | None:
        """The announced length of the body, None when it comes in chunks. Raises what an unfit body deserves."""
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() not in (b"", b"identity"):
            raise UnsupportedMedia(
                "Compressed request bodies are not accepted; send the body without Content-Encoding."
            )
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.lower() != b"chunked":
                raise BadRequest("The only Transfer-Encoding that is understood is chunked.", code="invalid_http")
            return None
        length = int(headers.get(b"content-length", b"0"))
        self.check_length(length)
        return length

    def check_length(self, length: int) -> None:
        if length > self.settings.body_bytes:
            raise self.too_large()

    def too_large(self) -> GatewayError:
        return TooLarge(
            f"The request body is larger than {self.settings.body_bytes} bytes. "
            "The limit is `guard.body_bytes` in the gateway's configuration."
        )


def asks_by_name_of(host: bytes | None, names: Container[str]) -> bool:
    """Whether a Host header carries one of the names, or what no DNS rebinding can bring here.

    Without any, it is no browser that asks.
    """
    if host is None:
        return True
    match = _HOST.fullmatch(host.decode("latin-1"))
    name = match["name"].lower().rstrip(".") if match is not None else ""
    return name in names or _is_nobodys(name)


def _is_nobodys(name: str) -> bool:
    """Whether no attacker can control a name: DNS rebinding needs one that does, so an address cannot be its victim."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _check_version(version: str, headers: Mapping[bytes, bytes]) -> None:
    if version != "1.0":
        raise BadRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here.", code="invalid_http")
    if b"transfer-encoding" in headers:
        raise BadRequest("HTTP/1.0 has no Transfer-Encoding.", code="invalid_http")


def join_fields(head: bytes) -> dict[bytes, bytes]:
    """The fields of a valid head as it came from the wire, names in lower case, repeated ones joined by ", ".

    Raises BadRequest when a field that may stand only once stands there again.
    """
    joined: dict[bytes, bytes] = {}
    for line in head.strip(b"\r\n").split(b"\r\n")[1:]:
        field, _, value = line.partition(b":")
        name, value = field.lower(), value.strip(b" \t")
        if name not in joined:
            joined[name] = value
        elif name in SINGLE_FIELDS:
            raise BadRequest(f"The header {name.decode('latin-1')} stands more than once.", code="repeated_header")
        else:
            joined[name] += b", " + value
    return joined


def check_path(path: bytes) -> None:
    """Raises BadRequest for a path that two readers could understand differently (`..`, `//`, encoded separators)."""
    if _SUSPICIOUS.search(path):
        raise BadRequest("The path contains characters or segments that are not allowed.", code="invalid_path")
