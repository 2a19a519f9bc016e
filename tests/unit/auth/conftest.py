import pytest

from stellwerk.auth.access_tokens import LoginClaims, invalid_token
from stellwerk.auth.ring import KeyRing, load_changes
from stellwerk.auth.tokens import load_pepper, make_digest
from stellwerk.auth.users import NewUser, UserChanges, change_user, create_user
from stellwerk.core.principal import Tier


@pytest.fixture
def digest(folder):
    return make_digest(load_pepper(folder, has_keys=False))


@pytest.fixture
def verify_login():
    """Reads `<user>.<login>.good`, in place of the signature that another module checks."""

    def verify(token):
        user, login, signature = token.split(".")
        if signature != "good":
            raise invalid_token()
        return LoginClaims(user_id=int(user), login_id=login, expires_at=2e9)

    return verify


@pytest.fixture
def load(database):
    """Reads changes as the app wires it, and counts how often."""

    async def load(since):
        load.times += 1
        return await database.fetch(lambda connection: load_changes(connection, since))

    load.times = 0
    return load


@pytest.fixture
def ring(load, digest, clock, verify_login):
    return KeyRing(load, digest, clock, verify_login=verify_login)


@pytest.fixture
def user(database, clock):
    """A person, no built-in account."""
    new = NewUser(email="ann@example.org", tier=Tier.SUB)
    return database.write(lambda connection: create_user(connection, new, now=clock.now()))


@pytest.fixture
def change(database, ring):
    async def change(user, **fields):
        database.write(lambda connection: change_user(connection, user.id, UserChanges(**fields)))
        await ring.refresh()

    return change
