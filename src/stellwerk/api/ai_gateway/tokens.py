"""`POST /auth/token` as AI Gateway documents it: a form, JSON or the query, and a name or an e-mail address."""

import hmac
from collections.abc import Container

import msgspec
from sqlalchemy import Connection

from stellwerk.api._grants import Grant, read_grant
from stellwerk.api._guard import Request, Routes, check_no_foreign_page
from stellwerk.api._transactions import RunInTransaction
from stellwerk.api.cloud_proxy.access import is_at_this_machine
from stellwerk.api.login import LoginAPI, TokenPair
from stellwerk.auth.users import find_user_by_email, find_users_by_name
from stellwerk.core.errors import Unauthenticated
from stellwerk.core.principal import OPEN
from stellwerk.http.cors import NOBODY
from stellwerk.http.exchange import Exchange, Headers

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_DEMO = "admin"
_REFRESH = "refresh_token"


class TokensAPI:
    def __init__(
        self, login: LoginAPI, fetch: RunInTransaction, *, demo_login: bool, names: Container[str] = ()
    ) -> None:
        """`demo_login` says whether programs on this machine may be `admin` with the documented password; `names` are
        those of this machine."""
        self._login = login
        self._fetch = fetch
        self._demo_login = demo_login
        self._names = names

    def register(self, routes: Routes) -> None:
        routes.add("POST", "/auth/token", OPEN, self._issue)

    async def _issue(self, request: Request) -> None:
        exchange = request.exchange
        pair = await self._pair(exchange, read_grant(exchange))
        shown = {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "token_type": pair.token_type,
            "expires_in": pair.expires_in,
        }
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        exchange.respond(200, headers, msgspec.json.encode(shown))

    async def _pair(self, exchange: Exchange, grant: Grant) -> TokenPair:
        if grant.grant_type == _REFRESH:
            return await self._login.issue(grant, exchange.peer)
        if not (grant.username or "").strip() or not (grant.password or "").strip():
            raise _wrong()
        if self._demo_login and _is_demo(grant) and is_at_this_machine(exchange, self._names):
            # No page of another site may be an admin, whoever may call models from it.
            check_no_foreign_page(exchange, NOBODY)
            return await self._log_demo_in()
        email = await self._fetch(lambda connection: _email_of(connection, grant.username or ""))
        return await self._login.issue(msgspec.structs.replace(grant, username=email), exchange.peer)

    async def _log_demo_in(self) -> TokenPair:
        user = await self._fetch(lambda connection: find_user_by_email(connection, _DEMO))
        if user is None or not user.active:
            raise _wrong()
        return await self._login.begin(user.id)


def _is_demo(grant: Grant) -> bool:
    return all(hmac.compare_digest((said or "").encode(), _DEMO.encode()) for said in (grant.username, grant.password))


def _email_of(connection: Connection, username: str) -> str:
    """Of the only person with that name, else what was given: whoever has two namesakes logs in by e-mail."""
    name = username.strip()
    if "@" in name:
        return name
    found = find_users_by_name(connection, name)
    return found[0].email if len(found) == 1 else name


def _wrong() -> Unauthenticated:
    return Unauthenticated("Invalid credentials", code="invalid_credentials")
