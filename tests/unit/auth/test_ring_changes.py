"""A ring that was told piece by piece knows what one knows that was told everything at once."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.auth.admin import ensure_built_in_users
from stellwerk.auth.keys import KeyChanges, NewKey, change_key, create_key, revoke_key
from stellwerk.auth.logins import end_login, start_login
from stellwerk.auth.ring import KeyRing, load_changes
from stellwerk.auth.users import NewUser, UserChanges, change_user, create_user
from stellwerk.core.errors import GatewayError
from stellwerk.core.principal import Allowance, Budget, Role, Tier, Window
from stellwerk.core.secrets import Secret

ADMIN_KEY = "nobody-guesses-this-4711"

ROLES, TIERS = st.sampled_from(Role), st.sampled_from(Tier)
MODELS = st.none() | st.frozensets(st.sampled_from("abc"))
LIMITS = st.builds(Allowance, requests_per_minute=st.none() | st.integers(0, 9))
BUDGETS = st.none() | st.builds(Budget, amount=st.integers(0, 9), window=st.sampled_from(Window))
NUMBER = st.integers(0, 9)
NEW_KEY = st.builds(NewKey, name=st.just("k"), role=ROLES, models=MODELS, budget=BUDGETS)
USER_CHANGES = st.one_of(
    st.builds(UserChanges, role=ROLES, tier=TIERS),
    st.builds(UserChanges, active=st.booleans()),
    st.builds(UserChanges, models=MODELS, allowance=LIMITS, budget=BUDGETS),
    st.builds(UserChanges, name=st.sampled_from("ab")),
)
KEY_CHANGES = st.one_of(
    st.builds(KeyChanges, models=MODELS, allowance=LIMITS),
    st.builds(KeyChanges, expires_at=st.none() | st.floats(1e6, 1e6 + 99)),
)
STEP = st.one_of(
    st.tuples(st.just("create_user"), st.builds(NewUser, email=st.just(""), role=ROLES, tier=TIERS, models=MODELS)),
    st.tuples(st.just("change_user"), NUMBER, USER_CHANGES),
    st.tuples(st.just("create_key"), NUMBER, NEW_KEY),
    st.tuples(st.just("change_key"), NUMBER, KEY_CHANGES),
    st.tuples(st.just("revoke_key"), NUMBER),
    st.tuples(st.just("start_login"), NUMBER),
    st.tuples(st.just("end_login"), NUMBER),
    st.tuples(st.just("wait"), st.floats(0, 40)),
)


class SetClock:
    def __init__(self):
        self.at = 1e6

    def now(self):
        return self.at

    def monotonic(self):
        return self.at


class World:
    """A database with what has been made in it so far."""

    def __init__(self, connection, digest, clock, verify_login):
        self.connection, self.digest, self.clock, self.verify_login = connection, digest, clock, verify_login
        self.users, self.keys, self.logins, self.tokens = [], [], [], [ADMIN_KEY]
        for name, *values in (
            ("create_user", NewUser(email="")),
            ("create_user", NewUser(email="", role=Role.ADMIN)),
            *(("create_key", number, NewKey(name="k", role=Role.ADMIN)) for number in (0, 1, 2, 5)),
            ("start_login", 0),
            ("start_login", 1),
        ):
            self.play(name, *values)

    def ring(self):
        async def load(since):
            return load_changes(self.connection, since)

        return KeyRing(load, self.digest, self.clock, admin_key=Secret(ADMIN_KEY), verify_login=self.verify_login)

    def play(self, name, *values):
        getattr(self, name)(*values)

    def wait(self, seconds):
        self.clock.at += seconds

    def create_user(self, new):
        new = NewUser(email=f"{len(self.users)}@b", role=new.role, tier=new.tier, models=new.models)
        self.users.append(create_user(self.connection, new, now=self.clock.now()).id)

    def change_user(self, number, changes):
        change_user(self.connection, self.users[number % len(self.users)], changes)

    def create_key(self, number, new):
        owner = ([None, *self.users])[number % (len(self.users) + 1)]
        key = NewKey(name="k", user_id=owner, role=new.role, models=new.models, budget=new.budget)
        try:
            record, token = create_key(self.connection, key, self.digest, now=self.clock.now())
        except GatewayError:
            return
        self.keys.append(record.id)
        self.tokens.append(token.reveal())

    def change_key(self, number, changes):
        change_key(self.connection, self.keys[number % len(self.keys)], changes)

    def revoke_key(self, number):
        revoke_key(self.connection, self.keys[number % len(self.keys)], now=self.clock.now())

    def start_login(self, number):
        user_id = self.users[number % len(self.users)]
        login = start_login(self.connection, user_id, now=self.clock.now(), lifetime=1e5)
        self.logins.append(login.id)
        self.tokens.append(f"{user_id}.{login.id}.good")

    def end_login(self, number):
        end_login(self.connection, self.logins[number % len(self.logins)], "logout", self.clock.now())

    def answers(self, ring):
        return {token: answer(ring, token) for token in self.tokens}


def answer(ring, token):
    try:
        return ring.authenticate(token)
    except GatewayError as error:
        return error.status, error.code


async def compare(world, ring):
    """What the ring knows after a refresh, once that is all that there is to know."""
    before = world.answers(ring)
    await ring.refresh()
    after, fresh = world.answers(ring), world.ring()
    await fresh.refresh()
    assert after == world.answers(fresh)
    assert all(
        after[token] is before[token] for token in after if after[token] == before[token] and is_let_in(after[token])
    )


def is_let_in(answer):
    return not isinstance(answer, tuple)


@given(st.lists(st.tuples(STEP, st.booleans()), min_size=1, max_size=15))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_whatever_changes_piece_by_piece_is_known_as_if_read_at_once(database, digest, verify_login, steps):
    # One transaction that is never committed: each example begins with the same database, and nothing waits for a disk.
    with database.writing.connect() as connection, connection.begin() as transaction:
        ensure_built_in_users(connection, 0)
        asyncio.run(play(World(connection, digest, SetClock(), verify_login), steps))
        transaction.rollback()


async def play(world, steps):
    ring = world.ring()
    await compare(world, ring)
    for step, is_seen in steps:
        world.play(*step)
        if is_seen:
            await compare(world, ring)
    await compare(world, ring)
