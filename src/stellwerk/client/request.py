"""A request as it is meant, and as bytes. Pure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode

import msgspec

from stellwerk import __version__
from stellwerk.client.address import Address
from stellwerk.client.errors import BadAddress
from stellwerk.core.secrets import Secret

Method = Literal["GET", "POST", "DELETE"]
FindKey: TypeAlias = Callable[[], Secret | None]
"""Asked before each request: keys of minutes are made anew."""

JSON: Final = "application/json"
MOST_WAIT_SECONDS: Final = 50.0
"""The longest that one request asks the gateway to wait: proxies in between often give up after a minute."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    method: Method
    path: str
    """Below the gateway's root, percent-encoded, with its query."""
    headers: Mapping[str, str] = MappingProxyType({})
    """Beside those that every request has; names in lower case."""
    body: bytes | None = None
    content_type: str = JSON
    waits: float = 0.0
    """Seconds for which the gateway may be silent in addition, because it was asked to wait."""


def get(path: str, query: Mapping[str, Any] = MappingProxyType({})) -> Request:
    """Parts of the query that are None are left out."""
    said = {name: value for name, value in query.items() if value is not None}
    return Request(method="GET", path=f"{path}?{urlencode(said)}" if said else path)


def post(path: str, body: Any = None, headers: Mapping[str, str] = MappingProxyType({})) -> Request:
    """Raises BadAddress for a body that cannot be written as JSON."""
    try:
        return Request(method="POST", path=path, headers=headers, body=msgspec.json.encode(body))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadAddress(f"This cannot be sent as JSON: {error}") from None


def part(text: str) -> str:
    """One part of a path: an id that was given cannot lead elsewhere. Raises BadAddress for one that would."""
    if text in {"", ".", ".."}:
        raise BadAddress("An id must not be empty.")
    return quote(text.encode("utf-8", "replace"), safe="")


def without_nothing(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def write_request(request: Request, address: Address, key: Secret | None) -> bytes:
    """The request as it goes over the wire, its body included. Raises BadAddress for what no header can hold."""
    lines = {
        "host": address.authority,
        "user-agent": f"stellwerk-python/{__version__}",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "connection": "close",
    }
    if key:
        lines["authorization"] = f"Bearer {key.reveal()}"
    if request.body is not None:
        lines["content-type"] = request.content_type
    if request.body is not None or request.method == "POST":
        lines["content-length"] = str(len(request.body or b""))
    lines |= request.headers
    if not all(_fits(value) for value in (request.path, *lines, *lines.values())):
        # Anything else would end up as further lines of the request's head.
        raise BadAddress("The key or a header has characters that cannot be sent.")
    head = [f"{request.method} {address.path}{request.path} HTTP/1.1", *(f"{name}: {lines[name]}" for name in lines)]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + (request.body or b"")


def _fits(text: str) -> bool:
    return text.isascii() and text.isprintable()
