"""Everybody who may knock at a gateway, with what they show and who they are to be taken for."""

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any

import jwt

from stellwerk.core.principal import Role, Tier
from tests.gateway_process import ADMIN_KEY
from tests.people import Key, Login, People

ELSEWHERE = ("192.0.2.0/24",)
"""A network that no test comes from."""
TWO_HUNDRED_YEARS = 6_311_520_000


@dataclass(frozen=True)
class Caller:
    """`role` is who they are, `refusal` the status and code with which they are always turned away; never both."""

    headers: dict[str, str] = field(default_factory=dict)
    role: Role | None = None
    refusal: tuple[int, str] | None = None
    query: str = ""
    pays: bool = True
    """False for who has no money left."""
    has_account: bool = True
    """False for a key that was made for nobody."""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refused(token: str, status: int, code: str) -> Caller:
    return Caller(bearer(token), refusal=(status, code))


def known(token: str, role: Role) -> Caller:
    return Caller(bearer(token), role=role)


class Cast:
    """The users of one gateway. Made before it starts."""

    def __init__(self, people: People) -> None:
        self.people = people
        # Number 1: an administrator is who a made-up number is most likely to be.
        self.admin = people.user("boss@example.org", role=Role.ADMIN, tier=Tier.ADMIN)
        self.first = people.user("first-canary@example.org", name="First Canary", balance=10)
        self.other = people.user("other@example.org", balance=10)
        self.poor = people.user("poor@example.org")
        self.sub = people.user("sub@example.org", tier=Tier.SUB)
        self.viewer = people.user("viewer@example.org", role=Role.VIEWER)
        self.target = people.user("target@example.org", balance=10)
        """Whom administrators change."""
        self.disabled = people.user("disabled@example.org", balance=10)
        self.demoted = people.user("demoted@example.org", role=Role.ADMIN, tier=Tier.SUB)
        self.first_key: Key = people.key(self.first, name="key-canary")
        self.first_login: Login = people.login(self.first)
        self.other_key: Key = people.key(self.other)
        self.target_key: Key = people.key(self.target)
        self.admin_login: Login = people.login(self.admin)
        self.signups = [people.signup(f"stranger-{number}@example.org") for number in range(30)]

    def callers(self) -> dict[str, Caller]:
        """By the names of `CALLERS`."""
        made = self._strangers() | self._without_rights() | self._with_rights() | self._forgers()
        assert list(made) == list(CALLERS)
        return made

    def _strangers(self) -> dict[str, Caller]:
        no_key = (401, "missing_api_key")
        return {
            "none": Caller(refusal=no_key),
            "another scheme": Caller({"Authorization": f"Basic {ADMIN_KEY}"}, refusal=no_key),
            "an empty bearer": Caller({"Authorization": "Bearer "}, refusal=no_key),
            "the admin key in the query": Caller(
                refusal=no_key, query=f"api_key={ADMIN_KEY}&key={ADMIN_KEY}&access_token={ADMIN_KEY}"
            ),
            "the admin key in a cookie": Caller(
                {"Cookie": f"api_key={ADMIN_KEY}; session={ADMIN_KEY}"}, refusal=no_key
            ),
            "a bad key": refused(f"sk-sw-{'a' * 10}-{'A' * 43}", 401, "invalid_api_key"),
            "a malformed token": refused("sk-sw-x", 401, "invalid_api_key"),
            "the admin key but its end": refused(ADMIN_KEY[:-1], 401, "invalid_api_key"),
            "a bad key before the admin key": Caller(
                {**bearer("sk-sw-x"), "X-Api-Key": ADMIN_KEY}, refusal=(401, "invalid_api_key")
            ),
        }

    def _without_rights(self) -> dict[str, Caller]:
        people = self.people
        far = people.key(self.admin, Role.ADMIN, networks=ELSEWHERE).token
        viewer_key = people.key(self.demoted, Role.VIEWER).token
        disabled = people.key(self.disabled).token
        disabled_login = people.login(self.disabled)
        people.change(self.disabled, active=False)
        return {
            "a revoked key": refused(people.revoked_key(self.first).token, 401, "revoked_api_key"),
            "an expired key": refused(people.expired_key(self.first).token, 401, "expired_api_key"),
            "a disabled user": refused(disabled, 403, "account_disabled"),
            "a login of a disabled user": refused(disabled_login.access, 401, "invalid_token"),
            "an admin key from elsewhere": refused(far, 403, "ip_not_allowed"),
            "an admin key from elsewhere by a made-up proxy": Caller(
                {**bearer(far), "X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Real-IP": "192.0.2.1"},
                refusal=(403, "ip_not_allowed"),
            ),
            "a viewer key of somebody who is a user now": refused(viewer_key, 403, "key_role_changed"),
            "a JWT of an ended login": refused(people.ended_login(self.first).access, 401, "invalid_token"),
            "an expired JWT": refused(people.expired_access(self.admin), 401, "expired_token"),
        }

    def _with_rights(self) -> dict[str, Caller]:
        people = self.people
        demoted = people.key(self.demoted, Role.ADMIN).token
        people.change(self.demoted, role=Role.USER)
        poor = known(people.key(self.poor).token, Role.USER)
        nobodys = known(people.key(None).token, Role.USER)
        return {
            "user": known(self.first_key.token, Role.USER),
            "other user": known(self.other_key.token, Role.USER),
            "user without balance": replace(poor, pays=False),
            "sub user": known(people.key(self.sub).token, Role.USER),
            "a user key of nobody": replace(nobodys, has_account=False),
            "a user key before the admin key": Caller(
                {**bearer(self.other_key.token), "X-Api-Key": ADMIN_KEY, "Api-Key": ADMIN_KEY}, role=Role.USER
            ),
            "a user key of an administrator": known(people.key(self.admin, Role.USER).token, Role.USER),
            "an admin key of somebody who is a user now": known(demoted, Role.USER),
            "viewer": known(people.key(self.viewer, Role.VIEWER).token, Role.VIEWER),
            "a viewer key of an administrator": known(people.key(self.admin, Role.VIEWER).token, Role.VIEWER),
            "admin": known(people.key(self.admin, Role.ADMIN).token, Role.ADMIN),
            "the admin key of the environment": Caller({"X-Api-Key": ADMIN_KEY}, role=Role.ADMIN),
            "a JWT of a user": known(self.first_login.access, Role.USER),
            "a JWT of a viewer": known(people.login(self.viewer).access, Role.VIEWER),
            "a JWT of an administrator": known(self.admin_login.access, Role.ADMIN),
        }

    def _forgers(self) -> dict[str, Caller]:
        """Each with a token that would make him an administrator if it were believed."""
        secret, admin = self.people.secret, self.admin_login
        claims = jwt.decode(admin.access, options={"verify_signature": False})
        good_head, good_claims, _ = admin.access.split(".")
        own = self.first_login.access.split(".")
        tokens = {
            "a JWT with alg none": jwt.encode(claims, None, algorithm="none"),
            "a JWT with alg none in other letters": f"{_encode({'alg': 'nOnE', 'typ': 'JWT'})}.{good_claims}.",
            "a JWT without a signature": f"{good_head}.{good_claims}.",
            "a JWT with another secret": jwt.encode(claims, bytes(32), algorithm="HS256"),
            "a JWT with the admin key as its secret": jwt.encode(claims, ADMIN_KEY.ljust(32), algorithm="HS256"),
            "a JWT with another algorithm": jwt.encode(claims, secret.ljust(64), algorithm="HS512"),
            "a JWT with a key of its choice": jwt.encode(
                claims, secret, algorithm="HS256", headers={"kid": "../../dev/null"}
            ),
            "a refresh token": admin.refresh,
            "a JWT with a tampered role": _with_claims(own, role="admin", tier="admin"),
            "a JWT with a tampered user": _with_claims(own, sub=str(self.admin)),
            "a JWT with a tampered end": _with_claims(admin.access.split("."), exp=claims["exp"] + TWO_HUNDRED_YEARS),
            "a JWT with the signature of another": f"{good_head}.{good_claims}.{own[2]}",
            "a JWT for somebody else": jwt.encode({**claims, "aud": "another"}, secret, algorithm="HS256"),
            "a JWT of another gateway": jwt.encode({**claims, "iss": "another"}, secret, algorithm="HS256"),
            "a JWT with a role": jwt.encode({**claims, "role": "admin"}, secret, algorithm="HS256"),
        }
        assert all(token.count(".") == 2 for token in tokens.values())
        return {name: refused(token, 401, "invalid_token") for name, token in tokens.items()}


def _encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _with_claims(parts: list[str], **changes: Any) -> str:
    """A token whose claims were changed, under the signature that it had."""
    head, body, signature = parts
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return f"{head}.{_encode({**claims, **changes})}.{signature}"


CALLERS = (
    "none",
    "another scheme",
    "an empty bearer",
    "the admin key in the query",
    "the admin key in a cookie",
    "a bad key",
    "a malformed token",
    "the admin key but its end",
    "a bad key before the admin key",
    "a revoked key",
    "an expired key",
    "a disabled user",
    "a login of a disabled user",
    "an admin key from elsewhere",
    "an admin key from elsewhere by a made-up proxy",
    "a viewer key of somebody who is a user now",
    "a JWT of an ended login",
    "an expired JWT",
    "user",
    "other user",
    "user without balance",
    "sub user",
    "a user key of nobody",
    "a user key before the admin key",
    "a user key of an administrator",
    "an admin key of somebody who is a user now",
    "viewer",
    "a viewer key of an administrator",
    "admin",
    "the admin key of the environment",
    "a JWT of a user",
    "a JWT of a viewer",
    "a JWT of an administrator",
    "a JWT with alg none",
    "a JWT with alg none in other letters",
    "a JWT without a signature",
    "a JWT with another secret",
    "a JWT with the admin key as its secret",
    "a JWT with another algorithm",
    "a JWT with a key of its choice",
    "a refresh token",
    "a JWT with a tampered role",
    "a JWT with a tampered user",
    "a JWT with a tampered end",
    "a JWT with the signature of another",
    "a JWT for somebody else",
    "a JWT of another gateway",
    "a JWT with a role",
)
"""Their names, known before anybody has been made."""
