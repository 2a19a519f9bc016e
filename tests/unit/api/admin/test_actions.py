import pytest
from sqlalchemy import delete

from stellwerk.api.admin import actions
from stellwerk.auth.keys import KeyChanges, NewKey
from stellwerk.auth.logins import ended_logins, start_login
from stellwerk.auth.users import NewUser, UserChanges, users
from stellwerk.core.errors import Conflict, NotFound, TooLarge
from stellwerk.core.principal import Budget, Role, Window
from stellwerk.ledger.budgets import Limit, open_windows, read_spending
from stellwerk.ledger.calls import calls
from stellwerk.records import audit
from stellwerk.records.audit import Actor
from tests.admin_site import CLI, DIGEST

NOW = 1_000_000.0


@pytest.fixture
def user(database):
    return database.write(lambda c: actions.create_user(c, CLI, NewUser(email="ada@example.org"), now=NOW))


def last(database):
    return database.read(lambda c: audit.read(c, limit=1))[0]


def test_a_record_stands_beside_every_change_with_its_actor(database, user):
    actor = Actor(name="eve@example.org", key_id="k7d3m2q5xa", peer="192.0.2.7")
    changes = UserChanges(name="Ada")
    database.write(lambda c: actions.change_user(c, actor, user.id, changes, now=NOW + 1))
    record = last(database)
    assert (record.actor, record.key_id, record.peer, record.at) == (actor.name, actor.key_id, actor.peer, NOW + 1)
    assert record.details == {"name": {"before": "", "after": "Ada"}}


def test_a_change_and_its_record_are_stored_together_or_not_at_all(database, user):
    too_many = UserChanges(models=frozenset(f"{n:0200}" for n in range(1000)))
    database.write(lambda c: actions.change_user(c, CLI, user.id, too_many, now=NOW))
    other = UserChanges(models=frozenset(f"x{n:0199}" for n in range(1000)))
    with pytest.raises(TooLarge):
        database.write(lambda c: actions.change_user(c, CLI, user.id, other, now=NOW))
    assert database.read(lambda c: actions.find_user(c, user.id)).models == too_many.models


def test_the_last_administrator_cannot_be_disabled_by_anybody(database):
    def prepare(connection):
        connection.execute(delete(users))
        return actions.create_user(connection, CLI, NewUser(email="a@example.org", role=Role.ADMIN), now=NOW)

    only = database.write(prepare)
    for changes in (UserChanges(active=False), UserChanges(role=Role.VIEWER)):
        with pytest.raises(Conflict) as caught:
            database.write(lambda c, changes=changes: actions.change_user(c, CLI, only.id, changes, now=NOW))
        assert caught.value.code == "last_admin"
    database.write(lambda c: actions.create_user(c, CLI, NewUser(email="b@example.org", role=Role.ADMIN), now=NOW))
    database.write(lambda c: actions.change_user(c, CLI, only.id, UserChanges(active=False), now=NOW))


@pytest.mark.parametrize("how", ["disabled", "password"])
def test_logins_end_with_the_reason_for_them(database, user, how):
    login = database.write(lambda c: start_login(c, user.id, now=NOW))
    if how == "disabled":
        database.write(lambda c: actions.change_user(c, CLI, user.id, UserChanges(active=False), now=NOW))
    else:
        database.write(lambda c: actions.set_password(c, CLI, user.id, "encoded", now=NOW))
        assert last(database).details == {"removed": False}
    assert [ended.id for ended in database.read(lambda c: ended_logins(c, 0))] == [login.id]


def test_a_budget_that_is_set_again_counts_what_was_spent_meanwhile(database, user):
    budget = Budget(amount=5_000_000, window=Window.MONTH)
    limit = Limit(user_id=user.id, key_id=None, budget=budget)
    database.write(lambda c: open_windows(c, [limit], NOW))
    row = {
        "id": "req", "at": NOW, "key_id": "k", "user_id": user.id, "operation": "chat", "model": "m", "stream": False,
        "status": 200, "attempts": 1, "estimated": False, "cost": 700_000, "duration": 0.1,
    }  # fmt: skip
    database.write(lambda c: c.execute(calls.insert().values(row)))
    database.write(lambda c: actions.change_user(c, CLI, user.id, UserChanges(budget=budget), now=NOW))
    assert database.read(lambda c: read_spending(c, [limit], NOW))[0].spent == 700_000


def test_a_key_is_made_changed_and_revoked(database, user):
    key, token = database.write(
        lambda c: actions.create_key(c, CLI, NewKey(name="a", user_id=user.id), DIGEST, now=NOW)
    )
    assert token.reveal() not in str(last(database).details)
    assert last(database).details["user_id"] == user.id
    database.write(lambda c: actions.change_key(c, CLI, key.id, KeyChanges(name="b"), now=NOW))
    assert last(database).details == {"name": {"before": "a", "after": "b"}}
    assert database.write(lambda c: actions.revoke_key(c, CLI, key.id, now=NOW + 1)).revoked_at == NOW + 1
    assert database.write(lambda c: actions.revoke_key(c, CLI, key.id, now=NOW + 2)).revoked_at == NOW + 1
    assert last(database).at == NOW + 1


def test_a_key_of_nobody_belongs_to_a_built_in_account(database):
    key, _ = database.write(lambda c: actions.create_key(c, CLI, NewKey(name="a"), DIGEST, now=NOW))
    assert database.read(lambda c: actions.find_user(c, key.user_id)).email == "local"


@pytest.mark.parametrize(
    "act",
    [
        lambda c: actions.change_user(c, CLI, 99, UserChanges(name="x"), now=NOW),
        lambda c: actions.set_password(c, CLI, 99, None, now=NOW),
        lambda c: actions.create_key(c, CLI, NewKey(name="a", user_id=99), DIGEST, now=NOW),
        lambda c: actions.top_up(c, CLI, 99, 1, note="", now=NOW, currency="EUR"),
        lambda c: actions.correct(c, CLI, 99, 1, note="", now=NOW, currency="EUR"),
        lambda c: actions.set_balance(c, CLI, 99, 1, note="", now=NOW, currency="EUR"),
        lambda c: actions.change_key(c, CLI, "aaaaaaaaaa", KeyChanges(name="x"), now=NOW),
        lambda c: actions.revoke_key(c, CLI, "aaaaaaaaaa", now=NOW),
        lambda c: actions.approve_signup(c, CLI, 99, DIGEST, now=NOW),
        lambda c: actions.reject_signup(c, CLI, 99, now=NOW),
    ],
)
def test_nothing_is_done_to_what_is_not_there(database, act):
    with pytest.raises(NotFound):
        database.write(act)
    assert database.read(lambda c: audit.read(c, limit=1)) == []
