import stat

import pytest

from stellwerk.auth.admin import ADMIN_KEY_FILE, ensure_admin_key
from stellwerk.auth.keys import list_keys, revoke_key
from stellwerk.core.principal import Role


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
