"""How people, keys, money and times look in JSON, the same for administrators and for the people themselves."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stellwerk.auth.keys import KeyRecord
from stellwerk.auth.tokens import PREFIX, is_foreign_id
from stellwerk.auth.users import UserRecord
from stellwerk.core.errors import BadRequest
from stellwerk.core.principal import Allowance, Budget, Priority, Role, Tier, Window
from stellwerk.ledger.accounts import Balance, StatementLine

MICRO = 1_000_000

UserId = Annotated[int, Meta(ge=1, le=2**53 - 1, description="Number of a user.", examples=[7])]
KeyId = Annotated[str, Meta(pattern="^[a-z2-7]{10}$", description="Id of a key.", examples=["k7d3m2q5xa"])]
Name = Annotated[str, Meta(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Note = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=254,
        examples=["ada@example.org"],
        extra_json_schema={"pattern": r"^[!#-'*+\-./0-9=?A-Z^-~]+@[!#-'*+\-./0-9=?A-Z^-~]+$"},
    ),
]
Password = Annotated[str, Meta(min_length=12, max_length=256, description="12 characters or more.")]
ModelName = Annotated[str, Meta(min_length=1, max_length=200, pattern="^[!-~]+$")]
Models = Annotated[list[ModelName], Meta(max_length=1000, description="The only models that may be used.")]
Networks = Annotated[
    list[Annotated[str, Meta(min_length=2, max_length=49)]],
    Meta(max_length=64, description="Addresses and networks (CIDR) from which requests may come."),
]
Count = Annotated[int, Meta(ge=0, le=1_000_000, description="0 is unlimited, null what the configuration says.")]
Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000, description="0 is unlimited, null what the configuration says.")]
Amount = Annotated[
    float, Meta(ge=0, le=100_000_000, description="Currency units, at most six decimals.", examples=[25.0])
]
SignedAmount = Annotated[
    float,
    Meta(ge=-100_000_000, le=100_000_000, description="Currency units, at most six decimals.", examples=[-2.5]),
]
Moment = Annotated[str, Meta(description="UTC.", examples=["2026-11-21 09:30:00"])]
Instant = Annotated[
    str,
    Meta(
        description="RFC 3339, UTC.", examples=["2026-11-21T09:30:00.000Z"], extra_json_schema={"format": "date-time"}
    ),
]
_ZonedTime = Annotated[datetime, Meta(tz=True)]


class Page(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which part of a long list; the newest come first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Annotated[int, Meta(ge=1, le=2**53 - 1, description="Only what is older than this id.")] | None = None


class LimitFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Limits of a user or a key in a body; what is left out stays as it is."""

    requests_per_minute: Count | UnsetType | None = UNSET
    burst: Count | UnsetType | None = UNSET
    tokens_per_minute: Tokens | UnsetType | None = UNSET
    concurrent_requests: Count | UnsetType | None = UNSET
    budget: Amount | UnsetType | None = UNSET
    budget_window: Window | UnsetType = UNSET


class LimitShape(msgspec.Struct, kw_only=True):
    """Limits in an answer. Null takes what the configuration says, 0 is unlimited."""

    models: list[str] | None
    requests_per_minute: int | None
    burst: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    budget: float | None
    budget_window: Window | None


class UserShape(LimitShape, kw_only=True):
    """A user."""

    id: int
    email: str
    name: str
    role: Role
    tier: Tier
    active: bool
    has_password: bool
    created_at: Moment
    balance: Annotated[float, Meta(description="Currency units that can be spent.")]
    held: Annotated[float, Meta(description="Currency units set aside for calls that run.")]
    key_count: Annotated[int, Meta(description="Keys that are neither revoked nor expired.")]
    total_usage: Annotated[int | None, Meta(description="Tokens of all calls; null when there was none.")]


class KeyShape(LimitShape, kw_only=True):
    """A key; its text is never shown again."""

    id: str
    key_prefix: str
    last_four: str
    user_id: int
    name: str
    role: Annotated[Role, Meta(description="The most that the key may be; its user may be less.")]
    state: Annotated[str, Meta(description="active, expired or revoked")]
    networks: list[str] | None
    priority: Priority
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None


class NewKeyShape(KeyShape, kw_only=True):
    """A new key with its text, which is shown this one time."""

    key: str
    prefix: str


class StatementShape(msgspec.Struct, kw_only=True):
    """One line of a user's account."""

    id: int
    at: Instant
    kind: str
    amount: Annotated[float, Meta(description="Currency units; what was spent is negative.")]
    currency: str
    note: str
    actor: str
    call_id: str | None


def show_moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def show_instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_time(text: str, param: str) -> float:
    """Unix seconds of a time in RFC 3339. Raises BadRequest that names `param`."""
    try:
        return msgspec.convert(text, _ZonedTime).timestamp()
    except (msgspec.ValidationError, OverflowError, ValueError):
        raise BadRequest(
            f"'{param}' must be a time with its zone, such as 2026-11-21T09:30:00Z.", param=param
        ) from None


def to_units(micro: int) -> float:
    return micro / MICRO


def to_micro(amount: float, param: str) -> int:
    """Raises BadRequest for more than six decimals."""
    # The text of a float is the shortest that means it, which is what was typed.
    exact = Decimal(repr(amount)) * MICRO
    if exact != exact.to_integral_value():
        raise BadRequest(f"'{param}' may have six decimals at most.", param=param)
    return int(exact)


def to_allowance(fields: LimitFields, before: Allowance) -> Allowance:
    """The limits of `before` with those that `fields` names."""
    given = {name: getattr(fields, name) for name in Allowance.__struct_fields__}
    return msgspec.structs.replace(before, **{name: value for name, value in given.items() if value is not UNSET})


def to_budget(fields: LimitFields, before: Budget | None) -> Budget | None:
    """The budget of `before` with what `fields` says; a new one is for a month. Raises BadRequest."""
    if fields.budget is None:
        return None
    window = before.window if before is not None else Window.MONTH
    if fields.budget_window is not UNSET:
        window = fields.budget_window
    if fields.budget is not UNSET:
        return Budget(amount=to_micro(fields.budget, "budget"), window=window)
    if before is not None:
        return Budget(amount=before.amount, window=window)
    if fields.budget_window is not UNSET:
        raise BadRequest("A 'budget_window' needs a 'budget'.", param="budget_window")
    return None


def to_models(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def show_user(user: UserRecord, balance: Balance | None, key_count: int, total_usage: int | None) -> UserShape:
    return UserShape(
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        tier=user.tier,
        active=user.active,
        has_password=user.has_password,
        created_at=show_moment(user.created_at),
        balance=0.0 if balance is None else to_units(balance.available),
        held=0.0 if balance is None else to_units(balance.held),
        key_count=key_count,
        total_usage=total_usage,
        **_limits(user),
    )


def show_key(key: KeyRecord, now: float, last_used: float | None = None) -> KeyShape:
    return KeyShape(last_used_at=_when(last_used), **_key(key, now))


def show_new_key(key: KeyRecord, text: str, now: float) -> NewKeyShape:
    return NewKeyShape(key=text, prefix=show_prefix(key.id), last_used_at=None, **_key(key, now))


def show_prefix(key_id: str) -> str:
    """The part of a key that may be seen by everybody; empty for one that was made elsewhere."""
    return "" if is_foreign_id(key_id) else f"{PREFIX}{key_id}"


def show_line(line: StatementLine, currency: str) -> StatementShape:
    return StatementShape(
        id=line.id,
        at=show_instant(line.at),
        kind=line.kind,
        amount=to_units(line.amount),
        currency=currency,
        note=line.note,
        actor=line.actor,
        call_id=line.call_id,
    )


def _key(key: KeyRecord, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "key_prefix": show_prefix(key.id),
        "last_four": key.last_four,
        "user_id": key.user_id,
        "name": key.name,
        "role": key.role,
        "state": key.state(now),
        "networks": None if key.networks is None else list(key.networks),
        "priority": key.priority,
        "created_at": show_instant(key.created_at),
        "expires_at": _when(key.expires_at),
        "revoked_at": _when(key.revoked_at),
        **_limits(key),
    }


def _when(at: float | None) -> str | None:
    return None if at is None else show_instant(at)


def _limits(record: UserRecord | KeyRecord) -> dict[str, Any]:
    budget = record.budget
    return {
        "models": None if record.models is None else sorted(record.models),
        **msgspec.structs.asdict(record.allowance),
        "budget": None if budget is None else to_units(budget.amount),
        "budget_window": None if budget is None else budget.window,
    }
