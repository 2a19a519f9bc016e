"""Who is asking."""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

import msgspec


class Role(StrEnum):
    """What somebody is, in ascending reach; `viewer` sees everything and changes and spends nothing."""

    USER = "user"
    VIEWER = "viewer"
    ADMIN = "admin"


class Tier(StrEnum):
    """How somebody pays: from a balance, by subscription, or not at all. Limits of the configuration go by tier."""

    PAYG = "payg"
    SUB = "sub"
    ADMIN = "admin"


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Window(StrEnum):
    """When a budget begins anew: at midnight, on Monday, on the first of the month; all in UTC."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Access(frozenset[Role]):
    """The roles that may use a route; an empty set is a route for everybody, also without a key."""


OPEN = Access()
CALLERS = Access({Role.USER, Role.ADMIN})
READERS = Access({Role.USER, Role.VIEWER, Role.ADMIN})
OBSERVERS = Access({Role.VIEWER, Role.ADMIN})
ADMINS = Access({Role.ADMIN})

Network = IPv4Network | IPv6Network


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The most that may be spent in one window, in micro units of the ledger's currency."""

    amount: int
    window: Window


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one user or one key. None takes what the configuration says, 0 is unlimited."""

    requests_per_minute: int | None = None
    burst: int | None = None
    """Requests at once before a steady pace counts; 0 allows a whole minute's share at once."""
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has shown a valid key or token. There is no empty one: a failed check raises."""

    key_id: str
    """Public id of the API key, or `login-<id>` of a login; for logs and the ledger, never the key itself."""
    name: str
    role: Role
    user_id: int = 0
    """Whose key it is."""
    tier: Tier = Tier.ADMIN
    models: frozenset[str] | None = None
    """Names of the models that may be used; None allows all."""
    networks: tuple[Network, ...] | None = None
    """Where requests may come from; None is anywhere."""
    priority: Priority = Priority.HIGH
    """The highest priority that a request may ask for."""
    allowance: Allowance = Allowance()
    """Limits of the key."""
    user_allowance: Allowance = Allowance()
    """Limits of the user, over all of his keys."""
    budget: Budget | None = None
    user_budget: Budget | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    @property
    def is_charged(self) -> bool:
        """A call needs a hold first: it is paid from a balance or counts against a budget."""
        return self.tier is Tier.PAYG or self.budget is not None or self.user_budget is not None
