"""Which pages of other sites a browser may let read the answers of a listener, in the words of the Fetch standard.

Only who is named here is told anything. Cookies and other credentials that a browser has by itself are never allowed:
a page has to show a key of its own.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from stellwerk.core.web_origin import NotAnOrigin, read_origin
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.http.router import Handler, Router

EVERYBODY = "*"

_ANY_HOST = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,31})://\*")
_ANY_PORT = re.compile(r"(?P<origin>https?://[^*]+):\*")
_HOST = re.compile(rb"[a-z0-9._\[\]:-]{0,255}")
"""Nothing at all in the origin of a file, `file://`."""
_PORT = re.compile(rb"[1-9][0-9]{0,4}")


class Origins(msgspec.Struct, frozen=True, kw_only=True):
    """Whose pages may read answers. Every text is as browsers write it; nothing at all allows nobody."""

    named: frozenset[bytes] = frozenset()
    schemes: tuple[bytes, ...] = ()
    """As `chrome-extension://`: every origin of that scheme."""
    hosts: tuple[bytes, ...] = ()
    """As `http://localhost:`: every port of that host."""
    everybody: bool = False

    def name(self, origin: bytes) -> bool:
        """Whether it has been named. Where everybody may read answers, nobody is named by that."""
        if origin in self.named:
            return True
        return any(_continues(origin, scheme, _HOST) for scheme in self.schemes) or any(
            _continues(origin, host, _PORT) for host in self.hosts
        )

    def allow(self, origin: bytes) -> bytes | None:
        """What a browser is told who may read the answer; None tells it nothing, which is no."""
        if self.name(origin):
            return origin
        return b"*" if self.everybody else None

    def __bool__(self) -> bool:
        return bool(self.named or self.schemes or self.hosts or self.everybody)


NOBODY = Origins()


def _continues(origin: bytes, beginning: bytes, rest: re.Pattern[bytes]) -> bool:
    return origin.startswith(beginning) and rest.fullmatch(origin, len(beginning)) is not None


def read_origins(entries: Iterable[str], *, patterns: bool = False) -> tuple[Origins, list[str]]:
    """The origins that the entries name, and the entries that name none.

    With `patterns`, `scheme://*` is every origin of a scheme that no web site has, and `http://host:*` every port.
    """
    named: set[bytes] = set()
    schemes: list[bytes] = []
    hosts: list[bytes] = []
    everybody, wrong = False, []
    for entry in entries:
        host = _ANY_HOST.fullmatch(entry.lower()) if patterns else None
        port = _ANY_PORT.fullmatch(entry.lower()) if patterns else None
        try:
            if entry == EVERYBODY:
                everybody = True
            elif host is not None and host["scheme"] not in ("http", "https"):
                schemes.append(f"{host['scheme']}://".encode())
            elif port is not None:
                hosts.append(f"{read_origin(port['origin'])}:".encode())
            else:
                named.add(read_origin(entry).encode())
        except NotAnOrigin:
            wrong.append(entry)
    return Origins(named=frozenset(named), schemes=tuple(schemes), hosts=tuple(hosts), everybody=everybody), wrong


_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_SECONDS = b"3600"
"""For which a browser need not ask again; no browser keeps it for longer than some hours."""
_MOST_FIELDS = 64
_FIELDS = frozenset(
    {
        b"accept",
        b"api-key",
        b"authorization",
        b"baggage",
        b"cache-control",
        b"content-type",
        b"http-referer",
        b"idempotency-key",
        b"last-event-id",
        b"pragma",
        b"prefer",
        b"session_id",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-api-key",
        b"x-client-id",
        b"x-filename",
        b"x-priority",
        b"x-request-id",
        b"x-requested-with",
        b"x-resolution",
        b"x-session-id",
        b"x-title",
    }
)
"""What our APIs read, and what clients send to all of their servers."""
_FIELD_FAMILIES = re.compile(rb"(?:x-stellwerk|x-stainless|openai|anthropic)-[a-z0-9-]{1,64}")
_SHOWN = b", ".join(
    (
        b"content-disposition",
        b"location",
        b"openai-processing-ms",
        b"openai-version",
        b"preference-applied",
        b"retry-after",
        b"retry-after-ms",
        b"www-authenticate",
        *(
            b"x-ratelimit-%b-%b" % (what, of)
            for what in (b"limit", b"remaining", b"reset")
            for of in (b"requests", b"tokens")
        ),
        b"x-request-id",
        b"x-should-retry",
        b"x-stellwerk-fallback",
        b"x-stellwerk-job",
        b"x-stellwerk-model",
        b"x-stellwerk-queue-position",
    )
)
"""Our own headers that a page may read; browsers hide every other one."""


class Cors:
    """What the pages of other sites are told by one listener."""

    def __init__(self, origins: Origins, router: Router) -> None:
        self._origins = origins
        self._router = router
        self.headers: Headers = ((b"vary", b"origin"),) if origins else ()
        """Of every answer, also when no page has asked: a cache must not give it to a page as it is."""

    def meet(self, method: str, target: bytes, headers: Mapping[bytes, bytes]) -> tuple[Headers, bool]:
        """What an answer to a request with an `Origin` says of it, and whether the request is only a browser's
        question whether the page may ask, which is answered without asking for a key."""
        allowed = self._origins.allow(headers[b"origin"])
        if allowed is None:
            return (), False
        asked = headers.get(b"access-control-request-method") if method == "OPTIONS" else None
        path = target.partition(b"?")[0].decode("latin-1")
        if self._router.is_same_origin_only(path, method if asked is None else asked.decode("latin-1")):
            return (), False
        leave = ((b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _SHOWN))
        return leave, asked is not None


async def _answer_preflight(exchange: Exchange) -> None:
    asked = exchange.headers.get(b"access-control-request-headers", b"")
    fields = allowed_fields(asked)
    headers: Headers = ((b"access-control-allow-methods", _METHODS), (b"access-control-max-age", _SECONDS))
    if fields:
        headers += ((b"access-control-allow-headers", fields),)
    exchange.respond(204, headers, b"")


def allowed_fields(asked: bytes) -> bytes:
    """Of the header names that a page wants to send those that it may; names that nobody here reads stay out."""
    names = (name.strip().lower() for name in asked.split(b",", _MOST_FIELDS)[:_MOST_FIELDS])
    return b", ".join(dict.fromkeys(name for name in names if name in _FIELDS or _FIELD_FAMILIES.fullmatch(name)))


PREFLIGHT: Mapping[str, Handler] = {"OPTIONS": _answer_preflight}
"""The methods of every path for which `Cors.meet` says that a browser only asks."""
