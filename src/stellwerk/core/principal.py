"""Who is asking."""

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """What somebody is, in ascending reach; `viewer` sees everything and changes and spends nothing."""

    USER = "user"
    VIEWER = "viewer"
    ADMIN = "admin"


class Access(frozenset[Role]):
    """The roles that may use a route; an empty set is a route for everybody, also without a key."""


OPEN = Access()
CALLERS = Access({Role.USER, Role.ADMIN})
READERS = Access({Role.USER, Role.VIEWER, Role.ADMIN})
OBSERVERS = Access({Role.VIEWER, Role.ADMIN})
ADMINS = Access({Role.ADMIN})


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has shown a valid key. There is no empty one: a failed check raises."""

    key_id: str
    """Public id of the API key, for logs and the ledger; never the key itself."""
    name: str
    role: Role
    models: frozenset[str] | None = None
    """Names of the models that the key may use; None allows all."""
    requests_per_minute: int | None = None
    """Overrides the limit of the configuration; 0 means unlimited."""
    concurrent_requests: int | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models
