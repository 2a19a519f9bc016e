import stat

import pytest

from stellwerk.auth.admin import ADMIN_KEY_FILE, ensure_admin_key, ensure_built_in_users
from stellwerk.auth.keys import list_keys, revoke_key
from stellwerk.auth.users import find_user, list_users
from stellwerk.core.principal import Role


def test_a_fresh_folder_gets_its_two_accounts_once(database):
    database.write(lambda connection: ensure_built_in_users(connection, 5.0))
    users = database.read(list_users)
    assert [(user.id, user.email, user.created_at) for user in users] == [(2, "local", 5.0), (1, "admin", 5.0)]
    database.write(lambda connection: ensure_built_in_users(connection, 6.0))
    assert database.read(list_users) == users


def test_the_admin_key_belongs_to_the_built_in_admin(database, digest, clock):
    ensure_admin_key(database, digest, clock)
    (record,) = database.read(list_keys)
    owner = database.read(lambda connection: find_user(connection, record.user_id))
    assert (owner.email, owner.role) == ("admin", Role.ADMIN)


def test_a_fresh_folder_gets_one_admin_key(database, digest, clock):
    token = ensure_admin_key(database, digest, clock)
    assert ensure_admin_key(database, digest, clock) is None
    (record,) = database.read(list_keys)
    assert (record.name, record.role) == ("admin", Role.ADMIN)
    assert record.digest == digest(token.reveal().encode())


def test_a_revoked_admin_key_is_not_replaced_by_itself(database, digest, clock):
    ensure_admin_key(database, digest, clock)
    (record,) = database.read(list_keys)
    database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    assert ensure_admin_key(database, digest, clock) is None


def test_without_a_terminal_the_key_lies_in_a_file_for_its_owner(database, digest, clock, folder):
    path = folder / ADMIN_KEY_FILE
    token = ensure_admin_key(database, digest, clock, keep_in=path)
    assert path.read_text().strip() == token.reveal()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_could_not_be_kept_does_not_count(database, digest, clock, folder):
    with pytest.raises(OSError, match="No such file"):
        ensure_admin_key(database, digest, clock, keep_in=folder / "missing" / ADMIN_KEY_FILE)
    assert database.read(list_keys) == []
    assert ensure_admin_key(database, digest, clock) is not None
