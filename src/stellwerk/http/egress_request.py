"""One request to a URL that a person has set: what may stand in it, its bytes, and what a redirect makes of it."""

import re
from collections.abc import Sequence
from urllib.parse import urljoin

import msgspec

from stellwerk import __version__
from stellwerk.http.egress_url import Url, UrlRefused

_MOST_HEADERS = 64
_MOST_HEADER_CHARACTERS = 16 * 1024
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"[\x20-\x7e\t]*", re.ASCII)
_PLAIN = re.compile(r"[\x21-\x7e]*", re.ASCII)
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that decide how the message is read."""
_KEPT_ON_ANOTHER_ORIGIN = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Those are named that may go along, because a credential can stand in a field of any name."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class EgressRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Method, header fields with names in lower case, and body."""

    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def make_request(method: str, headers: Sequence[tuple[str, str]], body: bytes) -> EgressRequest:
    """Raises ValueError for a method that is not sent, and for fields that are malformed, too many or set here."""
    if method not in _METHODS:
        raise ValueError(f"a method is one of {', '.join(_METHODS)}")
    if len(headers) > _MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > _MOST_HEADER_CHARACTERS:
        raise ValueError("too many or too long header fields")
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None or name.lower() in _OURS:
            raise ValueError("a header field is malformed or set by the gateway itself")
    return EgressRequest(method=method, headers=tuple((name.lower(), value) for name, value in headers), body=body)


def write_request(request: EgressRequest, url: Url) -> bytes:
    """The whole message, for a connection that serves nothing else."""
    lines = [f"{request.method} {url.target} HTTP/1.1", f"host: {url.authority}"]
    if all(name != "user-agent" for name, _ in request.headers):
        lines.append(f"user-agent: stellwerk/{__version__}")
    lines += [f"{name}: {value}" for name, value in request.headers]
    lines += ["accept-encoding: identity", "connection: close"]
    if request.body or request.method not in ("GET", "DELETE"):
        lines.append(f"content-length: {len(request.body)}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + request.body


def is_redirect(status: int) -> bool:
    """Whether the status sends a client to the URL in `location`."""
    return status in _REDIRECTS


def redirect_url(base: Url, location: str) -> str:
    """The URL that a redirect means, for `parse_url` to judge. Raises UrlRefused for a way from https to http."""
    # urljoin drops line ends and tabs without a word: what is judged would not be what was sent.
    if _PLAIN.fullmatch(location) is None:
        return location
    try:
        joined = urljoin(f"{base.origin}{base.target}", location.partition("#")[0])
    except ValueError:
        # A bracket without its other half; the judge says so better.
        return location
    if base.scheme == "https" and joined.lower().startswith("http://"):
        raise UrlRefused("A redirect may not lead from https:// to http://.")
    return joined


def redirected(request: EgressRequest, status: int, *, same_origin: bool) -> EgressRequest:
    """What is sent to the place to which a request was redirected; never a credential to another origin."""
    headers = request.headers
    if not same_origin:
        headers = tuple(field for field in headers if field[0] in _KEPT_ON_ANOTHER_ORIGIN)
    if status != 303 and not (status in (301, 302) and request.method == "POST"):
        return EgressRequest(method=request.method, headers=headers, body=request.body)
    headers = tuple(field for field in headers if field[0] != "content-type")
    return EgressRequest(method="GET", headers=headers, body=b"")
