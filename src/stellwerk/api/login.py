"""Logins with e-mail and password: `/auth/token`, `/auth/refresh`, `/auth/logout`, and changing one's own password.

A login is a row in the database and a pair of tokens; the row says whether the tokens are still good.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._grants import Grant, needed, read_grant
from stellwerk.api._proofs import (
    AttemptSettings,
    PasswordWork,
    Proof,
    Proofs,
    is_still_good,
    ourselves,
)
from stellwerk.api._transactions import RunInTransaction
from stellwerk.auth.access_tokens import TokenMint, expired_token, invalid_token
from stellwerk.auth.logins import (
    REFRESH_SECONDS,
    Login,
    Refused,
    end_login,
    end_logins_of,
    rotate,
    start_login,
)
from stellwerk.auth.passwords import LONGEST_PASSWORD, SHORTEST_PASSWORD, check_new_password
from stellwerk.auth.principals import LOGIN_PREFIX
from stellwerk.auth.tokens import Digest
from stellwerk.auth.users import UserRecord, find_user, store_password, unknown_user
from stellwerk.core.clock import Clock
from stellwerk.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from stellwerk.core.principal import OPEN, READERS, Principal
from stellwerk.core.secrets import Secret
from stellwerk.limits.attempts import forget
from stellwerk.records import audit
from stellwerk.records.audit import Actor


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `/auth/token` is documented with; a refresh is asked for with `grant_type` and `refresh_token` instead."""

    username: Annotated[str, Meta(pattern=r"\S", description="The e-mail address of the user.")]
    password: Annotated[str, Meta(pattern=r"\S")]
    grant_type: Literal["password"] = "password"


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh_token: Annotated[str, Meta(min_length=1)]


class LogoutRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh_token: Annotated[str, Meta(min_length=1)] | None = None


class PasswordRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    old_password: Annotated[str, Meta(min_length=1)]
    # Only documented here: `check_new_password` says more about a password than that it does not fit.
    new_password: Annotated[
        str, Meta(extra_json_schema={"minLength": SHORTEST_PASSWORD, "maxLength": LONGEST_PASSWORD})
    ]


class TokenPair(msgspec.Struct, frozen=True, kw_only=True):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    """Seconds for which the access token is good."""


class LoggedOut(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["logged_out"] = "logged_out"


class PasswordChanged(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["changed"] = "changed"
    ended_logins: int


_TAG = "Login"
_PAIR_EXAMPLE = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl",
    "refresh_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJnZW4iOjB9.c2lnbmF0dXJl",
    "token_type": "bearer",
    "expires_in": 900,
}


class LoginAPI:
    """Logins and their ends. `register` before the first request."""

    def __init__(
        self,
        *,
        run: RunInTransaction,
        fetch: RunInTransaction,
        passwords: PasswordWork,
        mint: TokenMint,
        digest: Digest,
        clock: Clock,
        on_change: Callable[[], Awaitable[None]],
        attempts: AttemptSettings | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        """`run` writes, `fetch` reads; `on_change` makes this process take over at once what was changed."""
        self._run = run
        self._fetch = fetch
        self._passwords = passwords
        self._mint = mint
        self._clock = clock
        self._on_change = on_change
        self._refresh_seconds = refresh_seconds
        self._proofs = Proofs(
            run=run,
            fetch=fetch,
            passwords=passwords,
            digest=digest,
            clock=clock,
            settings=attempts or AttemptSettings(),
        )

    def register(self, registry: Registry) -> None:
        registry.add(*self._of_tokens(), *self._of_oneself())

    def register_refresh(self, registry: Registry) -> None:
        """For a listener that issues tokens in a way of its own: only what makes new ones of them and ends logins."""
        registry.add(self._of_tokens()[1], self._of_oneself()[0])

    def _of_tokens(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="POST",
                path="/auth/token",
                access=OPEN,
                summary="Log in with e-mail and password",
                description="Takes a JSON object, a form or, without a body, query parameters. With `grant_type="
                "refresh_token` and `refresh_token` it does what `/auth/refresh` does.",
                tag=_TAG,
                handler=self._issue,
                answer=TokenPair,
                body=TokenRequest,
                reads_body=True,
                body_example={"username": "ada@example.com", "password": "four words nobody guesses"},
                example=_PAIR_EXAMPLE,
                errors=(Unauthenticated, RateLimited, Unavailable),
            ),
            Endpoint(
                method="POST",
                path="/auth/refresh",
                access=OPEN,
                summary="Exchange a refresh token for a new pair of tokens",
                description="Each refresh token is good once. One that comes a second time ends its login.",
                tag=_TAG,
                handler=self._refresh,
                answer=TokenPair,
                body=RefreshRequest,
                body_example={"refresh_token": _PAIR_EXAMPLE["refresh_token"]},
                example=_PAIR_EXAMPLE,
                errors=(Unauthenticated, Unavailable),
            ),
        )

    def _of_oneself(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="POST",
                path="/auth/logout",
                access=READERS,
                summary="End the login whose access token is shown",
                description="With an API key, `refresh_token` names the login of the same user that ends.",
                tag=_TAG,
                handler=self._log_out,
                answer=LoggedOut,
                body=LogoutRequest,
                body_optional=True,
                body_example={},
                example={"status": "logged_out"},
                errors=(Unavailable,),
            ),
            Endpoint(
                method="PUT",
                path="/user/api/password",
                access=READERS,
                summary="Change one's own password",
                description="Ends all other logins of the user; API keys go on working. Who has no password yet gets "
                "one from an administrator.",
                tag=_TAG,
                handler=self._change_password,
                answer=PasswordChanged,
                body=PasswordRequest,
                body_example={"old_password": "four words nobody guesses", "new_password": "and now four other ones"},
                example={"status": "changed", "ended_logins": 1},
                errors=(Conflict, RateLimited, Unavailable),
            ),
        )

    # --- tokens

    async def _issue(self, asked: Asked) -> TokenPair:
        return await self.issue(read_grant(asked.request.exchange), asked.peer)

    async def issue(self, grant: Grant, peer: str) -> TokenPair:
        """Tokens for a password or a refresh token. Raises BadRequest, Unauthenticated, RateLimited, Unavailable."""
        if grant.grant_type == "refresh_token":
            return await self._exchange(needed(grant.refresh_token, "refresh_token"), peer)
        if grant.grant_type not in (None, "password"):
            raise BadRequest(
                "The grant_type is 'password' or 'refresh_token'.", param="grant_type", code="unsupported_grant_type"
            )
        username, password = needed(grant.username, "username"), needed(grant.password, "password")
        proof = await self._proofs.prove(username.strip().lower(), Secret(password), peer)
        if proof is None:
            raise _wrong()
        login = await self._run(lambda connection: self._start(connection, proof))
        if login is None:
            raise _wrong()
        await self._tell()
        return self._pair(login)

    async def begin(self, user_id: int) -> TokenPair:
        """Tokens for somebody who has been let in without a password. Raises Unavailable."""
        now = self._clock.now()
        login = await self._run(
            lambda connection: start_login(connection, user_id, now=now, lifetime=self._refresh_seconds)
        )
        await self._tell()
        return self._pair(login)

    async def _refresh(self, asked: Asked) -> TokenPair:
        body: RefreshRequest = asked.body
        return await self._exchange(body.refresh_token, asked.peer)

    async def _exchange(self, token: str, peer: str) -> TokenPair:
        claims = self._mint.verify_refresh(token)
        now = self._clock.now()

        def work(connection: Connection) -> Login | Refused:
            found = rotate(connection, claims, now=now, lifetime=self._refresh_seconds)
            if found is Refused.REUSED:
                subject, details = f"user:{claims.user_id}", {"login": claims.login_id}
                audit.append(connection, ourselves(peer), "login.reuse", subject, details, now=now)
            return found

        found = await self._run(work)
        if isinstance(found, Login):
            return self._pair(found)
        if found in (Refused.REUSED, Refused.DISABLED):
            await self._tell()
        raise expired_token() if found is Refused.EXPIRED else invalid_token()

    def _pair(self, login: Login) -> TokenPair:
        seconds = min(self._mint.settings.access_seconds, login.expires_at - self._clock.now())
        return TokenPair(
            access_token=self._mint.issue_access(login.user_id, login.id, until=login.expires_at),
            refresh_token=self._mint.issue_refresh(login.user_id, login.id, login.generation, login.expires_at),
            expires_in=int(seconds),
        )

    def _start(self, connection: Connection, proof: Proof) -> Login | None:
        """None when the user was disabled or got another password while this one was being checked."""
        if not is_still_good(connection, proof):
            return None
        forget(connection, proof.subject)
        return start_login(connection, proof.user.id, now=self._clock.now(), lifetime=self._refresh_seconds)

    # --- passwords

    async def _change_password(self, asked: Asked) -> PasswordChanged:
        body: PasswordRequest = asked.body
        user = await self._own_user(asked.caller)
        if not user.has_password:
            raise Conflict("There is no password to change: an administrator sets the first one.", code="no_password")
        old, new = Secret(body.old_password), Secret(body.new_password)
        check_new_password(new, user.email, param="new_password")
        if new == old:
            raise BadRequest("The new password is the old one.", param="new_password", code="same_password")
        proof = await self._proofs.prove(user.email, old, asked.peer)
        if proof is None:
            raise _wrong_old()
        encoded = await self._passwords.hash(new)
        ended = await self._run(lambda connection: self._store(connection, proof, encoded, asked))
        if ended is None:
            raise _wrong_old()
        await self._tell()
        return PasswordChanged(ended_logins=ended)

    async def _own_user(self, caller: Principal) -> UserRecord:
        user = await self._fetch(lambda connection: find_user(connection, caller.user_id))
        if user is None:
            raise unknown_user()
        return user

    def _store(self, connection: Connection, proof: Proof, encoded: str, asked: Asked) -> int | None:
        """How many logins were ended; None when the old password is not the right one any more."""
        if not is_still_good(connection, proof):
            return None
        user, now = proof.user, self._clock.now()
        forget(connection, proof.subject)
        store_password(connection, user.id, encoded, now=now)
        ended = end_logins_of(connection, user.id, "password", now, except_login=_login_of(asked.caller))
        actor = Actor(name=user.email, key_id=asked.caller.key_id, peer=asked.peer)
        audit.append(
            connection, actor, "user.password", f"user:{user.id}", {"own": True, "ended_logins": ended}, now=now
        )
        return ended

    # --- the end

    async def _log_out(self, asked: Asked) -> LoggedOut:
        body: LogoutRequest = asked.body
        ids = {_login_of(asked.caller), self._login_of_token(body.refresh_token, asked.caller.user_id)} - {None}
        if not ids:
            if body.refresh_token is None:
                raise BadRequest("An API key is no login: there is nothing to end.", code="not_a_login")
            raise BadRequest("This is no refresh token of yours.", param="refresh_token", code="invalid_token")
        now = self._clock.now()

        def work(connection: Connection) -> None:
            for login_id in ids:
                if login_id is not None:
                    end_login(connection, login_id, "logout", now)

        await self._run(work)
        await self._tell()
        return LoggedOut()

    def _login_of_token(self, token: str | None, user_id: int) -> str | None:
        if token is None:
            return None
        try:
            claims = self._mint.verify_refresh(token)
        except Unauthenticated:
            # It opens nothing any more, so there is nothing left to end with it.
            return None
        return claims.login_id if claims.user_id == user_id else None

    async def _tell(self) -> None:
        # It is stored already, and the next look of the key ring finds it: no reason to fail now.
        with contextlib.suppress(Unavailable):
            await self._on_change()


def _login_of(caller: Principal) -> str | None:
    """Id of the login that was shown; None for an API key."""
    return caller.key_id.removeprefix(LOGIN_PREFIX) if caller.key_id.startswith(LOGIN_PREFIX) else None


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "Invalid credentials", code="invalid_credentials", headers=((b"www-authenticate", b"Bearer"),)
    )


def _wrong_old() -> Forbidden:
    return Forbidden("The old password is wrong.", param="old_password", code="invalid_credentials")
