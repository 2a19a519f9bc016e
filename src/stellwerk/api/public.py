"""What everybody may see and ask, also without a key: the uptime history, the models, and for an account."""

import asyncio
import re
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._model_kinds import ModelKind, kind_of
from stellwerk.api._transactions import RunInTransaction
from stellwerk.auth.signups import LONGEST_MESSAGE, ask
from stellwerk.auth.users import LONGEST_EMAIL, check_email
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, Forbidden, RateLimited, Unavailable
from stellwerk.core.plan import Model
from stellwerk.core.principal import OPEN, Tier
from stellwerk.http.peer import peer_network
from stellwerk.limits.attempts import Rule, try_all
from stellwerk.records.uptime import MOST_DAYS, DayUptime, Tally, UptimeHistory, UptimeStatus, summarize, tally_days

_TAG = "Public"
_HOUR = 3_600.0
_PER_PEER, _PER_ADDRESS, _IN_TOTAL = 5, 3, 100
_USUAL_DAYS = 30
_FRESH_SECONDS = 60.0
# Latin letters only: what looks like another address is refused before anybody has to look at it.
_EMAIL_CHARACTER = r"[!#-'*+\-./0-9=?A-Z^-~¡-¬®-ɏ]"
_EMAIL = f"^{_EMAIL_CHARACTER}+@{_EMAIL_CHARACTER}+$"


class UptimeQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    days: Annotated[
        int, Meta(ge=1, le=MOST_DAYS, description="The last days, the present one included.", examples=[30])
    ] = _USUAL_DAYS


class SignupBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Asks for an account."""

    email: Annotated[
        str,
        Meta(
            min_length=3,
            max_length=LONGEST_EMAIL,
            examples=["ada@example.org"],
            extra_json_schema={"pattern": _EMAIL},
        ),
    ]
    tier: Annotated[Literal["payg", "sub"], Meta(description="`payg` pays from a balance, `sub` by subscription.")] = (
        "payg"
    )
    message: Annotated[str, Meta(max_length=LONGEST_MESSAGE, description="Shown to the admin who decides.")] | None = (
        None
    )


class SignupAnswer(msgspec.Struct, kw_only=True):
    """The same for every address, whether it is known here or not."""

    status: Literal["pending"]
    message: str


class PublicModel(msgspec.Struct, kw_only=True):
    id: str
    type: ModelKind
    status: Literal["online"]


class PublicModels(msgspec.Struct, kw_only=True):
    """Models of this machine and names that the operator has given; not what its vendors offer."""

    models: list[PublicModel]


class PublicAPI:
    """The routes without a key.

    `run` writes, `fetch` reads; `aliases` are the names that the config gives to models, and `signup_enabled` is asked
    at every request.
    """

    def __init__(
        self,
        *,
        run: RunInTransaction,
        fetch: RunInTransaction,
        models: Callable[[], Sequence[Model]],
        aliases: Callable[[], Collection[str]],
        signup_enabled: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._run = run
        self._models = models
        self._aliases = aliases
        self._signup_enabled = signup_enabled
        self._clock = clock
        self._tallies = _FreshTallies(fetch, clock)

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/api/uptime",
                access=OPEN,
                summary="How well the gateway has worked",
                description=(
                    "Day by day in UTC, the newest first. A check every five minutes; the time in which the gateway "
                    "was off counts as down. Days before the first check are left out. At most a minute old."
                ),
                tag=_TAG,
                handler=self._show_uptime,
                query=UptimeQuery,
                answer=UptimeHistory,
                example=_UPTIME_EXAMPLE,
                errors=(BadRequest, Unavailable),
            ),
            Endpoint(
                method="GET",
                path="/api/models",
                access=OPEN,
                summary="Models that this gateway serves",
                tag=_TAG,
                handler=self._show_models,
                answer=PublicModels,
                example=PublicModels(models=[PublicModel(id="stellwerk-demo", type="text", status="online")]),
            ),
            Endpoint(
                method="POST",
                path="/api/signup",
                access=OPEN,
                summary="Ask for an account",
                description=(
                    "An admin decides about each request. The answer is the same for every address. Closed unless the "
                    "operator has opened it."
                ),
                tag=_TAG,
                handler=self._sign_up,
                body=SignupBody,
                body_example=SignupBody(email="ada@example.org", tier="payg", message="For our reading group."),
                answer=SignupAnswer,
                example=_PENDING,
                errors=(Forbidden, RateLimited, Unavailable),
            ),
        )

    async def _show_uptime(self, asked: Asked) -> UptimeHistory:
        days = asked.query.days
        return summarize(await self._tallies.of_last(days), days)

    async def _show_models(self, _asked: Asked) -> PublicModels:
        aliases = self._aliases()
        shown = (model for model in self._models() if model.local or model.id in aliases)
        return PublicModels(models=[PublicModel(id=model.id, type=kind_of(model), status="online") for model in shown])

    async def _sign_up(self, asked: Asked) -> SignupAnswer:
        if not self._signup_enabled():
            raise Forbidden("Sign-up is closed. Ask the operator for an account.", code="signup_closed")
        body: SignupBody = asked.body
        address = check_email(body.email)
        if re.fullmatch(_EMAIL, body.email.strip()) is None:
            raise BadRequest("This is not an e-mail address.", param="email", code="invalid_email")
        peer, now = asked.peer, self._clock.now()
        wait = await self._run(lambda connection: _take_request(connection, body, address, peer, now))
        if wait > 0:
            raise RateLimited("Too many sign-up requests. Try again later.", retry_after=wait)
        return _PENDING


def _take_request(connection: Connection, body: SignupBody, address: str, peer: str, now: float) -> float:
    """Seconds to wait, 0.0 when it was taken.

    Too many requests for one address are taken and forgotten: a refusal would tell a stranger that somebody else has
    asked for it.
    """
    subject = peer_network(peer)
    rules = (Rule(f"signup-peer:{subject}", _PER_PEER, _HOUR), Rule("signup", _IN_TOTAL, _HOUR))
    wait = try_all(connection, rules, now=now)
    if wait > 0:
        return wait
    if try_all(connection, (Rule(f"signup-address:{address}", _PER_ADDRESS, _HOUR),), now=now) == 0:
        ask(connection, address, Tier(body.tier), body.message, now=now)
    return 0.0


class _FreshTallies:
    """The days of the uptime history, read anew once a minute however often they are asked for."""

    def __init__(self, fetch: RunInTransaction, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: dict[int, tuple[float, list[Tally]]] = {}

    async def of_last(self, days: int) -> list[Tally]:
        """At least so many days, newest first."""
        # Two lengths only: a year is a hundred thousand rows, which nobody shall make us read for every number of days.
        span = _USUAL_DAYS if days <= _USUAL_DAYS else MOST_DAYS
        async with self._lock:
            known = self._known.get(span)
            if known is None or not 0 <= self._clock.monotonic() - known[0] < _FRESH_SECONDS:
                now = self._clock.now()
                tallies = await self._fetch(lambda connection: tally_days(connection, span, now))
                known = self._known[span] = (self._clock.monotonic(), tallies)
            return known[1]


_PENDING = SignupAnswer(status="pending", message="Your request has been received. An admin will look at it.")
_UPTIME_EXAMPLE = UptimeHistory(
    days=30,
    overall_uptime_percent=99.98,
    daily=[
        DayUptime(date="2026-11-21", status=UptimeStatus.UP, uptime_percent=99.98, avg_latency_ms=3.2, avg_models=2.0),
    ],
)
