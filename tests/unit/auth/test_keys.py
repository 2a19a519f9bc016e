import sqlite3
from contextlib import closing

import pytest

from stellwerk.auth.keys import KeyLimit, NewKey, changed_keys, create_key, has_keys, list_keys, revoke_key
from stellwerk.core.principal import Role


@pytest.fixture
def create(database, digest, clock):
    def create(name="a key", **fields):
        key = NewKey(name=name, **fields)
        return database.write(lambda connection: create_key(connection, key, digest, now=clock.now()))

    return create


def test_a_key_is_stored_with_all_that_it_may_do(create, database):
    record, token = create(
        role=Role.VIEWER,
        models=frozenset({"b", "a"}),
        requests_per_minute=60,
        concurrent_requests=2,
        expires_at=2_000_000.0,
    )
    assert database.read(list_keys) == [record]
    assert record.hint == f"sk-sw-…{token.reveal()[-4:]}"
    assert record.models == {"a", "b"}
    assert record.role is Role.VIEWER


def test_neither_the_key_nor_its_secret_part_stands_in_the_database(create, database):
    _, token = create()
    with closing(sqlite3.connect(database.path)) as connection:
        dump = "\n".join(connection.iterdump())
    secret = token.reveal().split("-", 3)[3]
    assert secret[:-4] not in dump
    assert secret.encode().hex() not in dump.lower()


def test_no_models_and_all_models_are_different(create, database, clock):
    create("all")
    clock.at += 1
    create("none", models=frozenset())
    assert [record.models for record in database.read(list_keys)] == [None, frozenset()]


def test_a_key_is_active_until_it_expires_or_is_revoked(create, database, clock):
    record, _ = create(expires_at=clock.now() + 10)
    assert record.state(clock.now()) == "active"
    assert record.state(clock.now() + 10) == "expired"
    assert database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    (record,) = database.read(list_keys)
    assert record.state(clock.now()) == "revoked"


def test_a_key_is_revoked_once(create, database, clock):
    record, _ = create()
    clock.at += 1
    first = database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    clock.at += 1
    second = database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    assert (first, second) == (True, False)
    assert database.read(list_keys)[0].revoked_at == 1_000_001.0
    assert not database.write(lambda connection: revoke_key(connection, "nobody", now=0))


def test_only_what_has_changed_is_read_again(create, database, clock):
    records = [create(f"key {n}")[0] for n in range(3)]
    last = max(record.revision for record in records)
    assert database.read(lambda connection: changed_keys(connection, last)) == []
    database.write(lambda connection: revoke_key(connection, records[0].id, now=clock.now()))
    assert [record.id for record in database.read(lambda connection: changed_keys(connection, last))] == [records[0].id]


def test_it_is_known_whether_there_ever_was_a_key_of_a_role(create, database):
    assert not database.read(has_keys)
    create()
    assert database.read(has_keys)
    assert not database.read(lambda connection: has_keys(connection, Role.ADMIN))


def test_a_full_table_takes_no_further_key(create, database, digest, clock):
    create()
    with pytest.raises(KeyLimit, match="1 keys"):
        database.write(lambda connection: create_key(connection, NewKey(name="b"), digest, now=clock.now(), most=1))
    assert len(database.read(list_keys)) == 1
