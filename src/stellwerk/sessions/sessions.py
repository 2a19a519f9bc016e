"""Who may write to a session now: calls of one session come one after the other, each with what the last one kept."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from stellwerk.core.clock import Clock
from stellwerk.core.errors import RateLimited, Unavailable
from stellwerk.sessions.history import Message
from stellwerk.sessions.names import check_session_id

__all__ = ["Message", "Session", "SessionStore", "Sessions", "SessionsSettings", "check_session_id"]

_BUSY = "session_busy"
_log = logging.getLogger(__name__)

Result = TypeVar("Result")
_Key = tuple[str, str, str]


class SessionsSettings(msgspec.Struct, frozen=True, kw_only=True):
    waiting: int = 32
    """Calls that may wait for one session."""
    wait_seconds: float = 600.0
    """How long one of them waits when the call itself has no nearer deadline."""


class SessionStore(Protocol):
    """Where histories are kept. Both wait for a disk or a database and are called in threads."""

    def read(self, owner_folder: str, model: str, session_id: str) -> list[Message]: ...

    def append(self, owner_folder: str, model: str, session_id: str, user: str, assistant: str) -> None: ...


class Session:
    """One session while a call has it for itself."""

    def __init__(self, history: tuple[Message, ...], append: Callable[[str, str], None]) -> None:
        self.history = history
        """What was kept before this call, oldest first."""
        self._append = append

    async def keep(self, user: str, assistant: str) -> bool:
        """Adds a question and its answer. False when there is nothing to keep or the storage failed, which is logged.

        It does not raise for the storage: the answer has been paid for and may be with the client already.
        """
        if not user.strip() or not assistant.strip():
            return False
        try:
            await _in_thread(partial(self._append, user, assistant))
        except Unavailable:
            _log.error("an answer could not be kept in its session")
            return False
        return True


class _Turns:
    __slots__ = ("calls", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.calls = 0
        """How many have the session or wait for it."""


class Sessions:
    """Gives each session to one call at a time, in the order in which they asked. Belongs to one event loop."""

    def __init__(self, store: SessionStore, clock: Clock, settings: SessionsSettings | None = None) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or SessionsSettings()
        # Holds what is in use only, so it is never larger than the number of calls.
        self._turns: dict[_Key, _Turns] = {}

    @property
    def in_use(self) -> int:
        """Sessions that somebody has or waits for."""
        return len(self._turns)

    @asynccontextmanager
    async def open(
        self, user_id: int, is_local: bool, model: str, session_id: str, *, deadline: float | None = None
    ) -> AsyncIterator[Session]:
        """Waits for the session until `deadline` (monotonic seconds) and reads its history.

        Raises BadRequest for a bad id, RateLimited when too many wait and Unavailable when the time is up, both with
        code `session_busy`, and Unavailable, code `storage_unavailable`.
        """
        check_session_id(session_id)
        key = ("" if is_local else str(user_id), model, session_id)
        async with self._turn(key, deadline):
            history = await _in_thread(partial(self._store.read, *key))
            yield Session(tuple(history), partial(self._store.append, *key))

    @asynccontextmanager
    async def _turn(self, key: _Key, deadline: float | None) -> AsyncIterator[None]:
        turns = self._turns.setdefault(key, _Turns())
        if turns.calls > self._settings.waiting:
            raise RateLimited("Too many requests wait for this session.", code=_BUSY, retry_after=1.0)
        turns.calls += 1
        try:
            await self._wait(turns.lock, deadline)
            try:
                yield
            finally:
                turns.lock.release()
        finally:
            turns.calls -= 1
            if not turns.calls:
                del self._turns[key]

    async def _wait(self, lock: asyncio.Lock, deadline: float | None) -> None:
        seconds = self._settings.wait_seconds
        if deadline is not None:
            seconds = min(seconds, deadline - self._clock.monotonic())
        try:
            async with asyncio.timeout(seconds):
                await lock.acquire()
        except TimeoutError:
            raise Unavailable(
                "Another request of this session has not ended yet.", code=_BUSY, retry_after=1.0
            ) from None


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Returns or raises only when the thread is done: until then the session must not go to somebody else."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        # A failure that nobody waits for any more would be reported as forgotten.
        if not running.cancelled():
            running.exception()
        raise
