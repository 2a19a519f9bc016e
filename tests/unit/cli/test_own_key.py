import contextlib

from stellwerk.auth.keys import list_keys
from stellwerk.cli.chat import find_key
from stellwerk.core.principal import Role
from stellwerk.storage.database import open_database


def test_who_owns_the_data_folder_gets_a_user_key_once_and_keeps_it(tmp_path):
    open_database(tmp_path).close()
    first = find_key(None, {}, tmp_path, look_into_folder=True)
    again = find_key(None, {}, tmp_path, look_into_folder=True)
    with contextlib.closing(open_database(tmp_path)) as database:
        records = database.read(list_keys)
    assert first == again
    assert [(record.name, record.role) for record in records] == [("stellwerk chat", Role.USER)]
    assert (tmp_path / "chat.key").stat().st_mode & 0o777 == 0o600
