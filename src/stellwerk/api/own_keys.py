"""/user/api/keys: people who make and revoke their own keys."""

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from stellwerk.api import _examples as examples
from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import KeyId, KeyShape, NewKeyShape, show_new_key, to_allowance
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.keys import KEY_ROLES, NewKeyBody, RevokedKey, show_keys, to_new_key
from stellwerk.auth.keys import KeyRecord, find_key, list_keys
from stellwerk.auth.principals import combine_roles
from stellwerk.core.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable
from stellwerk.core.principal import CALLERS, READERS, Allowance, Principal, Priority, Role
from stellwerk.records.audit import Actor

_TAG = "Account"
_MOST_KEYS = 1_000
"""Revoked ones included: rows stay, and one user must not fill the table."""


class OwnKeysAPI:
    """`usual` are the limits that the configuration gives to every key."""

    def __init__(self, administration: Administration, usual: Callable[[], Allowance]) -> None:
        self._administration = administration
        self._usual = usual

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/user/api/keys",
                access=READERS,
                tag=_TAG,
                summary="List the own keys, newest first",
                handler=self._list,
                answer=list[KeyShape],
                example=[examples.KEY],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="POST",
                path="/user/api/keys",
                access=CALLERS,
                tag=_TAG,
                summary="Make a key of one's own",
                description="With a login, or with a key that has no limits of its own. The new key may be what the "
                "caller is, or less, and its limits tighter than the usual ones. Its text is in this answer and never "
                "comes again.",
                handler=self._create,
                body=NewKeyBody,
                body_example={"name": "laptop", "expires_in_days": 90, "budget": 5.0, "budget_window": "week"},
                answer=NewKeyShape,
                example=examples.NEW_KEY,
                errors=(Conflict, Unavailable),
            ),
            Endpoint(
                method="DELETE",
                path="/user/api/keys/{key_id}",
                access=CALLERS,
                tag=_TAG,
                summary="Revoke a key of one's own",
                description="With a login or a key that may be as much as the one that ends.",
                handler=self._revoke,
                path_parameters={"key_id": KeyId},
                answer=RevokedKey,
                example={"status": "deleted"},
                errors=(NotFound, Unavailable),
            ),
        )

    async def _list(self, asked: Asked) -> list[KeyShape]:
        caller, now = asked.caller, self._administration.clock.now()
        return await self._administration.fetch(
            lambda connection: show_keys(connection, keys_of(connection, caller)[::-1], now)
        )

    async def _create(self, asked: Asked) -> NewKeyShape:
        body: NewKeyBody = asked.body
        caller, digest = asked.caller, self._administration.digest
        if caller.role is not Role.ADMIN:
            _check_limits(to_allowance(body, Allowance()), self._usual())
        if body.user_id is not None and body.user_id != caller.user_id:
            raise BadRequest("The 'user_id' is not your own.", param="user_id")
        role = caller.role if body.role is None else body.role
        if role not in KEY_ROLES[caller.role]:
            raise BadRequest(f"A key that is made with the role '{caller.role}' cannot be '{role}'.", param="role")

        def create(connection: Connection, actor: Actor, now: float) -> NewKeyShape:
            if _shares_account(connection, caller):
                raise Forbidden("This key belongs to no user: an administrator makes others.", code="shared_account")
            _check_unrestricted(find_key(connection, caller.key_id), caller)
            if len(list_keys(connection, caller.user_id)) >= _MOST_KEYS:
                raise Conflict("You have made too many keys; an administrator can make more.", code="too_many_keys")
            key = to_new_key(body, caller.user_id, role, now)
            record, token = actions.create_key(connection, actor, key, digest, now=now)
            return show_new_key(record, token.reveal(), now)

        return await self._administration.change(asked, create)

    async def _revoke(self, asked: Asked) -> RevokedKey:
        key_id, caller = asked.parameters["key_id"], asked.caller

        def revoke(connection: Connection, actor: Actor, now: float) -> None:
            key = next((key for key in keys_of(connection, caller) if key.id == key_id), None)
            if key is None:
                raise NotFound("There is no such key.", code="key_not_found")
            _check_reach(connection, key, caller)
            actions.revoke_key(connection, actor, key_id, now=now)

        await self._administration.change(asked, revoke)
        return RevokedKey(status="deleted")


def keys_of(connection: Connection, caller: Principal) -> list[KeyRecord]:
    """The keys that are the caller's to see and to revoke, oldest first."""
    keys = list_keys(connection, caller.user_id)
    return [key for key in keys if key.id == caller.key_id] if _shares_account(connection, caller) else keys


def _shares_account(connection: Connection, caller: Principal) -> bool:
    """Keys that were made for no user share a built-in account, and whoever has one must not reach the others."""
    user = actions.find_user(connection, caller.user_id)
    return user.is_built_in and caller.role is not Role.ADMIN


def _check_limits(wanted: Allowance, usual: Allowance) -> None:
    """A key's own limits go before the usual ones, so who makes it for himself may only choose tighter ones.

    Raises BadRequest. 0 is unlimited, and refused even where that is usual now: it would outlast a change of that.
    """
    for name, most in msgspec.structs.asdict(usual).items():
        limit = getattr(wanted, name)
        if limit is not None and (limit == 0 or 0 < (most or 0) < limit):
            allowed = f"from 1 to {most}" if most else "more than 0"
            raise BadRequest(f"'{name}' of a key of your own must be {allowed}.", param=name, code="invalid_limit")


def _check_reach(connection: Connection, key: KeyRecord, caller: Principal) -> None:
    """Whoever gets hold of a lesser key must not shut out the better ones with it. Raises Forbidden."""
    role = combine_roles(actions.find_user(connection, key.user_id).role, key.role)
    if role is not None and role not in KEY_ROLES[caller.role]:
        raise Forbidden(f"With the role '{caller.role}' a key of the role '{role}' cannot be revoked.")


def _check_unrestricted(own: KeyRecord | None, caller: Principal) -> None:
    """A key with limits must not make one without. Raises Forbidden; a login has no key and no limits of its own."""
    if own is None:
        return
    if (
        own.expires_at is not None
        or own.networks is not None
        or own.models is not None
        or own.budget is not None
        or own.allowance != Allowance()
        or own.priority is not Priority.HIGH
    ):
        raise Forbidden(f"The key '{caller.name}' has limits of its own, so it cannot make keys.", code="limited_key")
