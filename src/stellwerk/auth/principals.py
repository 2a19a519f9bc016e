"""Who somebody is with a key or a login: what his account and what the key allow, put together."""

from stellwerk.auth.keys import KeyRecord
from stellwerk.auth.networks import read_networks
from stellwerk.auth.users import UserRecord
from stellwerk.core.principal import Allowance, Principal, Priority, Role

ENVIRONMENT_KEY_ID = "environment"
LOGIN_PREFIX = "login-"
"""Before the id of a login where the id of a key would stand."""


def combine_roles(user: Role, key: Role) -> Role | None:
    """What a key makes of its user: what both of them may be, so that it never reaches further than its user does now.

    None when that is nothing: who looks on may not spend, and who spends may not look on.
    """
    if user is Role.ADMIN:
        return key
    return user if key in (user, Role.ADMIN) else None


def principal_of_key(key: KeyRecord, user: UserRecord) -> Principal:
    models = key.models if user.models is None else user.models
    if key.models is not None and user.models is not None:
        models = key.models & user.models
    return Principal(
        key_id=key.id,
        name=key.name,
        # Without a common role nobody becomes this principal.
        role=combine_roles(user.role, key.role) or user.role,
        user_id=user.id,
        tier=user.tier,
        models=models,
        networks=None if key.networks is None else read_networks(key.networks),
        priority=key.priority,
        allowance=key.allowance,
        user_allowance=user.allowance,
        budget=key.budget,
        user_budget=user.budget,
    )


def principal_of_login(login_id: str, user: UserRecord) -> Principal:
    return Principal(
        key_id=f"{LOGIN_PREFIX}{login_id}",
        name=user.email,
        role=user.role,
        user_id=user.id,
        tier=user.tier,
        models=user.models,
        user_allowance=user.allowance,
        user_budget=user.budget,
    )


def environment_key(user_id: int, digest: bytes) -> KeyRecord:
    return KeyRecord(
        id=ENVIRONMENT_KEY_ID,
        revision=0,
        user_id=user_id,
        name="admin",
        role=Role.ADMIN,
        models=None,
        networks=None,
        priority=Priority.HIGH,
        allowance=Allowance(),
        budget=None,
        created_at=0.0,
        expires_at=None,
        revoked_at=None,
        digest=digest,
        last_four="",
    )
