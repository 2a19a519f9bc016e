"""Where a gateway listens, and whom a client of it trusts."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from stellwerk.client.errors import BadAddress

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Address(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    secure: bool
    path: str
    """Stands in front of every path; without `/v1` and without a slash at its end."""

    @property
    def authority(self) -> str:
        """What the `Host` field says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def is_on_this_machine(self) -> bool:
        return self.host in _LOOPBACK


def parse_address(url: str) -> Address:
    """Reads a base URL, with or without scheme and with or without `/v1` at its end. Raises BadAddress."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise BadAddress(f"{url!r} is no address of a gateway.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _is_plain(url):
        raise BadAddress(f"{url!r} is no address of a gateway.")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadAddress("The address of a gateway has neither user nor query; a key is given as api_key.")
    secure = parts.scheme == "https"
    path = parts.path.rstrip("/").removesuffix("/v1")
    return Address(host=parts.hostname, port=port or (443 if secure else 80), secure=secure, path=path)


def make_tls(authority: str | Path | None) -> ssl.SSLContext:
    """Trusts the file or folder of certificates in place of those of the machine, when there is one.

    Raises BadAddress when it cannot be read.
    """
    try:
        if authority is None:
            return ssl.create_default_context()
        place = Path(authority)
        if place.is_dir():
            return ssl.create_default_context(capath=str(place))
        return ssl.create_default_context(cafile=str(place))
    except (OSError, ssl.SSLError):
        raise BadAddress("The certificate authority's file cannot be read.") from None


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url
