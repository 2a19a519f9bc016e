"""/admin/api/…/apikey and /admin/api/keys: the keys of all users."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from stellwerk.api import _examples as examples
from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import (
    KeyId,
    KeyShape,
    LimitFields,
    Models,
    Networks,
    NewKeyShape,
    UserId,
    show_key,
    show_new_key,
    to_allowance,
    to_budget,
    to_models,
)
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.auth.keys import KeyChanges, KeyRecord, NewKey, find_key, list_keys
from stellwerk.auth.networks import parse_networks
from stellwerk.core.errors import BadRequest, NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS, Allowance, Priority, Role
from stellwerk.ledger.reports import last_used
from stellwerk.records.audit import Actor

_TAG = "Keys"
_DAY = 86_400.0
_LAST_MOMENT = 253_402_300_799.0
"""The end of the year 9999 in UTC: a later time cannot be written, whatever zone it was stated in."""
KEY_ROLES = {
    Role.USER: frozenset({Role.USER}),
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.ADMIN: frozenset(Role),
}
"""What a key of a user may be."""

Expiry = Annotated[datetime, Meta(tz=True, description="RFC 3339, with a time zone.")]
KeyName = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class NewKeyBody(LimitFields, kw_only=True, forbid_unknown_fields=True):
    """A key to make. Without `role` it may be what its user is now."""

    user_id: Annotated[UserId, Meta(description="The one in the path once more.")] | None = None
    name: KeyName = "default"
    role: Role | None = None
    expires_at: Expiry | None = None
    expires_in_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    models: Models | None = None
    networks: Networks | None = None
    priority: Priority = Priority.HIGH


class KeyChangesBody(LimitFields, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays."""

    name: KeyName | UnsetType = UNSET
    expires_at: Expiry | UnsetType | None = UNSET
    models: Models | UnsetType | None = UNSET
    networks: Networks | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET


class ChangedKey(msgspec.Struct, kw_only=True):
    """The key after the change."""

    status: str
    key: KeyShape


class RevokedKey(msgspec.Struct, kw_only=True):
    """A key that opens nothing any more."""

    status: str


class KeysQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which keys; the newest come first."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0
    state: Annotated[str, Meta(pattern="^(active|expired|revoked)$")] | None = None


class KeyPage(msgspec.Struct, kw_only=True):
    """A part of all keys, and how many there are."""

    keys: list[KeyShape]
    total: int


class KeysAPI:
    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    def register(self, registry: Registry) -> None:
        registry.add(*self._of_users(), *self._of_all())

    def _of_users(self) -> tuple[Endpoint, ...]:
        of_user = {"user_id": UserId}
        return (
            Endpoint(
                method="POST",
                path="/admin/api/users/{user_id}/apikey",
                access=ADMINS,
                tag=_TAG,
                summary="Make a key for a user",
                description="The key's text is in this answer and never comes again.",
                handler=self._create,
                path_parameters=of_user,
                body=NewKeyBody,
                body_example={"user_id": 7, "name": "laptop", "expires_in_days": 90, "networks": ["192.0.2.0/24"]},
                answer=NewKeyShape,
                example=examples.NEW_KEY,
                errors=(NotFound, Unavailable),
            ),
            Endpoint(
                method="GET",
                path="/admin/api/users/{user_id}/keys",
                access=OBSERVERS,
                tag=_TAG,
                summary="List the keys of a user, newest first",
                handler=self._list_of_user,
                path_parameters=of_user,
                answer=list[KeyShape],
                example=[examples.KEY],
                errors=(NotFound, Unavailable),
            ),
        )

    def _of_all(self) -> tuple[Endpoint, ...]:
        one = {"key_id": KeyId}
        return (
            Endpoint(
                method="GET",
                path="/admin/api/keys",
                access=OBSERVERS,
                tag=_TAG,
                summary="List all keys, newest first",
                handler=self._list,
                query=KeysQuery,
                answer=KeyPage,
                example={"keys": [examples.KEY], "total": 1},
                errors=(Unavailable,),
            ),
            Endpoint(
                method="PATCH",
                path="/admin/api/apikeys/{key_id}",
                access=ADMINS,
                tag=_TAG,
                summary="Change a key",
                handler=self._change,
                path_parameters=one,
                body=KeyChangesBody,
                body_example={"name": "old laptop", "requests_per_minute": 10, "budget": 5.0, "budget_window": "week"},
                answer=ChangedKey,
                example={"status": "updated", "key": examples.KEY},
                errors=(NotFound, Unavailable),
            ),
            Endpoint(
                method="DELETE",
                path="/admin/api/apikeys/{key_id}",
                access=ADMINS,
                tag=_TAG,
                summary="Revoke a key",
                description="For good, and at once. Revoking it again changes nothing.",
                handler=self._revoke,
                path_parameters=one,
                answer=RevokedKey,
                example={"status": "deleted"},
                errors=(NotFound, Unavailable),
            ),
        )

    async def _create(self, asked: Asked) -> NewKeyShape:
        body: NewKeyBody = asked.body
        user_id = asked.parameters["user_id"]
        if body.user_id is not None and body.user_id != user_id:
            raise BadRequest("The 'user_id' in the body is not the one in the path.", param="user_id")
        digest = self._administration.digest

        def create(connection: Connection, actor: Actor, now: float) -> NewKeyShape:
            owner = actions.find_user(connection, user_id)
            role = owner.role if body.role is None else body.role
            if role not in KEY_ROLES[owner.role]:
                raise BadRequest(f"A key of a user with the role '{owner.role}' cannot be '{role}'.", param="role")
            key = to_new_key(body, user_id, role, now)
            record, token = actions.create_key(connection, actor, key, digest, now=now)
            return show_new_key(record, token.reveal(), now)

        return await self._administration.change(asked, create)

    async def _list_of_user(self, asked: Asked) -> list[KeyShape]:
        user_id, now = asked.parameters["user_id"], self._administration.clock.now()

        def read(connection: Connection) -> list[KeyShape]:
            actions.find_user(connection, user_id)
            return show_keys(connection, list_keys(connection, user_id)[::-1], now)

        return await self._administration.fetch(read)

    async def _list(self, asked: Asked) -> KeyPage:
        query: KeysQuery = asked.query
        now = self._administration.clock.now()

        def read(connection: Connection) -> KeyPage:
            newest_first = reversed(list_keys(connection))
            found = [key for key in newest_first if query.state is None or key.state(now) == query.state]
            page = found[query.offset : query.offset + query.limit]
            return KeyPage(keys=show_keys(connection, page, now), total=len(found))

        return await self._administration.fetch(read)

    async def _change(self, asked: Asked) -> ChangedKey:
        body: KeyChangesBody = asked.body
        key_id, now = asked.parameters["key_id"], self._administration.clock.now()

        def change(connection: Connection, actor: Actor, now: float) -> KeyRecord:
            before = find_key(connection, key_id)
            if before is None:
                raise NotFound("There is no such key.", code="key_not_found")
            return actions.change_key(connection, actor, key_id, _changes(body, before, now), now=now)

        record = await self._administration.change(asked, change)
        return ChangedKey(status="updated", key=show_key(record, now))

    async def _revoke(self, asked: Asked) -> RevokedKey:
        key_id = asked.parameters["key_id"]
        await self._administration.change(
            asked, lambda connection, actor, now: actions.revoke_key(connection, actor, key_id, now=now)
        )
        return RevokedKey(status="deleted")


def to_new_key(body: NewKeyBody, user_id: int, role: Role, now: float) -> NewKey:
    """Raises BadRequest that names the field."""
    return NewKey(
        user_id=user_id,
        name=body.name,
        role=role,
        models=to_models(body.models),
        networks=None if body.networks is None else parse_networks(body.networks),
        priority=body.priority,
        allowance=to_allowance(body, Allowance()),
        budget=to_budget(body, None),
        expires_at=to_expiry(body.expires_at, body.expires_in_days, now),
    )


def show_keys(connection: Connection, keys: Sequence[KeyRecord], now: float) -> list[KeyShape]:
    """With the time of their last use."""
    used = last_used(connection, (key.id for key in keys))
    return [show_key(key, now, used.get(key.id)) for key in keys]


def to_expiry(at: datetime | None, in_days: int | None, now: float) -> float | None:
    """Unix seconds. Raises BadRequest for a time that is over, and when both are given."""
    if in_days is not None:
        if at is not None:
            raise BadRequest("Say either 'expires_at' or 'expires_in_days'.", param="expires_in_days")
        return now + in_days * _DAY
    if at is None:
        return None
    if not now < at.timestamp() <= _LAST_MOMENT:
        raise BadRequest("'expires_at' must be in the future and before the year 10000.", param="expires_at")
    return at.timestamp()


def _changes(body: KeyChangesBody, before: KeyRecord, now: float) -> KeyChanges:
    networks: tuple[str, ...] | UnsetType | None = UNSET
    if body.networks is not UNSET:
        networks = None if body.networks is None else parse_networks(body.networks)
    return KeyChanges(
        name=body.name,
        models=UNSET if body.models is UNSET else to_models(body.models),
        networks=networks,
        priority=body.priority,
        allowance=to_allowance(body, before.allowance),
        budget=to_budget(body, before.budget),
        expires_at=UNSET if body.expires_at is UNSET else to_expiry(body.expires_at, None, now),
    )
