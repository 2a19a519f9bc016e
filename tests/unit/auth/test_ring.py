import asyncio
import subprocess
import sys
import timeit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.auth.keys import KeyRecord, NewKey, changed_keys, create_key, revoke_key
from stellwerk.auth.ring import ENVIRONMENT_KEY_ID, KeyRing
from stellwerk.auth.tokens import WeakKey, new_token
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unauthenticated, Unavailable
from stellwerk.core.principal import Role
from stellwerk.core.secrets import Secret
from stellwerk.storage.failures import storage_unavailable

UNKNOWN = "sk-sw-aaaaaaaaaa-" + "A" * 43


@pytest.fixture
def load(database):
    """Reads changes as the app wires it, and counts how often."""

    async def load(since):
        load.times += 1
        return await database.fetch(lambda connection: changed_keys(connection, since))

    load.times = 0
    return load


@pytest.fixture
def ring(load, digest, clock):
    return KeyRing(load, digest, clock)


@pytest.fixture
def create(database, digest, clock):
    def create(**fields):
        key = NewKey(**({"name": "a key"} | fields))
        return database.write(lambda connection: create_key(connection, key, digest, now=clock.now()))

    return create


def code(ring, token):
    with pytest.raises(Unauthenticated) as raised:
        ring.authenticate(token)
    assert raised.value.status == 401
    return raised.value.code


async def test_a_key_says_who_shows_it(ring, create):
    record, token = create(name="ci", role=Role.VIEWER, models=frozenset({"m"}), requests_per_minute=5)
    await ring.refresh()
    principal = ring.authenticate(token.reveal())
    assert (principal.key_id, principal.name, principal.role) == (record.id, "ci", Role.VIEWER)
    assert (principal.models, principal.requests_per_minute) == ({"m"}, 5)
    assert ring.authenticate(token.reveal().encode()) is principal


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
    assert code(ring, token) == "invalid_api_key"


def test_an_overlong_token_is_refused_unread(load, clock):
    ring = KeyRing(load, lambda token: pytest.fail("it was read"), clock)
    assert code(ring, "x" * 513) == code(ring, b"x" * 1_000_000) == "invalid_api_key"


async def test_only_digests_are_kept_in_memory_to_look_keys_up_by(ring, create):
    _, token = create()
    await ring.refresh()
    assert all(isinstance(kept, bytes) and len(kept) == 32 for kept in ring._entries)
    assert token.reveal() not in repr(ring._entries)


def test_the_admin_key_of_the_environment_counts_without_being_stored(load, digest, clock, database):
    key = "nobody-guesses-this-4711"
    ring = KeyRing(load, digest, clock, admin_key=Secret(key))
    principal = ring.authenticate(key)
    assert (principal.key_id, principal.role) == (ENVIRONMENT_KEY_ID, Role.ADMIN)
    assert database.read(lambda connection: changed_keys(connection, 0)) == []


def test_a_weak_admin_key_of_the_environment_is_refused(load, digest, clock):
    with pytest.raises(WeakKey):
        KeyRing(load, digest, clock, admin_key=Secret("changeme"))
    assert len(KeyRing(load, digest, clock, admin_key=Secret(""))) == 0


async def test_a_key_made_by_another_process_counts_at_once(ring, folder):
    await ring.refresh()
    command = [sys.executable, "-c", "from stellwerk.cli.keys import app; app()"]
    arguments = ["create", "from-outside", "--data", str(folder)]
    made = await asyncio.to_thread(subprocess.run, [*command, *arguments], capture_output=True, text=True, check=True)
    principal = await ring.authenticate_or_refresh(made.stdout.strip())
    assert principal.name == "from-outside"
    revoking = ["revoke", "from-outside", "--data", str(folder)]
    await asyncio.to_thread(subprocess.run, [*command, *revoking], capture_output=True, check=True)
    await ring.refresh()
    assert code(ring, made.stdout.strip()) == "revoked_api_key"


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


async def test_a_key_made_while_a_refresh_runs_is_found_by_the_next(digest, clock, create):
    started, let_go = asyncio.Event(), asyncio.Event()
    stored = []

    async def load(since):
        found = list(stored)
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


async def test_a_client_that_leaves_does_not_cancel_the_look_for_others(digest, clock, create):
    record, token = create()
    started, let_go = asyncio.Event(), asyncio.Event()

    async def load(since):
        started.set()
        await let_go.wait()
        return [record]

    ring = KeyRing(load, digest, clock)
    leaving, staying = (asyncio.create_task(ring.authenticate_or_refresh(token.reveal())) for _ in range(2))
    await started.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    let_go.set()
    assert (await staying).key_id == record.id


async def test_keys_stay_known_while_the_storage_is_away(digest, clock, create):
    record, token = create()
    answers = [[record]]

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


async def test_watching_goes_on_after_a_failure(digest, clock, create):
    record, token = create()
    failed, found = asyncio.Event(), asyncio.Event()

    async def load(since):
        if not failed.is_set():
            failed.set()
            raise storage_unavailable()
        found.set()
        return [record]

    ring = KeyRing(load, digest, clock)
    watching = asyncio.create_task(ring.watch(0.001))
    await asyncio.wait_for(found.wait(), 5)
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert ring.authenticate(token.reveal()).key_id == record.id


async def test_a_check_costs_the_same_with_ten_keys_and_with_a_hundred_thousand(digest, clock):
    def record(number, key_id, token):
        return KeyRecord(
            id=key_id,
            revision=number,
            name="",
            role=Role.USER,
            models=None,
            requests_per_minute=None,
            concurrent_requests=None,
            created_at=0,
            expires_at=None,
            revoked_at=None,
            digest=digest(token.encode()),
            last_four="",
        )

    costs = []
    shown = [new_token()[1].reveal() for _ in range(10)]
    for count in (10, 100_000):
        records = [record(n, "k", shown[n] if n < 10 else str(n)) for n in range(count)]

        async def load(since, records=records):
            return records

        ring = KeyRing(load, digest, clock)
        await ring.refresh()
        assert len(ring) == count
        costs.append(min(timeit.repeat(lambda ring=ring: ring.authenticate(shown[7]), number=200, repeat=20)))
    assert costs[1] < costs[0] * 2
