"""The one way out to URLs that a person can set: webhooks, pictures to fetch.

Such a URL may not become a way into the operator's network. So its addresses are judged once and the connection
goes to one of those; asking the resolver a second time could bring another answer.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

import msgspec

from stellwerk.core.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
from stellwerk.http.addresses import is_public
from stellwerk.http.egress_request import (
    EgressRequest,
    is_redirect,
    make_request,
    redirect_url,
    redirected,
    write_request,
)
from stellwerk.http.egress_url import Url, UrlRefused, canonical_origin, parse_url
from stellwerk.http.resolver import Resolver
from stellwerk.http.upstream import Answer, UpstreamConnection, UpstreamSettings

MOST_REDIRECTS = 5
_MOST_ADDRESSES = 16
_RESOLVE_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_READ = (b"content-type", b"location", b"retry-after")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → its addresses as text. Raises OSError when there is none."""
Connect = Callable[
    [Callable[[], UpstreamConnection], str, int, ssl.SSLContext | None, str | None], Awaitable[UpstreamConnection]
]
"""Protocol, address, port, TLS context and the name to verify → the connection. Raises OSError."""


class Destination(Url, frozen=True, kw_only=True):
    """A URL with the addresses that were judged: a connection goes to these and to no others."""

    addresses: tuple[str, ...]
    """At most 16, in the resolver's order."""

    @property
    def address(self) -> str:
        return self.addresses[0]


class EgressAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Status, whole body, and of the header fields `content-type`, `location` and `retry-after` where they came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Egress:
    """Calls URLs that a person has set. `allowed_origins` gives the origins that may lie in the private network.

    They are read at every call, so a change of the configuration holds at once. No proxy of the environment is used.
    """

    def __init__(
        self,
        allowed_origins: Callable[[], Collection[str]],
        *,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._allowed_origins = allowed_origins
        self._resolve = resolve or Resolver()
        self._connect = connect or _connect
        self._make_tls = tls or ssl.create_default_context
        self._context: ssl.SSLContext | None = None

    def parse(self, url: str) -> Url:
        """Judges what the URL itself says, without asking a resolver. Raises UrlRefused."""
        found = parse_url(url)
        if self._is_allowed(found):
            return found
        if not found.speaks_http:
            raise UrlRefused(
                "The URL has a port that belongs to another protocol: use 443, 80 or one of the free ones such as 8443."
            )
        if found.is_local_name or (found.is_address and not is_public(found.host)):
            raise _not_public()
        return found

    async def check(self, url: str) -> Destination:
        """Judges a URL and all its addresses. Raises UrlRefused; UpstreamError when its name has no address now."""
        found = self.parse(url)
        addresses = (found.host,) if found.is_address else await self._addresses(found)
        if not all(is_public(address) for address in addresses) and not self._is_allowed(found):
            raise _not_public()
        return Destination(
            scheme=found.scheme,
            host=found.host,
            port=found.port,
            target=found.target,
            addresses=tuple(dict.fromkeys(addresses))[:_MOST_ADDRESSES],
        )

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes = b"",
        *,
        seconds: float,
        most_bytes: int = 65536,
        redirects: int = 0,
    ) -> EgressAnswer:
        """Sends one request over a connection of its own and reads the answer, `seconds` for all of it.

        Follows up to `redirects` redirects, each judged anew; with 0 an answer 3xx is returned as it is.
        Raises UrlRefused, UpstreamError and its kinds; ValueError for a method or header that code must not set.
        """
        if not 0 <= redirects <= MOST_REDIRECTS:
            raise ValueError(f"at most {MOST_REDIRECTS} redirects can be followed")
        request = make_request(method, headers, body)
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(await self.check(url), request, most_bytes, redirects)
        except TimeoutError:
            raise UpstreamTimeout("The URL did not answer in time.") from None

    async def _follow(
        self, destination: Destination, request: EgressRequest, most_bytes: int, redirects: int
    ) -> EgressAnswer:
        followed = 0
        while True:
            answer = await self._exchange(destination, request, most_bytes)
            location = answer.headers.get("location")
            if not redirects or location is None or not is_redirect(answer.status):
                return answer
            if followed == redirects:
                raise UpstreamBroken(f"The URL was redirected more than {redirects} times.")
            followed += 1
            try:
                following = await self.check(redirect_url(destination, location))
            except UrlRefused as refused:
                raise UrlRefused(f"The URL is redirected to one that is refused. {refused.message}") from None
            request = redirected(request, answer.status, same_origin=following.origin == destination.origin)
            destination = following

    async def _exchange(self, destination: Destination, request: EgressRequest, most_bytes: int) -> EgressAnswer:
        connection = await self._dial(destination, UpstreamSettings(response_bytes=most_bytes))
        try:
            answer = connection.request(write_request(request, destination), float("inf"))
            await answer.head()
            return EgressAnswer(status=answer.status, headers=_read_headers(answer), body=await answer.read())
        finally:
            connection.close()

    async def _dial(self, destination: Destination, settings: UpstreamSettings) -> UpstreamConnection:
        secure = destination.scheme == "https"
        failure: UpstreamError | None = None
        for address in destination.addresses:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await self._connect(
                        lambda: UpstreamConnection(settings, UpstreamConnection.close, _forget),
                        address,
                        destination.port,
                        self._tls() if secure else None,
                        destination.host if secure else None,
                    )
            except TimeoutError:
                failure = UpstreamTimeout("The host of the URL could not be reached in time.")
            except ssl.SSLError:
                raise UpstreamError("The TLS certificate or protocol of the URL's host is not valid.") from None
            except OSError:
                failure = UpstreamError("The host of the URL cannot be reached.", code="upstream_unreachable")
        raise failure or _no_address()

    async def _addresses(self, url: Url) -> Sequence[str]:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                addresses = await self._resolve(url.host, url.port)
        # UnicodeError: a name that the system's resolver cannot even be asked for.
        except (OSError, UnicodeError):
            raise _no_address() from None
        if not addresses:
            raise _no_address()
        return addresses

    def _is_allowed(self, url: Url) -> bool:
        for text in self._allowed_origins():
            with suppress(UrlRefused):
                if canonical_origin(text) == url.origin:
                    return True
        return False

    def _tls(self) -> ssl.SSLContext:
        # Reading the machine's certificates takes tens of milliseconds: not before the first https URL is called.
        if self._context is None:
            self._context = self._make_tls()
        return self._context


async def _connect(
    protocol: Callable[[], UpstreamConnection], address: str, port: int, tls: ssl.SSLContext | None, name: str | None
) -> UpstreamConnection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        protocol, address, port, ssl=tls, server_hostname=name, flags=socket.AI_NUMERICHOST
    )
    return connection


def _forget(_: UpstreamConnection) -> None:
    """A connection serves one request: whoever sent that closes it."""


def _not_public() -> UrlRefused:
    # One text for every reason: a difference would tell what the private network looks like.
    return UrlRefused(
        "The URL does not lead to a public address. "
        "An administrator can allow exactly its scheme, host and port in egress.allowed_origins."
    )


def _no_address() -> UpstreamError:
    return UpstreamError("The host name of the URL has no address at the moment.", code="upstream_unreachable")


def _read_headers(answer: Answer) -> dict[str, str]:
    values = {name.decode(): answer.header(name) for name in _READ}
    return {name: value.decode("latin-1") for name, value in values.items() if value is not None}
