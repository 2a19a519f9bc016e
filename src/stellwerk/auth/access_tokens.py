"""Tokens of a login: a short one that is shown with each request, and a long one that buys the next pair.

Both are JWTs under one secret of this gateway, always HS256: the algorithm is never read from the token.
"""

import re
import secrets
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unauthenticated

LONGEST_ACCESS_SECONDS = 3600.0
"""No access token is good for longer, whatever the settings say."""

_LONGEST_TOKEN = 2048
_ALGORITHM = "HS256"
_HEADER = {"alg": _ALGORITHM, "typ": "JWT"}
_LEAST_SECRET_BYTES = 32
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "jti", "type"]
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class MintSettings(msgspec.Struct, frozen=True, kw_only=True):
    issuer: str = "stellwerk"
    audience: str = "stellwerk"
    access_seconds: float = 900.0
    """At most `LONGEST_ACCESS_SECONDS`."""


class LoginClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What an access token says. `expires_at` is Unix seconds."""

    user_id: int
    login_id: str
    expires_at: float


class RefreshClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a refresh token says; `generation` counts how often the login was refreshed before it."""

    user_id: int
    login_id: str
    generation: int
    expires_at: float


class _Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    iss: str
    aud: str
    sub: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,17}\Z")]
    sid: Annotated[str, Meta(min_length=1, max_length=16)]
    jti: Annotated[str, Meta(min_length=1, max_length=64)]
    iat: int
    exp: int
    client_id: Literal["default"]


class _AccessClaims(_Claims, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["access"]


class _RefreshClaims(_Claims, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gen: Annotated[int, Meta(ge=0)]
    type: Literal["refresh"]


_Kind = TypeVar("_Kind", bound=_Claims)


class TokenMint:
    """Makes and checks the tokens of this gateway. It knows nothing of logins that ended before their time."""

    def __init__(self, secret: bytes, clock: Clock, settings: MintSettings | None = None) -> None:
        """`secret` is 32 random bytes or more, for this purpose only. Raises ValueError."""
        self.settings = settings or MintSettings()
        if len(secret) < _LEAST_SECRET_BYTES:
            raise ValueError(f"the secret needs {_LEAST_SECRET_BYTES} bytes")
        if not 0 < self.settings.access_seconds <= LONGEST_ACCESS_SECONDS:
            raise ValueError(f"an access token is good for {LONGEST_ACCESS_SECONDS:.0f} seconds at most")
        self._secret = secret
        self._clock = clock

    def issue_access(self, user_id: int, login_id: str, *, until: float | None = None) -> str:
        """A token for requests. `until`, Unix seconds, is the end of the login, which no token outlives."""
        ends = self._clock.now() + self.settings.access_seconds
        return self._sign("access", user_id, login_id, ends if until is None else min(ends, until))

    def issue_refresh(self, user_id: int, login_id: str, generation: int, expires_at: float) -> str:
        """A token that is good once, until `expires_at` in Unix seconds."""
        return self._sign("refresh", user_id, login_id, expires_at, gen=generation)

    def verify_access(self, token: str) -> LoginClaims:
        """Raises Unauthenticated, code `expired_token` or `invalid_token`."""
        claims = self._verify(token, _AccessClaims)
        return LoginClaims(user_id=int(claims.sub), login_id=claims.sid, expires_at=claims.exp)

    def verify_refresh(self, token: str) -> RefreshClaims:
        """Raises Unauthenticated, code `expired_token` or `invalid_token`."""
        claims = self._verify(token, _RefreshClaims)
        return RefreshClaims(user_id=int(claims.sub), login_id=claims.sid, generation=claims.gen, expires_at=claims.exp)

    def _sign(self, kind: str, user_id: int, login_id: str, expires_at: float, **more: int) -> str:
        import jwt  # noqa: PLC0415  # 75 ms that only logins need

        claims = {
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "sub": str(user_id),
            "sid": login_id,
            "jti": secrets.token_urlsafe(12),
            "iat": int(self._clock.now()),
            "exp": int(expires_at),
            "type": kind,
            "client_id": "default",
            **more,
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def _verify(self, token: str, kind: type[_Kind]) -> _Kind:
        # Checked before anything is parsed: a longer or different text is none of ours, whatever it decodes to.
        if len(token) > _LONGEST_TOKEN or _SHAPE.fullmatch(token) is None:
            raise invalid_token()
        import jwt  # noqa: PLC0415  # 75 ms that only logins need

        try:
            found = jwt.decode_complete(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=self.settings.audience,
                issuer=self.settings.issuer,
                options={
                    "require": _REQUIRED,
                    "strict_aud": True,
                    # Times are checked below against the gateway's own clock.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            if found["header"] != _HEADER:
                raise invalid_token()
            claims = msgspec.convert(found["payload"], kind)
        except (jwt.PyJWTError, msgspec.ValidationError):
            raise invalid_token() from None
        if claims.exp <= self._clock.now():
            raise expired_token()
        return claims


def invalid_token() -> Unauthenticated:
    """The one answer to every token that is not good, so that nobody learns why."""
    return Unauthenticated("Invalid token", code="invalid_token")


def expired_token() -> Unauthenticated:
    return Unauthenticated("Token has expired", code="expired_token")
