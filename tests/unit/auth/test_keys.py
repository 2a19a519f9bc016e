import sqlite3
from contextlib import closing

import pytest

from stellwerk.auth.keys import (
    KeyChanges,
    KeyLimit,
    NewKey,
    change_key,
    changed_keys,
    create_key,
    find_key,
    has_keys,
    import_key,
    key_counts,
    list_keys,
    revoke_key,
)
from stellwerk.auth.users import NewUser, UserChanges, change_user, create_user, find_user
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.principal import Allowance, Budget, Priority, Role, Window
from stellwerk.core.secrets import Secret


@pytest.fixture
def create(database, digest, clock):
    def create(name="a key", **fields):
        key = NewKey(name=name, **fields)
        return database.write(lambda connection: create_key(connection, key, digest, now=clock.now()))

    return create


@pytest.fixture
def user(database, clock):
    """A person's account; keys of hers are bounded."""
    return database.write(lambda connection: create_user(connection, NewUser(email="ann@example.org"), now=clock.now()))


@pytest.fixture
def change(database):
    def change(key_id, **fields):
        return database.write(lambda connection: change_key(connection, key_id, KeyChanges(**fields)))

    return change


def refusal(do, *values, **fields):
    with pytest.raises((BadRequest, NotFound)) as raised:
        do(*values, **fields)
    return raised.value.code


def test_a_key_is_stored_with_all_that_it_may_do(create, database, user):
    record, token = create(
        user_id=user.id,
        role=Role.ADMIN,
        models=frozenset({"b", "a"}),
        networks=("10.1.2.3/8", "::1"),
        priority=Priority.LOW,
        allowance=Allowance(requests_per_minute=60, burst=0, tokens_per_minute=10**9, concurrent_requests=2),
        budget=Budget(amount=7, window=Window.MONTH),
        expires_at=2_000_000.0,
    )
    assert database.read(list_keys) == [record]
    assert database.read(lambda connection: find_key(connection, record.id)) == record
    assert record.hint == f"sk-sw-…{token.reveal()[-4:]}"
    assert (record.user_id, record.models, record.role) == (user.id, {"a", "b"}, Role.ADMIN)
    assert record.networks == ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(("role", "owner"), [(Role.USER, "local"), (Role.VIEWER, "admin"), (Role.ADMIN, "admin")])
def test_a_key_made_for_nobody_belongs_to_the_built_in_account_of_its_role(create, database, role, owner):
    record, _ = create(role=role)
    assert database.read(lambda connection: find_user(connection, record.user_id)).email == owner


def test_a_plain_key_of_who_looks_on_looks_on(create, database, user):
    database.write(lambda connection: change_user(connection, user.id, UserChanges(role=Role.VIEWER)))
    assert create(user_id=user.id)[0].role is Role.VIEWER


def test_nobody_gets_a_key_that_may_look_on_without_being_one_who_may(create, user):
    assert refusal(create, user_id=user.id, role=Role.VIEWER) == "invalid_role"


def test_a_key_is_made_only_for_somebody_who_may_come_in(create, database, user):
    assert refusal(create, user_id=99) == "user_not_found"
    database.write(lambda connection: change_user(connection, user.id, UserChanges(active=False)))
    assert refusal(create, user_id=user.id) == "user_not_found"
    assert database.read(list_keys) == []


def test_a_key_that_cannot_be_so_is_not_made(create, database):
    assert refusal(create, "") == "invalid_name"
    assert refusal(create, models=frozenset({"a\nb"})) == "invalid_models"
    assert refusal(create, networks=("nowhere",)) == "invalid_networks"
    assert refusal(create, allowance=Allowance(burst=-1)) == "invalid_limit"
    assert database.read(list_keys) == []


def test_a_person_has_a_hundred_active_keys_at_most(create, database, digest, user, clock):
    def fill(connection):
        for n in range(99):
            create_key(connection, NewKey(name=f"{n}", user_id=user.id), digest, now=clock.now())

    database.write(fill)
    create(user_id=user.id, expires_at=clock.now() + 10)
    assert refusal(create, user_id=user.id) == "too_many_keys"
    clock.at += 10
    last, _ = create(user_id=user.id)
    assert refusal(create, user_id=user.id) == "too_many_keys"
    database.write(lambda connection: revoke_key(connection, last.id, now=clock.now()))
    create(user_id=user.id)
    assert database.read(key_counts) == {user.id: 101}
    assert database.read(lambda connection: key_counts(connection, now=clock.now())) == {user.id: 100}


def test_keys_that_belong_to_nobody_are_bounded_by_the_table_alone(create, database, digest, clock):
    def fill(connection):
        for n in range(101):
            create_key(connection, NewKey(name=f"{n}"), digest, now=clock.now())

    database.write(fill)
    assert list(database.read(key_counts).values()) == [101]


def test_keys_are_listed_by_user_oldest_first(create, database, user, clock):
    first, _ = create(user_id=user.id)
    create()
    clock.at += 1
    second, _ = create(user_id=user.id)
    assert database.read(lambda connection: list_keys(connection, user.id)) == [first, second]
    assert len(database.read(list_keys)) == 3
    assert database.read(lambda connection: list_keys(connection, 99)) == []


def test_only_what_is_set_is_changed(create, change, database):
    record, _ = create(networks=("::1",), models=frozenset("a"), expires_at=5.0)
    before, after = change(record.id, name=" new ", networks=("::ffff:10.0.0.1",), priority=Priority.LOW)
    assert before == record
    assert (after.name, after.networks, after.models, after.expires_at) == ("new", ("10.0.0.1/32",), {"a"}, 5.0)
    _, after = change(
        record.id, networks=None, models=None, expires_at=None, budget=Budget(amount=1, window=Window.DAY)
    )
    assert database.read(list_keys) == [after]
    assert (after.networks, after.models, after.expires_at, after.digest) == (None, None, None, record.digest)
    assert database.read(lambda connection: changed_keys(connection, before.revision)) == [after]


def test_a_change_that_changes_nothing_is_none(create, change, database):
    record, _ = create(networks=("::1",))
    assert change(record.id, name=record.name, networks=("::1",)) == (record, record)
    assert database.read(lambda connection: changed_keys(connection, record.revision)) == []


def test_what_cannot_be_so_is_not_taken_over(create, change, database):
    record, _ = create()
    assert refusal(change, "nobody", name="x") == "key_not_found"
    assert refusal(change, record.id, name="") == "invalid_name"
    assert refusal(change, record.id, networks=("x",)) == "invalid_networks"
    assert refusal(change, record.id, budget=Budget(amount=-1, window=Window.DAY)) == "invalid_limit"
    assert database.read(list_keys) == [record]


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


# --- keys that were made elsewhere

FOREIGN = "5f0c1d7be2" * 4


@pytest.fixture
def bring(database, digest, clock):
    def bring(text=FOREIGN, created_at=1.0, **fields):
        key = NewKey(name="brought", **fields)
        return database.write(
            lambda connection: import_key(connection, key, Secret(text), digest, created_at=created_at, now=clock.now())
        )

    return bring


def test_a_key_that_was_made_elsewhere_is_known_by_its_own_text(bring, database, digest, clock):
    record, is_new = bring()
    assert is_new
    assert (record.digest, record.last_four, record.created_at) == (digest(FOREIGN.encode()), "7be2", 1.0)
    assert record.hint == "…7be2"
    assert database.read(lambda connection: find_key(connection, record.id)) == record


def test_a_key_is_brought_once(bring):
    record, _ = bring()
    assert bring() == (record, False)


def test_no_key_comes_from_the_future(bring, clock):
    assert bring(created_at=clock.now() + 1000)[0].created_at == clock.now()


@pytest.mark.parametrize("text", ["", "short", "a" * 40, "x" * 513, "with a blank inside it 5f0c", "ü" * 20])
def test_what_can_be_guessed_or_never_sent_is_not_taken(bring, text):
    assert refusal(bring, text) == "weak_key"


def test_a_key_that_is_brought_needs_room_and_an_owner(bring, database, digest, clock):
    assert refusal(bring, user_id=99) == "user_not_found"
    with pytest.raises(KeyLimit):
        database.write(
            lambda connection: import_key(
                connection, NewKey(name="k"), Secret(FOREIGN), digest, created_at=1, now=clock.now(), most=0
            )
        )
