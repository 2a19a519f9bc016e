import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.auth.users import (
    NewUser,
    UserChanges,
    built_in_user,
    change_user,
    changed_users,
    check_email,
    create_user,
    find_user,
    find_user_by_email,
    list_users,
    read_password,
    role_for_tier,
    store_password,
)
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.principal import Allowance, Budget, Role, Tier, Window

LIMITS = Allowance(requests_per_minute=5, burst=2, tokens_per_minute=10**10, concurrent_requests=3)


@pytest.fixture
def create(database, clock):
    def create(email="ann@example.org", **fields):
        return database.write(
            lambda connection: create_user(connection, NewUser(email=email, **fields), now=clock.now())
        )

    return create


@pytest.fixture
def change(database):
    def change(user_id, **fields):
        return database.write(lambda connection: change_user(connection, user_id, UserChanges(**fields)))

    return change


def refusal(do, *values, **fields):
    with pytest.raises((BadRequest, NotFound)) as raised:
        do(*values, **fields)
    return raised.value.code


def test_a_user_is_stored_with_all_that_was_said(create, database, clock):
    user = create(
        " Ann@Example.ORG ",
        name=" Ann ",
        role=Role.VIEWER,
        tier=Tier.SUB,
        models=frozenset({"b", "a"}),
        allowance=LIMITS,
        budget=Budget(amount=5_000_000, window=Window.WEEK),
    )
    assert database.read(list_users) == [user]
    assert (user.email, user.name, user.active, user.has_password) == ("ann@example.org", "Ann", True, False)
    assert (user.allowance, user.created_at) == (LIMITS, clock.now())
    assert database.read(lambda connection: find_user(connection, user.id)) == user
    assert database.read(lambda connection: find_user_by_email(connection, "ANN@example.org ")) == user
    assert database.read(lambda connection: find_user(connection, user.id + 1)) is None


def test_who_says_nothing_pays_from_a_balance_and_is_a_plain_user(create):
    user = create()
    assert (user.role, user.tier, user.models, user.allowance, user.budget) == (
        Role.USER, Tier.PAYG, None, Allowance(), None,
    )  # fmt: skip


def test_an_address_belongs_to_one_user(create, change, database):
    ann = create("ann@example.org")
    bob = create("bob@example.org")
    assert refusal(create, "ANN@example.org") == "email_taken"
    assert refusal(change, bob.id, email="Ann@example.org") == "email_taken"
    assert change(ann.id, email="ANN@EXAMPLE.ORG") == (ann, ann)
    assert [user.email for user in database.read(list_users)] == ["bob@example.org", "ann@example.org"]


def test_a_refused_user_is_not_stored(create, database):
    assert refusal(create, "nobody") == "invalid_email"
    assert refusal(create, models=frozenset({""})) == "invalid_models"
    assert refusal(create, name="a\nb") == "invalid_name"
    assert refusal(create, allowance=Allowance(burst=-1)) == "invalid_limit"
    assert database.read(list_users) == []


@pytest.mark.parametrize(
    "email",
    [
        "",
        "@",
        "a@",
        "@b",
        "admin",
        "local",
        "a b@c",
        "a@b@c",
        "a@b\n",
        "a\x00@b",
        "a@" + "b" * 253,
        "<a@b>",
        'a"@b',
        "a,b@c",
    ],
)
def test_what_is_no_address_is_refused(email):
    if email.strip() != email:
        assert check_email(email) == email.strip()
    else:
        assert refusal(check_email, email) == "invalid_email"


@given(st.one_of(st.text(max_size=30), st.text("aZ@. \n\t<İς", max_size=12), st.emails()))
def test_an_address_is_refused_or_stays_as_it_was_checked(text):
    try:
        email = check_email(text)
    except BadRequest:
        return
    assert check_email(email) == email
    assert email == email.strip().lower()
    assert email.count("@") == 1
    assert len(email) <= 254


def test_only_what_is_set_is_changed(create, change, database):
    user = create(models=frozenset("a"), allowance=LIMITS, budget=Budget(amount=1, window=Window.DAY))
    before, after = change(user.id, active=False)
    assert (before, after.active, after.models, after.budget) == (user, False, user.models, user.budget)
    _, after = change(user.id, models=None, budget=None, tier=Tier.SUB, role=Role.VIEWER, name="Ann")
    assert (after.models, after.budget, after.tier, after.role, after.name) == (None, None, "sub", "viewer", "Ann")
    assert database.read(list_users) == [after]


def test_a_change_that_changes_nothing_is_none(create, change, database):
    user = create()
    assert change(user.id, active=True, email=user.email) == (user, user)
    assert database.read(lambda connection: changed_users(connection, user.revision)) == []


def test_nobody_is_changed_who_does_not_exist(change):
    assert refusal(change, 7, active=False) == "user_not_found"


def test_only_who_has_changed_is_read_again(create, change, database):
    created = [create(f"{name}@example.org") for name in "abc"]
    last = created[-1].revision
    _, first = change(created[0].id, active=False)
    assert database.read(lambda connection: changed_users(connection, last)) == [first]
    assert [user.id for user in database.read(lambda connection: changed_users(connection, 0))] == [2, 3, 1]


def test_newest_users_stand_first(create, database):
    created = [create(f"{name}@example.org") for name in "abc"]
    assert database.read(list_users) == created[::-1]


@pytest.mark.parametrize(("name", "role"), [("admin", Role.ADMIN), ("local", Role.USER)])
def test_a_built_in_account_is_made_once_when_it_is_asked_for(database, clock, name, role):
    first, second = (database.write(lambda connection: built_in_user(connection, name, now=clock.now())) for _ in "12")
    assert first == second
    (user,) = database.read(list_users)
    assert (user.email, user.name, user.role, user.tier, user.is_built_in) == (name, name, role, Tier.ADMIN, True)


def test_a_built_in_account_keeps_its_name_and_admin_its_reach(database, clock, change):
    admin, local = (
        database.write(lambda connection, name=name: built_in_user(connection, name, now=clock.now()))
        for name in ("admin", "local")
    )
    for user_id in (admin, local):
        assert refusal(change, user_id, email="new@example.org") == "built_in_account"
        assert refusal(change, user_id, name="new") == "built_in_account"
    for fields in ({"active": False}, {"role": Role.USER}, {"tier": Tier.PAYG}):
        assert refusal(change, admin, **fields) == "built_in_account"
    before, after = change(admin, active=True, email="admin", allowance=LIMITS)
    assert (before.allowance, after.allowance) == (Allowance(), LIMITS)
    assert not change(local, active=False)[1].active


def test_a_password_is_kept_apart_from_what_is_read_of_a_user(create, database, clock):
    user = create()
    read = lambda connection: read_password(connection, " ANN@example.org")  # noqa: E731
    assert database.read(read) == (user, None)
    database.write(lambda connection: store_password(connection, user.id, "$argon2id$x", now=clock.now()))
    changed, encoded = database.read(read)
    assert (encoded, changed.has_password) == ("$argon2id$x", True)
    assert "argon2" not in repr(database.read(list_users))
    database.write(lambda connection: store_password(connection, user.id, None, now=clock.now()))
    assert database.read(read)[0].has_password is False
    assert database.read(lambda connection: read_password(connection, "nobody@example.org")) is None


def test_the_time_of_a_new_password_is_kept(create, database, clock):
    user = create()
    clock.at += 5
    database.write(lambda connection: store_password(connection, user.id, "$argon2id$x", now=clock.now()))
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("SELECT password_changed_at FROM users").fetchone() == (clock.now(),)


def test_nobody_gets_a_password_who_does_not_exist(database):
    assert refusal(database.write, lambda connection: store_password(connection, 9, "x", now=0)) == "user_not_found"


def test_a_full_table_takes_nobody_further(create, database):
    create()
    more = NewUser(email="b@example.org")
    full = lambda connection: create_user(connection, more, now=0, most=1)  # noqa: E731
    assert refusal(database.write, full) == "too_many_users"


@pytest.mark.parametrize(
    ("tier", "role", "before", "expected"),
    [
        (Tier.ADMIN, None, None, Role.ADMIN),
        (Tier.ADMIN, None, Role.USER, Role.ADMIN),
        (Tier.ADMIN, Role.VIEWER, Role.USER, Role.VIEWER),
        (Tier.PAYG, None, None, Role.USER),
        (Tier.PAYG, None, Role.ADMIN, Role.USER),
        (Tier.SUB, None, Role.VIEWER, Role.VIEWER),
        (Tier.SUB, Role.ADMIN, Role.USER, Role.ADMIN),
    ],
)
def test_without_a_word_about_the_role_admin_follows_the_tier(tier, role, before, expected):
    assert role_for_tier(tier, role, before) is expected


@given(st.sampled_from(Tier), st.sampled_from(Role), st.none() | st.sampled_from(Role))
def test_a_named_role_wins_and_no_tier_but_admin_gives_more_reach(tier, role, before):
    assert role_for_tier(tier, role, before) is role
    given = role_for_tier(tier, None, before)
    assert (given is Role.ADMIN) is (tier is Tier.ADMIN)
