import asyncio
import subprocess
import sys
import timeit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.auth.admin import ensure_built_in_users
from stellwerk.auth.keys import KeyChanges, KeyRecord, NewKey, change_key, create_key, revoke_key
from stellwerk.auth.logins import end_login, start_login
from stellwerk.auth.principals import ENVIRONMENT_KEY_ID, combine_roles
from stellwerk.auth.ring import Changes, KeyRing, Revisions, load_changes
from stellwerk.auth.tokens import WeakKey, new_token
from stellwerk.auth.users import UserChanges, UserRecord, change_user, store_password
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Forbidden, GatewayError, Unauthenticated, Unavailable
from stellwerk.core.principal import Allowance, Budget, Priority, Role, Tier, Window
from stellwerk.core.secrets import Secret
from stellwerk.jobs.settings import JobSettings
from stellwerk.storage.failures import storage_unavailable

UNKNOWN = "sk-sw-aaaaaaaaaa-" + "A" * 43
ADMIN_KEY = "nobody-guesses-this-4711"


@pytest.fixture
def create(database, digest, clock):
    def create(**fields):
        key = NewKey(**({"name": "a key"} | fields))
        return database.write(lambda connection: create_key(connection, key, digest, now=clock.now()))

    return create


@pytest.fixture
def everything(database):
    """A fresh ring would be given this."""
    return lambda: database.read(lambda connection: load_changes(connection, Revisions()))


def refusal(ring, token):
    with pytest.raises(GatewayError) as raised:
        ring.authenticate(token)
    return raised.value.status, raised.value.code


def code(ring, token):
    status, code = refusal(ring, token)
    assert status == 401
    return code


async def test_a_key_says_who_shows_it(ring, create, user):
    record, token = create(
        name="ci",
        user_id=user.id,
        models=frozenset({"m"}),
        networks=("::1",),
        priority=Priority.LOW,
        allowance=Allowance(requests_per_minute=5),
        budget=Budget(amount=3, window=Window.DAY),
    )
    await ring.refresh()
    principal = ring.authenticate(token.reveal())
    assert (principal.key_id, principal.name, principal.role) == (record.id, "ci", Role.USER)
    assert (principal.user_id, principal.tier, principal.models) == (user.id, Tier.SUB, {"m"})
    assert (principal.allowance, principal.budget, principal.priority) == (record.allowance, record.budget, "low")
    assert (principal.user_allowance, principal.user_budget) == (user.allowance, user.budget)
    assert [str(network) for network in principal.networks] == ["::1/128"]
    assert ring.authenticate(token.reveal().encode()) is principal


@pytest.mark.parametrize(
    ("of_user", "of_key", "role"),
    [
        (Role.ADMIN, Role.ADMIN, Role.ADMIN),
        (Role.ADMIN, Role.VIEWER, Role.VIEWER),
        (Role.ADMIN, Role.USER, Role.USER),
        (Role.USER, Role.ADMIN, Role.USER),
        (Role.USER, Role.VIEWER, None),
        (Role.USER, Role.USER, Role.USER),
        (Role.VIEWER, Role.ADMIN, Role.VIEWER),
        (Role.VIEWER, Role.VIEWER, Role.VIEWER),
        (Role.VIEWER, Role.USER, None),
    ],
)
def test_a_key_reaches_no_further_than_its_user(of_user, of_key, role):
    assert combine_roles(of_user, of_key) is role


@given(st.sampled_from(Role), st.sampled_from(Role))
def test_only_both_together_make_an_admin(of_user, of_key):
    assert (combine_roles(of_user, of_key) is Role.ADMIN) is (of_user is of_key is Role.ADMIN)
    assert combine_roles(of_user, of_key) in ({of_key} if of_user is Role.ADMIN else {of_user, None})


async def test_a_key_whose_role_its_user_has_lost_opens_nothing_and_works_again_with_the_role(
    ring, create, user, change
):
    await change(user, role=Role.ADMIN)
    _, token = create(user_id=user.id, role=Role.VIEWER)
    await ring.refresh()
    assert ring.authenticate(token.reveal()).role is Role.VIEWER
    await change(user, role=Role.USER)
    with pytest.raises(Forbidden) as caught:
        ring.authenticate(token.reveal())
    assert caught.value.code == "key_role_changed"
    await change(user, role=Role.VIEWER)
    assert ring.authenticate(token.reveal()).role is Role.VIEWER


async def test_a_demoted_user_takes_all_of_his_keys_along(ring, create, user, change):
    tokens = [create(user_id=user.id, role=role)[1].reveal() for role in (Role.ADMIN, Role.USER)]
    await change(user, role=Role.ADMIN, tier=Tier.ADMIN)
    assert [ring.authenticate(token).role for token in tokens] == ["admin", "user"]
    await change(user, role=Role.USER, tier=Tier.PAYG)
    assert [ring.authenticate(token).role for token in tokens] == ["user", "user"]
    assert {ring.authenticate(token).tier for token in tokens} == {"payg"}


async def test_a_key_may_use_what_both_it_and_its_user_may(ring, create, user, change):
    everything, some = (create(user_id=user.id, models=models)[1].reveal() for models in (None, frozenset("ab")))
    await ring.refresh()
    assert (ring.authenticate(everything).models, ring.authenticate(some).models) == (None, {"a", "b"})
    await change(user, models=frozenset("bc"))
    assert (ring.authenticate(everything).models, ring.authenticate(some).models) == ({"b", "c"}, {"b"})
    await change(user, models=frozenset())
    assert (ring.authenticate(everything).models, ring.authenticate(some).models) == (frozenset(), frozenset())


async def test_a_disabled_user_is_out_with_every_key_and_login(ring, create, user, change):
    shown = [create(user_id=user.id)[1].reveal(), f"{user.id}.l1.good"]
    await ring.refresh()
    before = [ring.authenticate(token) for token in shown]
    await change(user, active=False)
    assert [refusal(ring, token) for token in shown] == [(403, "account_disabled")] * 2
    await change(user, active=True)
    assert [ring.authenticate(token) for token in shown] == before


async def test_a_key_that_ended_says_so_also_when_its_user_is_disabled(ring, create, database, user, change, clock):
    revoked, token = create(user_id=user.id)
    _, expired = create(user_id=user.id, expires_at=clock.now())
    database.write(lambda connection: revoke_key(connection, revoked.id, now=clock.now()))
    await change(user, active=False)
    assert code(ring, token.reveal()) == "revoked_api_key"
    assert code(ring, expired.reveal()) == "expired_api_key"


async def test_a_principal_stays_the_same_object_until_something_about_it_changes(ring, create, user, change, database):
    record, token = create(user_id=user.id)
    text = token.reveal()
    create()
    await ring.refresh()
    first, login = ring.authenticate(text), ring.authenticate(f"{user.id}.l1.good")
    other, _ = create(user_id=user.id)
    await ring.refresh()
    database.write(lambda connection: store_password(connection, user.id, "$argon2id$x", now=0))
    await change(user, name="a name is not part of it")
    database.write(lambda connection: change_key(connection, other.id, KeyChanges(name="other")))
    await ring.refresh()
    assert ring.authenticate(text) is first
    assert ring.authenticate(f"{user.id}.l1.good") is login
    database.write(lambda connection: change_key(connection, record.id, KeyChanges(name="new")))
    await ring.refresh()
    second = ring.authenticate(text)
    assert (first.name, second.name) == ("a key", "new")
    await change(user, allowance=Allowance(burst=1))
    assert ring.authenticate(text).user_allowance == ring.authenticate(f"{user.id}.l1.good").user_allowance
    assert ring.authenticate(text).user_allowance.burst == 1


async def test_an_expired_key_is_refused(ring, create, clock):
    _, token = create(expires_at=clock.now() + 60)
    await ring.refresh()
    ring.authenticate(token.reveal())
    clock.at += 60
    assert code(ring, token.reveal()) == "expired_api_key"


async def test_a_revoked_key_is_refused_after_the_next_refresh(ring, create, database, clock):
    record, token = create()
    await ring.refresh()
    ring.authenticate(token.reveal())
    database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    await ring.refresh()
    assert code(ring, token.reveal()) == "revoked_api_key"
    with pytest.raises(Unauthenticated) as raised:
        await ring.authenticate_or_refresh(token.reveal())
    assert raised.value.code == "revoked_api_key"


async def test_a_key_that_differs_in_one_character_is_unknown(ring, create):
    _, token = create()
    await ring.refresh()
    text = token.reveal()
    for position in range(len(text)):
        other = "A" if text[position] != "A" else "B"
        assert code(ring, text[:position] + other + text[position + 1 :]) == "invalid_api_key"
    assert code(ring, text + "A") == code(ring, text[:-1]) == "invalid_api_key"


@given(st.one_of(st.binary(max_size=600), st.text(max_size=600)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_whatever_is_shown_is_known_or_refused_cleanly(ring, token):
    assert code(ring, token) in {"invalid_api_key", "invalid_token"}


def test_an_overlong_token_is_refused_unread(load, clock):
    ring = KeyRing(load, lambda token: pytest.fail("it was read"), clock)
    assert code(ring, "x" * 513) == code(ring, b"x" * 1_000_000) == "invalid_api_key"


async def test_only_digests_are_kept_in_memory_to_look_keys_up_by(ring, create):
    _, token = create()
    await ring.refresh()
    assert all(isinstance(kept, bytes) and len(kept) == 32 for kept in ring._entries)
    assert token.reveal() not in repr(ring._entries)


async def test_the_admin_key_of_the_environment_counts_without_being_stored(load, digest, clock, database, everything):
    ring = KeyRing(load, digest, clock, admin_key=Secret(ADMIN_KEY))
    assert code(ring, ADMIN_KEY) == "invalid_api_key"
    database.write(lambda connection: ensure_built_in_users(connection, clock.now()))
    await ring.refresh()
    principal = ring.authenticate(ADMIN_KEY)
    (admin, _) = everything().users
    assert (principal.key_id, principal.role, principal.tier) == (ENVIRONMENT_KEY_ID, Role.ADMIN, Tier.ADMIN)
    assert (admin.email, principal.user_id) == ("admin", admin.id)
    assert everything().keys == []
    await ring.refresh()
    assert ring.authenticate(ADMIN_KEY) is principal


async def test_the_admin_key_of_the_environment_wins_over_a_stored_one_of_the_same_text(
    load, digest, clock, database, create
):
    record, token = create()
    ring = KeyRing(load, digest, clock, admin_key=token)
    database.write(lambda connection: ensure_built_in_users(connection, clock.now()))
    await ring.refresh()
    database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    await ring.refresh()
    assert ring.authenticate(token.reveal()).role is Role.ADMIN


def test_a_weak_admin_key_of_the_environment_is_refused(load, digest, clock):
    with pytest.raises(WeakKey):
        KeyRing(load, digest, clock, admin_key=Secret("changeme"))
    assert len(KeyRing(load, digest, clock, admin_key=Secret(""))) == 0


MAKE_KEY = """
import sys, pathlib
from stellwerk.auth.keys import NewKey, create_key, has_keys
from stellwerk.auth.tokens import load_pepper, make_digest
from stellwerk.auth.users import NewUser, create_user
from stellwerk.storage.database import open_database
folder = pathlib.Path(sys.argv[1])
database = open_database(folder)
digest = make_digest(load_pepper(folder, has_keys=database.read(has_keys)))
def make(connection):
    user = create_user(connection, NewUser(email="bob@example.org"), now=1)
    return create_key(connection, NewKey(name="from outside", user_id=user.id), digest, now=1)
print(database.write(make)[1].reveal())
"""


async def test_a_user_and_a_key_made_by_another_process_count_at_once(ring, database, folder, clock):
    await ring.refresh()
    made = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", MAKE_KEY, str(folder)], capture_output=True, text=True, check=True
    )
    token = made.stdout.strip()
    assert code(ring, token) == "invalid_api_key"
    principal = await ring.authenticate_or_refresh(token)
    assert principal.name == "from outside"
    login = f"{principal.user_id}.l1.good"
    assert ring.authenticate(login).user_id == principal.user_id
    database.write(lambda connection: change_user(connection, principal.user_id, UserChanges(active=False)))
    await ring.refresh()
    assert refusal(ring, token) == refusal(ring, login) == (403, "account_disabled")


async def test_many_unknown_keys_share_one_look_into_the_database(load, digest):
    ring = KeyRing(load, digest, SystemClock())
    await ring.refresh()

    async def show():
        with pytest.raises(Unauthenticated):
            await ring.authenticate_or_refresh(UNKNOWN)

    await asyncio.gather(*(show() for _ in range(200)))
    assert load.times == 2


async def test_what_cannot_be_one_of_our_keys_costs_no_look_into_the_database(ring, load):
    for token in ("", "sk-1234", b"\xff" * 40, UNKNOWN + "x"):
        with pytest.raises(Unauthenticated):
            await ring.authenticate_or_refresh(token)
    assert load.times == 0


async def test_a_key_made_while_a_refresh_runs_is_found_by_the_next(digest, clock, create, everything):
    started, let_go = asyncio.Event(), asyncio.Event()
    stored = []

    async def load(since):
        found = everything() if stored else Changes()
        started.set()
        await let_go.wait()
        return found

    ring = KeyRing(load, digest, clock)
    first = asyncio.create_task(ring.refresh())
    await started.wait()
    record, token = create()
    stored.append(record)
    clock.at += 1
    second = asyncio.create_task(ring.authenticate_or_refresh(token.reveal()))
    await asyncio.sleep(0)
    let_go.set()
    await first
    assert (await second).key_id == record.id


async def test_a_client_that_leaves_does_not_cancel_the_look_for_others(digest, clock, create, everything):
    record, token = create()
    started, let_go = asyncio.Event(), asyncio.Event()

    async def load(since):
        started.set()
        await let_go.wait()
        return everything()

    ring = KeyRing(load, digest, clock)
    leaving, staying = (asyncio.create_task(ring.authenticate_or_refresh(token.reveal())) for _ in range(2))
    await started.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    let_go.set()
    assert (await staying).key_id == record.id


async def test_keys_stay_known_while_the_storage_is_away(digest, clock, create, everything):
    record, token = create()
    answers = [everything()]

    async def load(since):
        if answers:
            return answers.pop()
        raise storage_unavailable()

    ring = KeyRing(load, digest, clock)
    await ring.refresh()
    with pytest.raises(Unavailable):
        await ring.refresh()
    assert ring.authenticate(token.reveal()).key_id == record.id
    clock.at += 1
    with pytest.raises(Unavailable):
        await ring.authenticate_or_refresh(UNKNOWN)


async def test_a_refresh_says_whether_anything_has_changed(ring, create):
    await ring.refresh()
    assert await ring.refresh() is False
    create()
    assert await ring.refresh() is True
    assert await ring.refresh() is False


async def test_a_running_call_may_go_on_until_its_key_or_account_is_taken_away(ring, create, user, change, database):
    record, token = create(user_id=user.id)
    _, other = create(user_id=user.id)
    await ring.refresh()
    mine, others = (ring.authenticate(each.reveal()) for each in (token, other))
    assert ring.may_go_on(mine)
    database.write(lambda connection: revoke_key(connection, record.id, now=1.0))
    assert ring.may_go_on(mine)
    await ring.refresh()
    assert (ring.may_go_on(mine), ring.may_go_on(others)) == (False, True)
    await change(user, active=False)
    assert not ring.may_go_on(others)


async def test_a_key_that_expires_does_not_end_what_it_has_begun(ring, create, user, clock):
    _, token = create(user_id=user.id, expires_at=clock.at + 1)
    await ring.refresh()
    principal = ring.authenticate(token.reveal())
    clock.at += 2
    assert ring.may_go_on(principal)


def make_record(key_id, digest):
    return KeyRecord(
        id=key_id,
        revision=1,
        user_id=1,
        name="",
        role=Role.USER,
        models=None,
        networks=None,
        priority=Priority.HIGH,
        allowance=Allowance(),
        budget=None,
        created_at=0,
        expires_at=None,
        revoked_at=None,
        digest=digest,
        last_four="",
    )


def make_user(user_id, revision=1):
    return UserRecord(
        id=user_id,
        revision=revision,
        email=f"{user_id}@example.org",
        name="",
        role=Role.USER,
        tier=Tier.PAYG,
        active=True,
        has_password=False,
        created_at=0,
        models=None,
        allowance=Allowance(),
        budget=None,
    )


async def test_a_check_costs_the_same_with_ten_keys_and_with_a_hundred_thousand(digest, clock):
    costs = []
    shown = [new_token()[1].reveal() for _ in range(10)]
    for count in (10, 100_000):
        keys = [make_record("k", digest((shown[n] if n < 10 else str(n)).encode())) for n in range(count)]

        async def load(since, keys=keys):
            return Changes([make_user(1)], keys)

        ring = KeyRing(load, digest, clock)
        await ring.refresh()
        assert len(ring) == count
        costs.append(min(timeit.repeat(lambda ring=ring: ring.authenticate(shown[7]), number=200, repeat=20)))
    assert costs[1] < costs[0] * 2


async def test_a_key_whose_user_is_not_known_yet_is_not_good(digest, clock):
    token = new_token()[1].reveal()
    answers = [Changes([make_user(1)]), Changes(keys=[make_record("k", digest(token.encode()))])]

    async def load(since):
        return answers.pop()

    ring = KeyRing(load, digest, clock)
    await ring.refresh()
    assert code(ring, token) == "invalid_api_key"
    await ring.refresh()
    assert ring.authenticate(token).user_id == 1


# --- work that is done when nobody shows a key any more


async def test_a_key_is_known_by_its_id_too_with_the_rights_of_now(ring, create, user, change):
    record, token = create(user_id=user.id)
    await ring.refresh()
    assert ring.resolve(record.id, user.id) is ring.authenticate(token.reveal())
    await change(user, models=frozenset("b"))
    assert ring.resolve(record.id, user.id).models == {"b"}


async def test_an_id_whose_key_was_revoked_or_is_unknown_is_nobodys(ring, create, user, database, clock):
    record, _ = create(user_id=user.id)
    database.write(lambda connection: revoke_key(connection, record.id, now=clock.now()))
    await ring.refresh()
    with pytest.raises(Unauthenticated) as refused:
        ring.resolve(record.id, user.id)
    assert refused.value.code == "revoked_api_key"
    for key_id, user_id in (("aaaaaaaaaa", user.id), (record.id, user.id + 99), (record.id, 1)):
        with pytest.raises(Unauthenticated):
            ring.resolve(key_id, user_id)


async def test_the_id_of_a_login_is_its_users_as_long_as_he_may(ring, user, change):
    await ring.refresh()
    assert ring.resolve("login-0123", user.id).user_id == user.id
    await change(user, active=False)
    with pytest.raises(Forbidden):
        ring.resolve("login-0123", user.id)


async def test_who_only_looks_on_now_has_nothing_called_in_his_name(ring, create, user, change):
    record, _ = create(user_id=user.id, role=Role.ADMIN)
    await ring.refresh()
    named = (record.id, "login-0123")
    assert [ring.resolve(name, user.id).role for name in named] == ["user", "user"]
    await change(user, role=Role.VIEWER)
    for name in named:
        with pytest.raises(Forbidden):
            ring.resolve(name, user.id)


async def test_a_login_that_has_ended_long_ago_has_nothing_called_in_its_name(
    ring, load, digest, user, database, clock
):
    login = database.write(lambda connection: start_login(connection, user.id, now=clock.now(), lifetime=3600))
    await ring.refresh()
    assert ring.resolve(f"login-{login.id}", user.id).user_id == user.id
    database.write(lambda connection: end_login(connection, login.id, "logout", clock.now()))
    await ring.refresh()
    clock.at += JobSettings().deadline_seconds
    restarted = KeyRing(load, digest, clock)
    for each in (ring, restarted):
        await each.refresh()
        with pytest.raises(Unauthenticated):
            each.resolve(f"login-{login.id}", user.id)


async def test_keys_of_a_built_in_account_are_strangers_to_each_other(ring, user, database, clock):
    database.write(lambda connection: ensure_built_in_users(connection, clock.now()))
    await ring.refresh()
    assert not ring.is_shared(user.id)
    assert ring.is_shared(ring.local_user_id)
    assert ring.is_shared(987_654)
