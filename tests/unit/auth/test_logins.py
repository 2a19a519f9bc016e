import pytest
from sqlalchemy import func, select

from stellwerk.auth.access_tokens import LONGEST_ACCESS_SECONDS, RefreshClaims
from stellwerk.auth.logins import (
    LOGIN_SECONDS,
    MOST_LOGINS,
    REFRESH_SECONDS,
    REMEMBERED_SECONDS,
    Login,
    Refused,
    delete_old,
    end_login,
    end_logins_of,
    ended_logins,
    logins,
    rotate,
    start_login,
)
from stellwerk.auth.users import NewUser, UserChanges, change_user, create_user
from stellwerk.jobs.settings import JobSettings

DAY = 86_400.0


class Book:
    """The functions of the module on a real database, each in a transaction of its own."""

    def __init__(self, database, clock):
        self.database, self.clock = database, clock

    def _run(self, function, *args, **fields):
        return self.database.write(lambda connection: function(connection, *args, **fields))

    def user(self, email="ada@example.com"):
        return self._run(create_user, NewUser(email=email), now=self.clock.now()).id

    def start(self, user_id):
        return self._run(start_login, user_id, now=self.clock.now())

    def start_many(self, user_id, count):
        """One a second, in one transaction."""

        def work(connection):
            for _ in range(count):
                yield start_login(connection, user_id, now=self.clock.now())
                self.clock.at += 1

        return self.database.write(lambda connection: list(work(connection)))

    def rotate(self, login, **changes):
        fields = {name: getattr(login, name) for name in ("user_id", "generation", "expires_at")}
        claims = RefreshClaims(**({"login_id": login.id} | fields | changes))
        return self._run(rotate, claims, now=self.clock.now())

    def end(self, login_id, reason="logout"):
        return self._run(end_login, login_id, reason, self.clock.now())

    def end_all(self, user_id, **fields):
        return self._run(end_logins_of, user_id, "password", self.clock.now(), **fields)

    def ended(self, since=0):
        return self.database.read(lambda connection: ended_logins(connection, since))

    def reasons(self):
        query = select(logins.c.end_reason).where(logins.c.ended_at.is_not(None)).order_by(logins.c.revision)
        return self.database.read(lambda connection: list(connection.scalars(query)))

    def delete_old(self):
        return self._run(delete_old, self.clock.now())

    def count(self):
        return self.database.read(lambda connection: connection.scalar(select(func.count()).select_from(logins)))


@pytest.fixture
def book(database, clock):
    return Book(database, clock)


@pytest.fixture
def ada(book):
    return book.user()


def test_a_login_begins_with_generation_0_and_lasts_seven_days(book, ada, clock):
    login = book.start(ada)
    assert (login.user_id, login.generation, login.expires_at) == (ada, 0, clock.now() + 7 * DAY)
    assert len(login.id) == 16
    assert book.ended() == []


def test_a_refresh_counts_the_generation_and_lasts_seven_days_more(book, ada, clock):
    login = book.start(ada)
    clock.at += DAY
    refreshed = book.rotate(login)
    assert refreshed == Login(id=login.id, user_id=ada, generation=1, expires_at=clock.now() + REFRESH_SECONDS)
    assert book.rotate(refreshed).generation == 2


def test_a_login_ends_thirty_days_after_it_began_however_often_it_is_refreshed(book, ada, clock):
    began = clock.now()
    login = book.start(ada)
    for _ in range(5):
        clock.at += 6 * DAY - 1
        login = book.rotate(login)
    assert login.expires_at == began + LOGIN_SECONDS
    clock.at = login.expires_at
    assert book.rotate(login) is Refused.EXPIRED
    assert book.ended() == []


def test_a_refresh_token_that_comes_twice_ends_the_login_for_both_holders(book, ada):
    first = book.start(ada)
    second = book.rotate(first)
    assert book.rotate(first) is Refused.REUSED
    assert book.rotate(second) is Refused.ENDED
    assert book.reasons() == ["reuse"]
    assert [ended.id for ended in book.ended()] == [first.id]


def test_a_second_reuse_changes_nothing(book, ada):
    first = book.start(ada)
    book.rotate(first)
    book.rotate(first)
    ended = book.ended()
    assert book.rotate(first) is Refused.ENDED
    assert book.ended() == ended


def test_a_generation_of_before_a_restored_backup_ends_the_login(book, ada):
    login = book.start(ada)
    assert book.rotate(login, generation=4) is Refused.REUSED


def test_a_token_of_an_unknown_login_or_of_another_user_buys_nothing(book, ada):
    login = book.start(ada)
    assert book.rotate(login, login_id="f" * 16) is Refused.ENDED
    assert book.rotate(login, user_id=book.user("eve@example.com")) is Refused.ENDED
    assert book.rotate(login).generation == 1


def test_a_disabled_user_refreshes_nothing_also_after_he_is_enabled_again(book, ada, database):
    login = book.start(ada)
    for active, answer in ((False, Refused.DISABLED), (True, Refused.ENDED)):
        changes = UserChanges(active=active)
        database.write(lambda connection, changes=changes: change_user(connection, ada, changes))
        assert book.rotate(login) is answer
    assert book.reasons() == ["disabled"]


def test_a_login_ends_once(book, ada):
    login = book.start(ada)
    assert book.end(login.id) is True
    assert book.end(login.id) is False
    assert book.end("unknown") is False
    assert book.rotate(login) is Refused.ENDED
    assert book.reasons() == ["logout"]


def test_all_logins_of_a_user_end_but_the_one_that_asks(book, ada):
    kept, *others = [book.start(ada) for _ in range(4)]
    stranger = book.start(book.user("eve@example.com"))
    assert book.end_all(ada, except_login=kept.id) == 3
    assert {ended.id for ended in book.ended()} == {login.id for login in others}
    assert book.rotate(kept).generation == 1
    assert book.rotate(stranger).generation == 1
    assert book.end_all(ada) == 1
    assert book.end_all(ada) == 0


def test_who_has_seen_a_revision_is_told_only_what_came_later(book, ada):
    first, second, third = [book.start(ada) for _ in range(3)]
    book.end(second.id)
    seen = book.ended()[-1].revision
    book.end(first.id)
    assert [ended.id for ended in book.ended(seen)] == [first.id]
    book.end(third.id)
    revisions = [ended.revision for ended in book.ended()]
    assert revisions == sorted(set(revisions))


def test_an_ended_login_is_remembered_as_long_as_its_tokens_and_its_jobs_live(book, ada, clock):
    login = book.start(ada)
    book.end(login.id)
    assert book.ended()[0].expires_at == clock.now() + REMEMBERED_SECONDS
    assert max(LONGEST_ACCESS_SECONDS, JobSettings().deadline_seconds) < REMEMBERED_SECONDS
    late = book.start(ada)
    clock.at = late.expires_at - 10
    book.end(late.id)
    assert book.ended()[-1].expires_at == clock.now() + REMEMBERED_SECONDS


def test_one_login_too_many_ends_the_oldest(book, ada):
    made = book.start_many(ada, MOST_LOGINS)
    assert book.ended() == []
    book.start(ada)
    assert [ended.id for ended in book.ended()] == [made[0].id]
    assert book.reasons() == ["too_many"]
    assert book.rotate(made[1]).generation == 1


def test_expired_logins_take_nobodys_place(book, ada, clock):
    book.start_many(ada, MOST_LOGINS)
    clock.at += REFRESH_SECONDS
    book.start(ada)
    assert book.ended() == []


def test_logins_are_deleted_thirty_days_after_they_expired(book, ada, clock):
    book.start(ada)
    ended = book.start(ada)
    book.end(ended.id)
    newest = book.start(ada)
    book.end(newest.id)
    clock.at += REFRESH_SECONDS + 30 * DAY
    assert book.delete_old() == 0
    clock.at += 1
    assert book.delete_old() == 2
    assert book.count() == 1


def test_revisions_do_not_begin_anew_when_old_logins_are_deleted(book, ada, clock):
    book.end(book.start(ada).id)
    seen = book.ended()[-1].revision
    clock.at += 100 * DAY
    book.delete_old()
    login = book.start(ada)
    book.end(login.id)
    assert [ended.id for ended in book.ended(seen)] == [login.id]
