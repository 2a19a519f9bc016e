"""/user/api: what people see of their own account. Whose it is, is decided by the key alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api import _examples as examples
from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._model_kinds import Capabilities, ModelKind, capabilities_of, kind_of
from stellwerk.api._shapes import (
    Instant,
    Moment,
    Page,
    StatementShape,
    show_instant,
    show_line,
    show_moment,
    show_prefix,
    to_units,
)
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.api.own_keys import keys_of
from stellwerk.core.errors import NotFound, Unavailable
from stellwerk.core.plan import Model
from stellwerk.core.principal import READERS, Principal, Role, Tier, Window
from stellwerk.ledger.accounts import balance, statement
from stellwerk.ledger.budgets import Spending, limits_of, read_spending
from stellwerk.ledger.reports import DailyUsage, daily_usage
from stellwerk.limits.admit import RateStatus

_TAG = "Account"
_UNLIMITED = 999
"""How the documented clients are told that there is no limit."""


class OwnKey(msgspec.Struct, kw_only=True):
    """A key that was not revoked."""

    id: str
    key_prefix: str
    name: str
    created_at: Moment


class BudgetState(msgspec.Struct, kw_only=True):
    """What is left of a budget in its present window, in currency units."""

    of: Annotated[str, Meta(description="user or key")]
    window: Window
    amount: float
    spent: float
    held: Annotated[float, Meta(description="Set aside for calls that run.")]
    remaining: float
    resets_at: Instant


class OwnAccount(msgspec.Struct, kw_only=True):
    """Who is asking. Money in currency units."""

    id: int
    email: str
    name: str
    role: Annotated[Role, Meta(description="What this key or login may do.")]
    tier: Tier
    balance: float
    held: Annotated[float, Meta(description="Set aside for calls that run.")]
    currency: str
    created_at: Moment
    api_keys: list[OwnKey]
    budgets: list[BudgetState]


class UsageQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How far back."""

    days: Annotated[int, Meta(ge=1, le=365)] = 7


class OwnRateLimit(msgspec.Struct, kw_only=True):
    """Requests per minute. Who is not limited sees 999 and `unlimited`."""

    tier: Tier
    max_per_minute: int
    remaining: int
    resets_in: Annotated[int, Meta(description="Seconds until all of them are back.")]
    unlimited: bool


class OwnModel(msgspec.Struct, kw_only=True):
    """A model that may be used."""

    name: str
    type: ModelKind
    port: Annotated[int | None, Meta(description="Of the slot in which it is loaded.")]
    capabilities: Capabilities


class AccountAPI:
    """`status` is what is left of a caller's rate, `models` the catalogue, `ports` the slots of loaded models by id."""

    def __init__(
        self,
        administration: Administration,
        *,
        status: Callable[[Principal], RateStatus],
        models: Callable[[], Sequence[Model]],
        ports: Callable[[], Mapping[str, int]],
    ) -> None:
        self._administration = administration
        self._status = status
        self._models = models
        self._ports = ports

    def register(self, registry: Registry) -> None:
        registry.add(
            _reading("me", self._show_me, "Show the own account", OwnAccount, examples.ACCOUNT, errors=(NotFound,)),
            _reading(
                "usage",
                self._show_usage,
                "Show the own usage by day, newest first",
                list[DailyUsage],
                [examples.USAGE_DAY],
                query=UsageQuery,
            ),
            _reading("ratelimit", self._show_rate, "Show the own rate limit", OwnRateLimit, examples.RATE_LIMIT),
            _reading("models", self._show_models, "List the models that may be used", list[OwnModel], [examples.MODEL]),
            _reading(
                "ledger",
                self._show_statement,
                "Show the own statement, newest first",
                list[StatementShape],
                [examples.STATEMENT_LINE],
                query=Page,
            ),
        )

    async def _show_me(self, asked: Asked) -> OwnAccount:
        caller, now = asked.caller, self._administration.clock.now()
        return await self._administration.fetch(lambda connection: self._read_me(connection, caller, now))

    def _read_me(self, connection: Connection, caller: Principal, now: float) -> OwnAccount:
        user = actions.find_user(connection, caller.user_id)
        money = balance(connection, user.id)
        limits = limits_of(caller)
        return OwnAccount(
            id=user.id,
            email=user.email,
            name=user.name,
            role=caller.role,
            tier=user.tier,
            balance=to_units(money.available),
            held=to_units(money.held),
            currency=self._administration.currency,
            created_at=show_moment(user.created_at),
            api_keys=[
                OwnKey(id=key.id, key_prefix=show_prefix(key.id), name=key.name, created_at=show_moment(key.created_at))
                for key in keys_of(connection, caller)
                if key.revoked_at is None
            ],
            budgets=[
                _show_budget("user" if limit.key_id is None else "key", limit.budget.window, spending)
                for limit, spending in zip(limits, read_spending(connection, limits, now), strict=True)
            ],
        )

    async def _show_usage(self, asked: Asked) -> list[DailyUsage]:
        user_id, days, now = asked.caller.user_id, asked.query.days, self._administration.clock.now()
        return await self._administration.fetch(lambda connection: daily_usage(connection, user_id, days, now))

    async def _show_rate(self, asked: Asked) -> OwnRateLimit:
        status = self._status(asked.caller)
        unlimited = status.limit is None
        return OwnRateLimit(
            tier=asked.caller.tier,
            max_per_minute=_UNLIMITED if status.limit is None else status.limit,
            remaining=_UNLIMITED if status.remaining is None else status.remaining,
            resets_in=math.ceil(status.resets_in),
            unlimited=unlimited,
        )

    async def _show_models(self, asked: Asked) -> list[OwnModel]:
        ports = self._ports()
        return [
            OwnModel(name=model.id, type=kind_of(model), port=ports.get(model.id), capabilities=capabilities_of(model))
            for model in self._models()
            if asked.caller.may_use(model.id)
        ]

    async def _show_statement(self, asked: Asked) -> list[StatementShape]:
        user_id, page, currency = asked.caller.user_id, asked.query, self._administration.currency
        lines = await self._administration.fetch(
            lambda connection: statement(connection, user_id, limit=page.limit, before=page.before)
        )
        # Who booked it is the house's business.
        return [show_line(msgspec.structs.replace(line, actor=""), currency) for line in lines]


def _reading(name: str, handler: Any, summary: str, answer: Any, example: Any, **more: Any) -> Endpoint:
    errors = (*more.pop("errors", ()), Unavailable)
    return Endpoint(
        method="GET",
        path=f"/user/api/{name}",
        access=READERS,
        tag=_TAG,
        summary=summary,
        handler=handler,
        answer=answer,
        example=example,
        errors=errors,
        **more,
    )


def _show_budget(of: str, window: Window, spending: Spending) -> BudgetState:
    return BudgetState(
        of=of,
        window=window,
        amount=to_units(spending.amount),
        spent=to_units(spending.spent),
        held=to_units(spending.held),
        remaining=to_units(max(0, spending.amount - spending.spent - spending.held)),
        resets_at=show_instant(spending.end),
    )
