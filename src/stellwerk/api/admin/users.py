"""/admin/api/users: who may come in, as what, and how much."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from stellwerk.api import _examples as examples
from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import (
    Amount,
    Email,
    LimitFields,
    Models,
    Name,
    Password,
    UserId,
    UserShape,
    show_user,
    to_allowance,
    to_budget,
    to_micro,
    to_models,
)
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.auth.keys import key_counts
from stellwerk.auth.passwords import check_new_password
from stellwerk.auth.users import NewUser, UserChanges, UserRecord, check_email, list_users, role_for_tier
from stellwerk.core.errors import Conflict, NotFound, Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS, Allowance, Role, Tier
from stellwerk.core.secrets import Secret
from stellwerk.ledger.accounts import balance, balances
from stellwerk.ledger.reports import usage_of_user, usage_of_users
from stellwerk.records.audit import Actor

_TAG = "Users"
_PATH = "/admin/api/users"
_NOTE = "Set by an administrator"


class UsersQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which users; the newest come first."""

    search: Annotated[str, Meta(max_length=254, description="Part of an e-mail address or name.")] = ""
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 10_000
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0


class NewUserBody(LimitFields, kw_only=True, forbid_unknown_fields=True):
    """A user to make. Without `role` the tier `admin` makes an administrator."""

    email: Email
    tier: Tier = Tier.PAYG
    name: Name = ""
    role: Role | None = None
    password: Password | None = None
    balance: Amount = 0
    models: Models | None = None


class UserChangesBody(LimitFields, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays."""

    email: Email | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    tier: Tier | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    balance: Annotated[Amount, Meta(description="Booked as a correction by the difference.")] | UnsetType = UNSET
    models: Models | UnsetType | None = UNSET


class ChangedUser(msgspec.Struct, kw_only=True):
    """The user after the change."""

    status: str
    user: UserShape


class PasswordBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new password; null takes the password away, so that only keys are left."""

    password: Password | None


class StoredPassword(msgspec.Struct, kw_only=True):
    """Whoever was logged in is so no more."""

    status: str


class UsersAPI:
    """`hash_password` encodes a password in a thread of its own."""

    def __init__(self, administration: Administration, hash_password: Callable[[Secret], Awaitable[str]]) -> None:
        self._administration = administration
        self._hash_password = hash_password

    def register(self, registry: Registry) -> None:
        registry.add(*self._of_everybody(), *self._of_one())

    def _of_everybody(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                method="GET",
                path=_PATH,
                access=OBSERVERS,
                tag=_TAG,
                summary="List users, newest first",
                handler=self._list,
                query=UsersQuery,
                answer=list[UserShape],
                example=[examples.USER],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="POST",
                path=_PATH,
                access=ADMINS,
                tag=_TAG,
                summary="Make a user",
                handler=self._create,
                body=NewUserBody,
                body_example={"email": "ada@example.org", "tier": "payg", "name": "Ada", "balance": 25.0},
                answer=UserShape,
                example=examples.USER,
                errors=(Unavailable,),
            ),
        )

    def _of_one(self) -> tuple[Endpoint, ...]:
        path, one = f"{_PATH}/{{user_id}}", {"user_id": UserId}
        return (
            Endpoint(
                method="GET",
                path=path,
                access=OBSERVERS,
                tag=_TAG,
                summary="Show a user",
                handler=self._show,
                path_parameters=one,
                answer=UserShape,
                example=examples.USER,
                errors=(NotFound, Unavailable),
            ),
            Endpoint(
                method="PATCH",
                path=path,
                access=ADMINS,
                tag=_TAG,
                summary="Change a user",
                description="Moving to the tier `admin` makes an administrator, and moving away from it makes a user, "
                "unless `role` says otherwise. Who is disabled is logged out at once.",
                handler=self._change,
                path_parameters=one,
                body=UserChangesBody,
                body_example={"tier": "sub", "active": True, "balance": 50.0, "requests_per_minute": 60},
                answer=ChangedUser,
                example={"status": "updated", "user": examples.USER},
                errors=(NotFound, Conflict, Unavailable),
            ),
            Endpoint(
                method="PUT",
                path=f"{path}/password",
                access=ADMINS,
                tag=_TAG,
                summary="Set or remove a user's password",
                description="Ends all logins of the user.",
                handler=self._set_password,
                path_parameters=one,
                body=PasswordBody,
                body_example={"password": "correct horse battery"},
                answer=StoredPassword,
                example={"status": "updated"},
                errors=(NotFound, Unavailable),
            ),
        )

    async def _list(self, asked: Asked) -> list[UserShape]:
        query: UsersQuery = asked.query
        now = self._administration.clock.now()

        def read(connection: Connection) -> list[UserShape]:
            text = query.search.strip().casefold()
            users = [user for user in list_users(connection) if text in f"{user.email}\n{user.name}".casefold()]
            money, keys, usage = balances(connection), key_counts(connection, now=now), usage_of_users(connection)
            return [
                show_user(user, money.get(user.id), keys.get(user.id, 0), usage.get(user.id))
                for user in users[query.offset : query.offset + query.limit]
            ]

        return await self._administration.fetch(read)

    async def _show(self, asked: Asked) -> UserShape:
        user_id, now = asked.parameters["user_id"], self._administration.clock.now()
        return await self._administration.fetch(
            lambda connection: _shown(connection, actions.find_user(connection, user_id), now)
        )

    async def _create(self, asked: Asked) -> UserShape:
        body: NewUserBody = asked.body
        email = check_email(body.email)
        encoded = await self._encode(body.password, email)
        opening = to_micro(body.balance, "balance")
        new = NewUser(
            email=email,
            name=body.name,
            role=role_for_tier(body.tier, body.role, None),
            tier=body.tier,
            models=to_models(body.models),
            allowance=to_allowance(body, Allowance()),
            budget=to_budget(body, None),
        )
        currency = self._administration.currency

        def create(connection: Connection, actor: Actor, now: float) -> UserShape:
            user = actions.create_user(connection, actor, new, now=now, password=encoded)
            if opening:
                actions.top_up(connection, actor, user.id, opening, note="Opening balance", now=now, currency=currency)
            return _shown(connection, user, now)

        return await self._administration.change(asked, create)

    async def _change(self, asked: Asked) -> ChangedUser:
        body: UserChangesBody = asked.body
        user_id, own_id = asked.parameters["user_id"], asked.caller.user_id
        wanted = None if body.balance is UNSET else to_micro(body.balance, "balance")
        currency = self._administration.currency

        def change(connection: Connection, actor: Actor, now: float) -> UserShape:
            changes = _changes(body, actions.find_user(connection, user_id))
            user = actions.change_user(connection, actor, user_id, changes, now=now, own_id=own_id)
            if wanted is not None:
                actions.set_balance(connection, actor, user_id, wanted, note=_NOTE, now=now, currency=currency)
            return _shown(connection, user, now)

        return ChangedUser(status="updated", user=await self._administration.change(asked, change))

    async def _set_password(self, asked: Asked) -> StoredPassword:
        body: PasswordBody = asked.body
        user_id = asked.parameters["user_id"]
        user = await self._administration.fetch(lambda connection: actions.find_user(connection, user_id))
        encoded = await self._encode(body.password, user.email)
        await self._administration.change(
            asked, lambda connection, actor, now: actions.set_password(connection, actor, user_id, encoded, now=now)
        )
        return StoredPassword(status="updated")

    async def _encode(self, password: str | None, email: str) -> str | None:
        """Raises BadRequest for one that is too easy."""
        if password is None:
            return None
        secret = Secret(password)
        check_new_password(secret, email)
        return await self._hash_password(secret)


def _shown(connection: Connection, user: UserRecord, now: float) -> UserShape:
    return show_user(
        user,
        balance(connection, user.id),
        key_counts(connection, now=now).get(user.id, 0),
        usage_of_user(connection, user.id),
    )


def _changes(body: UserChangesBody, before: UserRecord) -> UserChanges:
    tier = before.tier if body.tier is UNSET else body.tier
    role: Role | UnsetType = body.role
    if role is UNSET and body.tier is not UNSET:
        role = role_for_tier(tier, None, before.role)
    return UserChanges(
        email=body.email,
        name=body.name,
        role=role,
        tier=body.tier,
        active=body.active,
        models=UNSET if body.models is UNSET else to_models(body.models),
        allowance=to_allowance(body, before.allowance),
        budget=to_budget(body, before.budget),
    )
