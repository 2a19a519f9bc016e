import asyncio
import threading

import pytest

from stellwerk.core.errors import BadRequest, RateLimited, Unavailable
from stellwerk.sessions.history import Message
from stellwerk.sessions.sessions import Sessions, SessionsSettings
from stellwerk.sessions.store import FileSessions
from stellwerk.storage.failures import storage_unavailable

DEADLINE = 30.0


@pytest.fixture
def store(tmp_path):
    return FileSessions(tmp_path / ".sessions")


@pytest.fixture
def sessions(store, clock):
    return Sessions(store, clock, SessionsSettings(waiting=3))


def said(*texts):
    return tuple(
        Message(role=role, content=text) for role, text in zip(["user", "assistant"] * 99, texts, strict=False)
    )


async def test_a_session_remembers_what_was_kept(sessions):
    async with sessions.open(3, False, "m", "x") as session:
        assert session.history == ()
        assert await session.keep("q", "a")
    async with sessions.open(3, False, "m", "x") as session:
        assert session.history == said("q", "a")


async def test_the_files_of_the_local_user_stand_at_the_top(sessions, tmp_path):
    async with sessions.open(2, True, "claude-h", "mein-projekt") as session:
        await session.keep("q", "a")
    async with sessions.open(7, False, "claude-h", "mein-projekt") as session:
        await session.keep("mine", "yours")
    folder = tmp_path / ".sessions"
    assert "q" in (folder / "claude-h-mein-projekt.json").read_text()
    assert "mine" in (folder / "7" / "claude-h-mein-projekt.json").read_text()


async def test_every_user_and_every_model_has_a_session_of_its_own(sessions):
    for owner in ((3, False), (4, False), (3, True)):
        for model in ("m", "n"):
            async with sessions.open(*owner, model, "x") as session:
                assert session.history == ()
                await session.keep("q", "a")


async def test_a_bad_id_is_refused_before_anything_happens(sessions, tmp_path):
    with pytest.raises(BadRequest):
        async with sessions.open(3, False, "m", "../x"):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("user", "assistant"), [("", "a"), ("q", ""), (" ", "a"), ("q", "\n")])
async def test_an_exchange_without_words_is_not_kept(sessions, user, assistant, tmp_path):
    async with sessions.open(3, False, "m", "x") as session:
        assert not await session.keep(user, assistant)
    assert not (tmp_path / ".sessions").exists()


async def test_calls_of_one_session_come_in_the_order_in_which_they_asked(sessions):
    order = []

    async def call(number):
        async with sessions.open(3, False, "m", "x") as session:
            order.append((number, len(session.history)))
            await session.keep("q", "a")

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*map(call, range(4)))
    assert order == [(0, 0), (1, 2), (2, 4), (3, 6)]
    assert sessions.in_use == 0


async def test_sessions_do_not_wait_for_each_other(sessions):
    async with (
        asyncio.timeout(DEADLINE),
        sessions.open(3, False, "m", "x"),
        sessions.open(3, False, "m", "y"),
        sessions.open(3, False, "n", "x"),
        sessions.open(4, False, "m", "x"),
        sessions.open(3, True, "m", "x"),
    ):
        assert sessions.in_use == 5
    assert sessions.in_use == 0


async def enter(sessions):
    async with sessions.open(3, False, "m", "x"):
        pass


async def test_more_than_a_few_may_not_wait(sessions):
    async with sessions.open(3, False, "m", "x"):
        waiting = [asyncio.create_task(enter(sessions)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited) as caught:
            await enter(sessions)
        assert (caught.value.code, caught.value.retry_after) == ("session_busy", 1.0)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*waiting)
    assert sessions.in_use == 0


async def test_who_waits_gives_up_at_the_deadline(sessions, clock):
    async with sessions.open(3, False, "m", "x"):
        with pytest.raises(Unavailable) as caught:
            async with sessions.open(3, False, "m", "x", deadline=clock.monotonic() + 0.01):
                pass
        assert caught.value.code == "session_busy"
        with pytest.raises(Unavailable):
            async with sessions.open(3, False, "m", "x", deadline=clock.monotonic() - 1):
                pass
    await enter(sessions)
    assert sessions.in_use == 0


async def test_a_client_that_leaves_while_it_waits_holds_nobody_up(sessions):
    async with sessions.open(3, False, "m", "x"):
        gone, stays = (asyncio.create_task(enter(sessions)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    async with asyncio.timeout(DEADLINE):
        await stays
    assert sessions.in_use == 0


async def test_a_call_that_fails_gives_its_session_back(sessions):
    with pytest.raises(ZeroDivisionError):
        async with sessions.open(3, False, "m", "x"):
            raise ZeroDivisionError
    await enter(sessions)
    assert sessions.in_use == 0


class SlowStore:
    """A disk that takes as long as the test wants."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()
        self.done = []

    def read(self, owner_folder, model, session_id):
        return list(self.done)

    def append(self, owner_folder, model, session_id, user, assistant):
        self.begun.set()
        assert self.go.wait(DEADLINE)
        self.done += said(user, assistant)


async def test_a_client_that_leaves_while_its_answer_is_written_gives_the_session_on_afterwards(clock):
    store = SlowStore()
    sessions = Sessions(store, clock)

    async def call():
        async with sessions.open(3, False, "m", "x") as session:
            await session.keep("q", "a")

    task = asyncio.create_task(call())
    assert await asyncio.to_thread(store.begun.wait, DEADLINE)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert sessions.in_use == 1
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with sessions.open(3, False, "m", "x") as session:
        assert session.history == said("q", "a")


class FailingStore:
    def read(self, owner_folder, model, session_id):
        if session_id == "unreadable":
            raise storage_unavailable()
        return []

    def append(self, owner_folder, model, session_id, user, assistant):
        raise storage_unavailable()


async def test_an_answer_that_cannot_be_written_is_still_an_answer(clock, caplog):
    async with Sessions(FailingStore(), clock).open(3, False, "m", "x") as session:
        assert not await session.keep("q", "a")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_history_that_cannot_be_read_refuses_the_call(clock):
    sessions = Sessions(FailingStore(), clock)
    with pytest.raises(Unavailable):
        async with sessions.open(3, False, "m", "unreadable"):
            pass
    assert sessions.in_use == 0
