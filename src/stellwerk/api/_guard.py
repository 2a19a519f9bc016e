"""Every route passes here: who asks, may they, and what happens when the handler fails."""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable
from itertools import count
from typing import NoReturn, Protocol

from stellwerk.api._errors import render_error
from stellwerk.auth.networks import check_network
from stellwerk.auth.tokens import PREFIX
from stellwerk.core.call import Call
from stellwerk.core.errors import Forbidden, GatewayError, Unauthenticated
from stellwerk.core.principal import Access, Principal, Role
from stellwerk.http.cors import NOBODY, Origins
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.http.router import Handler, Router
from stellwerk.http.router import Route as HttpRoute

_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_log = logging.getLogger("stellwerk.api")


class KnownKeys(Protocol):
    def authenticate(self, token: str) -> Principal:
        """Who shows this key or access token. Raises Unauthenticated, Forbidden when disabled; never waits."""

    async def authenticate_or_refresh(self, token: str) -> Principal:
        """The same after a look at what another process may have changed."""


class GuardWatch(Protocol):
    def refused(self, code: str) -> None: ...


class Request:
    """An exchange whose sender is known. `principal` is None only on routes that are open to everybody."""

    __slots__ = ("background", "exchange", "id", "look", "principal")

    def __init__(
        self,
        exchange: Exchange,
        request_id: str,
        principal: Principal | None,
        *,
        background: bool = False,
        look: Callable[[Call], NoReturn] | None = None,
    ) -> None:
        """`background` is set where nobody waits for the answer. `look` is given the call that the handler has read,
        and ends it there by raising: what is wanted is only to know whether the request is a good one."""
        self.exchange = exchange
        self.id = request_id
        self.principal = principal
        self.background = background
        self.look = look

    @property
    def caller(self) -> Principal:
        """Raises Unauthenticated on an open route, where there may be nobody."""
        if self.principal is None:
            raise Unauthenticated("This needs an API key.", code="missing_api_key")
        return self.principal


RequestHandler = Callable[[Request], Awaitable[None]]
Defer = Callable[[Request], Awaitable[bool]]
"""Puts a request off whose client does not want to wait, and answers it; False leaves it to its handler."""


class Routes:
    """Registers handlers behind the guard; the only way for an API module to a router."""

    def __init__(
        self,
        router: Router,
        keys: KnownKeys,
        watch: GuardWatch,
        *,
        trusted: Callable[[], Principal] | None = None,
        render: Callable[[GatewayError, str, str], tuple[int, Headers, bytes]] = render_error,
        find_key: Callable[[Exchange], str] | None = None,
        admit: Callable[[Exchange], Principal | None] | None = None,
        origins: Origins = NOBODY,
    ) -> None:
        """`trusted` is who a client without a key of ours is, on a listener that lets only trusted peers in; it
        raises GatewayError when there is nobody. `render` is the dialect of the errors. `find_key` reads the key
        where clients of this listener put it, in place of the usual headers; it raises GatewayError too. `admit` knows
        clients by something else than a key of ours and is asked first; None leaves it to the key. `origins` are whose
        pages count as their user does where no key is needed."""
        self._router = router
        self._keys = keys
        self._watch = watch
        self._trusted = trusted
        self._render = render
        self._find_key = find_key or read_key
        self._admit = admit
        self._origins = origins
        # Ids need to differ, not to be secret: a random start and a counter cost less than a random id each.
        self._prefix = os.urandom(6).hex()
        self._numbers = count(1)
        self.handlers: dict[tuple[str, str], RequestHandler] = {}
        """Of every route, without the guard: for who knows already who asks."""
        self.defer: Defer | None = None
        """Asked about requests with the header `prefer`."""

    def add(self, method: str, path: str, access: Access, handler: RequestHandler) -> None:
        self.handlers[method, path] = handler
        guarded = self._guard(access, handler)
        self._router.add(HttpRoute(method=method, path=path, access=access, handler=guarded))

    def _guard(self, access: Access, handler: RequestHandler) -> Handler:
        async def handle(exchange: Exchange) -> None:
            given = exchange.headers.get(b"x-request-id")
            if given is not None and _SANE_ID.fullmatch(given):
                request_id = given.decode("ascii")
            else:
                request_id = f"req_{self._prefix}{next(self._numbers):012x}"
            try:
                principal = await self._identify(exchange, access) if access else None
                request = Request(exchange, request_id, principal)
                if b"prefer" in exchange.headers and self.defer is not None and await self.defer(request):
                    return
                await handler(request)
            except GatewayError as error:
                self._refuse(exchange, request_id, error)
            except asyncio.CancelledError:
                exchange.break_off()
                raise
            except Exception:  # noqa: BLE001  # the last line: whatever it is, the client gets an answer without details
                _log.exception("a handler failed", extra={"fields": {"request_id": request_id}})
                self._refuse(
                    exchange, request_id, GatewayError("The gateway failed. The operator's log has the reason.")
                )

        return handle

    async def _identify(self, exchange: Exchange, access: Access) -> Principal:
        admitted = self._admit(exchange) if self._admit is not None else None
        if admitted is not None:
            principal = admitted
        elif self._trusted is not None and not _shows_own_key(exchange):
            check_no_foreign_page(exchange, self._origins)
            principal = self._trusted()
        else:
            token = self._find_key(exchange)
            try:
                principal = self._keys.authenticate(token)
            except Unauthenticated:
                principal = await self._keys.authenticate_or_refresh(token)
            check_network(principal, exchange.peer)
        if principal.role not in access:
            raise _wrong_role(principal, access)
        return principal

    def _refuse(self, exchange: Exchange, request_id: str, error: GatewayError) -> None:
        self._watch.refused(error.code)
        if exchange.started:
            exchange.break_off()
            return
        exchange.respond(*self._render(error, exchange.path, request_id))


def read_key(exchange: Exchange) -> str:
    """The key that a client shows, in any of the usual headers; never from the query, which ends up in logs."""
    headers = exchange.headers
    authorization = headers.get(b"authorization", b"")
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip().decode("latin-1")
    for name in (b"x-api-key", b"api-key"):
        token = headers.get(name, b"").strip()
        if token:
            return token.decode("latin-1")
    raise _no_key("Invalid Authorization format." if authorization.strip() else "Missing Authorization header.")


def _shows_own_key(exchange: Exchange) -> bool:
    """Whether the client means to be somebody; clients that need no key send `dummy` and the like."""
    try:
        return read_key(exchange).startswith(PREFIX)
    except Unauthenticated:
        return False


def check_no_foreign_page(exchange: Exchange, origins: Origins) -> None:
    """Raises Forbidden for what the page of another site makes a browser send: the peer is trusted, the page is not,
    unless it is one of `origins` by name.

    The browser would keep the answer from the page, but the call would have been made and paid for.
    """
    headers = exchange.headers
    origin = headers.get(b"origin")
    if origin is not None and origins.name(origin):
        return
    own = origin is None or origin.partition(b"://")[2] == headers.get(b"host")
    if not own or headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
        raise Forbidden("Web pages of other sites may not use this without a key.", code="cross_site_request")


def _no_key(problem: str) -> Unauthenticated:
    return Unauthenticated(
        f"{problem} Send a key as 'Authorization: Bearer <key>'; 'stellwerk keys create NAME' makes one.",
        code="missing_api_key",
    )


def _wrong_role(principal: Principal, access: Access) -> Forbidden:
    if Role.USER not in access:
        return Forbidden("Admin access required")
    return Forbidden(f"The role '{principal.role}' may not do this.")
