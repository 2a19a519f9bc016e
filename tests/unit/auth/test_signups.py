import pytest
from sqlalchemy import insert

from stellwerk.auth.keys import find_key, list_keys
from stellwerk.auth.signups import (
    MOST_PENDING,
    Status,
    approve,
    ask,
    count_pending,
    list_signups,
    reject,
    signup_requests,
)
from stellwerk.auth.users import NewUser, UserChanges, change_user, create_user, list_users
from stellwerk.core.errors import BadRequest, NotFound, Unavailable
from stellwerk.core.principal import Role, Tier


class Office:
    """The functions under test, each in a transaction of its own."""

    def __init__(self, database, digest):
        self.database, self.digest = database, digest

    def ask(self, email="ada@example.org", tier=Tier.PAYG, message=None, now=10.0):
        self.database.write(lambda connection: ask(connection, email, tier, message, now=now))

    def list(self, **query):
        return self.database.read(lambda connection: list_signups(connection, **query))

    def approve(self, number=1):
        def work(connection):
            return approve(connection, number, self.digest, decided_by="admin", now=20.0)

        return self.database.write(work)

    def reject(self, number=1):
        return self.database.write(lambda connection: reject(connection, number, decided_by="admin", now=20.0))

    def users(self):
        return self.database.read(list_users)


@pytest.fixture
def office(database, digest):
    return Office(database, digest)


def test_a_request_waits_with_what_was_said(office):
    office.ask(" Ada@Example.org ", Tier.SUB, "  For our reading group.\n ")
    (signup,) = office.list()
    assert (signup.email, signup.tier, signup.message) == ("ada@example.org", Tier.SUB, "For our reading group.")
    assert (signup.status, signup.created_at, signup.decided_at, signup.user_id) == (Status.PENDING, 10.0, None, None)


def test_a_second_request_for_an_address_changes_nothing(office):
    office.ask(message="first")
    office.ask("ADA@example.org", Tier.SUB, "second", now=11.0)
    assert [(signup.message, signup.tier, signup.created_at) for signup in office.list()] == [("first", "payg", 10.0)]


@pytest.mark.parametrize("active", [True, False])
def test_a_request_for_the_address_of_a_user_is_not_stored(office, database, active):
    user = database.write(lambda connection: create_user(connection, NewUser(email="ada@example.org"), now=1.0))
    database.write(lambda connection: change_user(connection, user.id, UserChanges(active=active)))
    office.ask()
    assert office.list() == []


@pytest.mark.parametrize(
    "email", ["", "ada", "admin", "local", "a@b@c", "a b@c", "a@b\r\nBcc: x@y", "@", "a" * 260 + "@b"]
)
def test_what_is_no_address_is_refused(office, email):
    with pytest.raises(BadRequest) as caught:
        office.ask(email)
    assert caught.value.param == "email"


def test_nobody_can_ask_to_be_an_admin(office):
    with pytest.raises(BadRequest) as caught:
        office.ask(tier=Tier.ADMIN)
    assert caught.value.param == "tier"
    assert office.list() == []


@pytest.mark.parametrize(
    ("message", "stored"),
    [("", None), (" \n", None), ("a\x00\x1b[31mb\u202ec\n\td", "a[31mbc\n\td"), ("x" * 2000, "x" * 2000)],
)
def test_a_message_is_kept_without_characters_that_steer_a_screen(office, message, stored):
    office.ask(message=message)
    assert office.list()[0].message == stored


def test_a_message_that_is_too_long_is_refused(office):
    with pytest.raises(BadRequest) as caught:
        office.ask(message="x" * 2001)
    assert caught.value.param == "message"


def test_approval_makes_the_user_and_a_key_that_is_shown_once(office, database):
    office.ask(tier=Tier.SUB)
    approval = office.approve()
    (user,) = office.users()
    assert user == approval.user
    assert (user.email, user.tier, user.role, user.active, user.has_password) == (
        "ada@example.org",
        Tier.SUB,
        Role.USER,
        True,
        False,
    )
    key = database.read(lambda connection: find_key(connection, approval.key.id))
    assert key == approval.key
    assert (key.name, key.user_id, key.role) == ("default", user.id, Role.USER)
    assert key.digest == office.digest(approval.token.reveal().encode())
    assert approval.token.reveal() not in repr(approval)
    assert approval.signup == office.list()[0]
    assert (
        approval.signup.status,
        approval.signup.decided_at,
        approval.signup.decided_by,
        approval.signup.user_id,
    ) == (
        Status.APPROVED,
        20.0,
        "admin",
        user.id,
    )


def test_rejection_makes_nobody_and_the_address_may_ask_again(office):
    office.ask()
    assert office.reject().status is Status.REJECTED
    assert office.users() == []
    office.ask(message="please")
    assert [(signup.id, signup.status) for signup in office.list()] == [(2, "pending"), (1, "rejected")]


@pytest.mark.parametrize("decision", ["approve", "reject"])
@pytest.mark.parametrize("before", ["approve", "reject"])
def test_a_request_is_decided_once(office, before, decision):
    office.ask()
    getattr(office, before)()
    decided = office.list()
    with pytest.raises(BadRequest, match="Request already processed") as caught:
        getattr(office, decision)()
    assert caught.value.code == "signup_processed"
    assert office.list() == decided


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_an_unknown_request_cannot_be_decided(office, decision):
    with pytest.raises(NotFound):
        getattr(office, decision)(7)


def test_a_request_of_who_became_a_user_meanwhile_cannot_be_approved_but_rejected(office, database):
    office.ask()
    database.write(lambda connection: create_user(connection, NewUser(email="ada@example.org"), now=15.0))
    with pytest.raises(BadRequest, match="User already exists") as caught:
        office.approve()
    assert caught.value.code == "user_exists"
    assert database.read(list_keys) == []
    assert office.reject().status is Status.REJECTED


def test_an_approval_that_fails_half_way_leaves_nothing(office, database):
    office.ask()

    def work(connection):
        approve(connection, 1, office.digest, decided_by="admin", now=20.0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.write(work)
    assert office.users() == []
    assert database.read(list_keys) == []
    assert office.list()[0].status is Status.PENDING


def test_no_more_wait_than_somebody_could_read_and_the_refusal_is_the_same_for_everybody(office, database):
    rows = [{"email": f"u{n}@x", "tier": "payg", "status": "pending", "created_at": 1.0} for n in range(MOST_PENDING)]
    database.write(lambda connection: connection.execute(insert(signup_requests), rows))
    database.write(lambda connection: create_user(connection, NewUser(email="user@example.org"), now=1.0))
    for email in ("ada@example.org", "u1@x", "user@example.org"):
        with pytest.raises(Unavailable) as caught:
            office.ask(email)
        assert (caught.value.code, caught.value.retry_after) == ("signups_full", 3600)
    assert database.read(count_pending) == MOST_PENDING
    office.reject(5)
    office.ask()
    assert office.list(limit=1)[0].email == "ada@example.org"


def test_the_newest_come_first_in_pages_and_by_status(office):
    for number in range(5):
        office.ask(f"u{number}@example.org")
    office.reject(2)
    assert [signup.id for signup in office.list(limit=2)] == [5, 4]
    assert [signup.id for signup in office.list(limit=2, before=4)] == [3, 2]
    assert [signup.id for signup in office.list(status=Status.REJECTED)] == [2]
    assert office.list(limit=-5) == []
