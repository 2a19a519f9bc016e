"""Every administrative change, each with its audit record in the same transaction; for the API and the command line.

All take the connection of a writing transaction and the actor first. Amounts are micro units of the ledger's
currency, times Unix seconds; errors are those of the tables' own functions.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection

from stellwerk.auth import keys as key_table
from stellwerk.auth import logins, signups
from stellwerk.auth import users as user_table
from stellwerk.auth.keys import KeyChanges, KeyRecord, NewKey
from stellwerk.auth.tokens import Digest
from stellwerk.auth.users import NewUser, UserChanges, UserRecord
from stellwerk.core.errors import Conflict, NotFound
from stellwerk.core.principal import Role
from stellwerk.core.secrets import Secret
from stellwerk.ledger import accounts, budgets, tariff
from stellwerk.ledger.accounts import Balance
from stellwerk.ledger.tariff import NewPrice, PriceRow
from stellwerk.records import audit
from stellwerk.records import settings as setting_table
from stellwerk.records.audit import Actor

_UNRECORDED = frozenset({"id", "revision", "digest", "last_four", "created_at"})


def create_user(
    connection: Connection, actor: Actor, new: NewUser, *, now: float, password: str | None = None
) -> UserRecord:
    """`password` is already encoded. Raises BadRequest for an address that is taken or none."""
    user = user_table.create_user(connection, new, now=now)
    if password is not None:
        user_table.store_password(connection, user.id, password, now=now)
        user = find_user(connection, user.id)
    audit.append(connection, actor, "user.create", _user(user.id), _facts(user), now=now)
    return user


def change_user(
    connection: Connection, actor: Actor, user_id: int, changes: UserChanges, *, now: float, own_id: int = 0
) -> UserRecord:
    """`own_id` is the user who does it. Raises Conflict, code `last_admin`, for who would lock administrators out.

    Who is disabled is also logged out. A change that changes nothing leaves no record.
    """
    before, after = user_table.change_user(connection, user_id, changes)
    if _is_admin(before) and not _is_admin(after):
        _check_admins(connection, user_id, own_id)
    if before.active and not after.active:
        logins.end_logins_of(connection, user_id, "disabled", now)
    if after.budget is not None and after.budget != before.budget:
        budgets.recount(connection, budgets.Limit(user_id=user_id, key_id=None, budget=after.budget), now)
    differences = _differences(_facts(before), _facts(after))
    if differences:
        audit.append(connection, actor, "user.change", _user(user_id), differences, now=now)
    return after


def set_password(connection: Connection, actor: Actor, user_id: int, encoded: str | None, *, now: float) -> None:
    """Sets or removes a password and ends every login of the user. Raises NotFound."""
    find_user(connection, user_id)
    user_table.store_password(connection, user_id, encoded, now=now)
    logins.end_logins_of(connection, user_id, "password", now)
    audit.append(connection, actor, "user.password", _user(user_id), {"removed": encoded is None}, now=now)


def create_key(
    connection: Connection, actor: Actor, key: NewKey, digest: Digest, *, now: float
) -> tuple[KeyRecord, Secret]:
    """The stored key and its text, which is never seen again. Raises NotFound for an unknown user, and KeyLimit."""
    if key.user_id is not None:
        find_user(connection, key.user_id)
    record, token = key_table.create_key(connection, key, digest, now=now)
    audit.append(connection, actor, "key.create", _key(record.id), _facts(record), now=now)
    return record, token


def import_key(
    connection: Connection,
    actor: Actor,
    key: NewKey,
    token: Secret,
    digest: Digest,
    *,
    created_at: float,
    now: float,
) -> tuple[KeyRecord, bool]:
    """Takes over a key that was made elsewhere; returns it and whether it is new. Raises as `create_key` does, and
    BadRequest, code `weak_key`."""
    record, made = key_table.import_key(connection, key, token, digest, created_at=created_at, now=now)
    if made:
        audit.append(connection, actor, "key.import", _key(record.id), _facts(record), now=now)
    return record, made


def change_key(connection: Connection, actor: Actor, key_id: str, changes: KeyChanges, *, now: float) -> KeyRecord:
    """Raises NotFound. A change that changes nothing leaves no record."""
    before, after = key_table.change_key(connection, key_id, changes)
    if after.budget is not None and after.budget != before.budget:
        budgets.recount(connection, budgets.Limit(user_id=None, key_id=key_id, budget=after.budget), now)
    differences = _differences(_facts(before), _facts(after))
    if differences:
        audit.append(connection, actor, "key.change", _key(key_id), differences, now=now)
    return after


def revoke_key(connection: Connection, actor: Actor, key_id: str, *, now: float) -> KeyRecord:
    """Ends a key for good; one that was ended before stays as it was. Raises NotFound."""
    revoked = key_table.revoke_key(connection, key_id, now=now)
    record = key_table.find_key(connection, key_id)
    if record is None:
        raise NotFound("There is no such key.", code="key_not_found")
    if revoked:
        details = {"user_id": record.user_id, "name": record.name}
        audit.append(connection, actor, "key.revoke", _key(key_id), details, now=now)
    return record


def top_up(
    connection: Connection, actor: Actor, user_id: int, amount: int, *, note: str, now: float, currency: str
) -> Balance:
    """Books money that came in. Raises NotFound, and BadRequest for an amount that is not above zero."""
    find_user(connection, user_id)
    after = accounts.top_up(connection, user_id, amount, note=note, actor=actor.name, now=now, currency=currency)
    details = {"amount": amount, "currency": currency, "note": note}
    audit.append(connection, actor, "balance.top_up", _user(user_id), details, now=now)
    return after


def correct(
    connection: Connection, actor: Actor, user_id: int, amount: int, *, note: str, now: float, currency: str
) -> Balance:
    """Books a signed difference. Raises NotFound, and BadRequest where the balance would fall below zero."""
    find_user(connection, user_id)
    after = accounts.correct(connection, user_id, amount, note=note, actor=actor.name, now=now, currency=currency)
    details = {"amount": amount, "currency": currency, "note": note}
    audit.append(connection, actor, "balance.correct", _user(user_id), details, now=now)
    return after


def set_balance(
    connection: Connection, actor: Actor, user_id: int, balance: int, *, note: str, now: float, currency: str
) -> int:
    """Books the difference that makes the balance this one and returns it. Raises NotFound, BadRequest."""
    find_user(connection, user_id)
    difference = accounts.set_balance(
        connection, user_id, balance, note=note, actor=actor.name, now=now, currency=currency
    )
    if difference:
        details = {"amount": difference, "balance": balance, "currency": currency, "note": note}
        audit.append(connection, actor, "balance.correct", _user(user_id), details, now=now)
    return difference


def add_price(connection: Connection, actor: Actor, new: NewPrice, *, now: float, currency: str) -> PriceRow:
    """Raises BadRequest for a price that cannot be."""
    row = tariff.add_price(connection, new, actor=actor.name, now=now, currency=currency)
    audit.append(connection, actor, "price.add", f"price:{row.model}", _facts(row), now=now)
    return row


def change_settings(connection: Connection, actor: Actor, changes: Mapping[str, Any], *, now: float) -> dict[str, Any]:
    """All settings that were changed while the gateway ran. None goes back to the file. Raises BadRequest."""
    before, after = setting_table.change_settings(connection, changes, actor.name, now=now)
    differences = _differences(msgspec.to_builtins(before), msgspec.to_builtins(after))
    if differences:
        audit.append(connection, actor, "settings.change", "settings", differences, now=now)
    return dict(after)


def approve_signup(
    connection: Connection, actor: Actor, signup_id: int, digest: Digest, *, now: float
) -> signups.Approval:
    """Makes the user and a key. Raises NotFound and BadRequest: decided before, or the address is taken."""
    approval = signups.approve(connection, signup_id, digest, decided_by=actor.name, now=now)
    details = {"email": approval.user.email, "user_id": approval.user.id, "key_id": approval.key.id}
    audit.append(connection, actor, "signup.approve", f"signup:{signup_id}", details, now=now)
    return approval


def reject_signup(connection: Connection, actor: Actor, signup_id: int, *, now: float) -> signups.Signup:
    """Raises NotFound, and BadRequest when it was decided before."""
    signup = signups.reject(connection, signup_id, decided_by=actor.name, now=now)
    details = {"email": signup.email}
    audit.append(connection, actor, "signup.reject", f"signup:{signup_id}", details, now=now)
    return signup


def find_user(connection: Connection, user_id: int) -> UserRecord:
    """Raises NotFound."""
    user = user_table.find_user(connection, user_id)
    if user is None:
        raise user_table.unknown_user()
    return user


def _is_admin(user: UserRecord) -> bool:
    return user.active and user.role is Role.ADMIN


def _check_admins(connection: Connection, user_id: int, own_id: int) -> None:
    if user_id == own_id:
        raise Conflict("You cannot disable or demote yourself; another administrator can.", code="last_admin")
    if not any(_is_admin(user) for user in user_table.list_users(connection)):
        raise Conflict("This is the last active administrator.", code="last_admin")


def _user(user_id: int) -> str:
    return f"user:{user_id}"


def _key(key_id: str) -> str:
    return f"key:{key_id}"


def _facts(record: msgspec.Struct) -> dict[str, Any]:
    """What a record says, as JSON has it; sets sorted, so that equal ones look equal."""
    values = msgspec.structs.asdict(record)
    ordered = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in values.items()
        if name not in _UNRECORDED
    }
    facts: dict[str, Any] = msgspec.to_builtins(ordered)
    return facts


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Each name whose value differs, with its value of before and after."""
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    }
