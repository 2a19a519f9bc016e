"""One thread writes for everybody: what arrives while it commits shares the next commit, and so the next fsync.

`submit` and `run` are for who must know that the write is on the disk; `Stream.append` is for who need not.
While the disk is full, locked or gone, streamed rows wait in memory up to their bound, submitted work fails with
Unavailable, and the writer tries again by itself.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Table, insert, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stellwerk.storage.failures import is_storage_failure, storage_unavailable
from stellwerk.storage.stream import InsertStatement, Item, Row, Statement, Stream
from stellwerk.storage.tables import storage_probe

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

Taken = list[tuple[Stream[Any], list[Any]]]

# What a single row may provoke in its encoder or in the driver: the row is at fault, not the storage.
_ROW_FAULTS = (DBAPIError, OverflowError, ValueError, TypeError, AttributeError)


class WriterSettings(msgspec.Struct, frozen=True, kw_only=True):
    gather_seconds: float = 0.05
    """How long the first streamed row waits for others to share its commit."""
    batch_rows: int = 2_000
    """Rows of one stream in one commit."""
    stream_rows: int = 100_000
    """Rows of one stream that may wait; later ones are dropped and counted."""
    waiting_works: int = 10_000
    retry_seconds: float = 0.1
    """Pause after the first failure; it doubles up to `longest_retry_seconds`."""
    longest_retry_seconds: float = 2.0


class _Work(Generic[Result]):
    __slots__ = ("future", "run")

    def __init__(self, run: Callable[[Connection], Result]) -> None:
        self.run = run
        self.future: Future[Result] = Future()


class Writer:
    """Owns the writing connection and its thread, which starts at once. `close` flushes and stops it."""

    def __init__(self, engine: Engine, settings: WriterSettings | None = None) -> None:
        self.healthy = True
        """False from a failed commit until the next good one; readiness reports `storage_unavailable`."""
        self._engine = engine
        self._settings = settings or WriterSettings()
        self._streams: list[Stream[Any]] = []
        self._statements: dict[Stream[Any], Statement] = {}
        self._works: deque[_Work[Any]] = deque()
        self._committing = 0
        """What was taken for the transaction that is not over."""
        self._moving = threading.Lock()
        """Held while something is taken or put back, so that the backlog counts it once."""
        self._connection: Connection | None = None
        self._pause = self._settings.retry_seconds
        self._lost_reported = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._closed = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="storage-writer", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """What waits for a commit, or for the end of the one that it is in."""
        with self._moving:
            return self._committing + len(self._works) + sum(len(stream.items) for stream in self._streams)

    @property
    def dropped(self) -> int:
        """Streamed rows that are lost: refused by a full queue, or by the database itself."""
        return sum(stream.dropped + stream.rejected for stream in self._streams)

    def stream(self, table: Table, columns: tuple[str, ...], encode: Callable[[Item], Row]) -> Stream[Item]:
        """A new stream into `columns` (in the table's order); its `append` is cheap enough for every request."""
        return self.stream_into(InsertStatement(table, columns, self._engine.dialect), encode)

    def stream_into(self, statement: Statement, encode: Callable[[Item], Row]) -> Stream[Item]:
        """The same into a statement of its owner's, which gets the rows of one commit at once."""
        stream = Stream(encode=encode, bound=self._settings.stream_rows, wake=self._wake.set)
        self._statements[stream] = statement
        self._streams.append(stream)
        return stream

    def submit(self, work: Callable[[Connection], Result]) -> Future[Result]:
        """Runs `work` in the writer's next transaction; the future resolves after the commit.

        Work that raises is undone alone and its error becomes the future's. Unavailable, code `storage_unavailable`,
        when the commit failed: nothing of it is stored then.
        """
        item = _Work(work)
        if self._closed.is_set() or len(self._works) >= self._settings.waiting_works:
            item.future.set_exception(storage_unavailable())
            return item.future
        self._works.append(item)
        self._wake.set()
        if self._closed.is_set():
            self._refuse_works()
        return item.future

    async def run(self, work: Callable[[Connection], Result]) -> Result:
        """`submit` for the event loop."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self, *, within: float = 10.0) -> None:
        """Commits everything that waits and stops. Rows that cannot be stored `within` seconds are lost and logged."""
        self._closing.set()
        self._wake.set()
        self._thread.join(within)
        self._abandoned.set()
        self._thread.join(within)

    def _serve(self) -> None:
        while (self.backlog or not self._closing.is_set()) and not self._abandoned.is_set():
            self._gather()
            self._commit()
        self._closed.set()
        self._refuse_works()
        self._disconnect()
        if left := self.backlog:
            _log.error("%d rows could not be stored before the end", left)

    def _gather(self) -> None:
        """Returns when there is something to commit, with streamed rows a little later so that they share it."""
        if self._may_sleep():
            self._set_idle(idle=True)
            # Looked at again after the flag is up: a row appended before that has woken nobody.
            if self._may_sleep():
                self._wake.wait(None if self.healthy else self._settings.longest_retry_seconds)
            self._set_idle(idle=False)
            self._wake.clear()
        if not self._works and not self._closing.is_set():
            self._wake.wait(self._settings.gather_seconds)
        self._wake.clear()

    def _may_sleep(self) -> bool:
        return not self.backlog and not self._closing.is_set()

    def _set_idle(self, *, idle: bool) -> None:
        for stream in self._streams:
            stream.idle = idle

    def _commit(self) -> None:
        with self._moving:
            taken: Taken = [(stream, stream.take(self._settings.batch_rows)) for stream in self._streams]
            works = [self._works.popleft() for _ in range(len(self._works))]
            works = [work for work in works if work.future.set_running_or_notify_cancel()]
            self._committing = len(works) + sum(len(items) for _, items in taken)
        if self.healthy and not self._committing:
            return
        try:
            done = self._write(taken, works)
        except Exception as error:  # noqa: BLE001 - the supervisor: whatever fails, rows are kept and tried again
            self._recover(error, taken, works)
        else:
            self._committing = 0
            self._settle(done)

    def _write(self, taken: Taken, works: list[_Work[Any]]) -> list[Callable[[], None]]:
        """One transaction. Returns what to tell the waiting ones now that it is on the disk."""
        connection = self._connection = self._connection or self._engine.connect()
        with connection.begin():
            for stream, items in taken:
                if items:
                    self._insert(connection, stream, items)
            done = [_attempt(connection, work) for work in works]
            if not self.healthy:
                _probe(connection)
        return done

    def _insert(self, connection: Connection, stream: Stream[Any], items: list[Any]) -> None:
        statement, encode = self._statements[stream], stream.encode
        try:
            with connection.begin_nested():
                statement.run(connection, [encode(item) for item in items])
        except _ROW_FAULTS as error:
            _raise_if_storage_failed(error)
            self._insert_singly(connection, stream, items)

    def _insert_singly(self, connection: Connection, stream: Stream[Any], items: list[Any]) -> None:
        """Finds the rows that can never be stored, so that they do not hold up the others for ever."""
        statement, encode = self._statements[stream], stream.encode
        for item in items:
            try:
                with connection.begin_nested():
                    statement.run(connection, [encode(item)])
            except _ROW_FAULTS as error:
                _raise_if_storage_failed(error)
                stream.rejected += 1
                _log.error("a row was refused by the database: %s", type(error).__name__)

    def _settle(self, done: list[Callable[[], None]]) -> None:
        if not self.healthy:
            _log.warning("the storage takes writes again")
        self.healthy = True
        self._pause = self._settings.retry_seconds
        if (lost := self.dropped) > self._lost_reported:
            _log.error("%d rows were lost since the start", lost)
            self._lost_reported = lost
        for tell in done:
            tell()

    def _recover(self, error: Exception, taken: Taken, works: list[_Work[Any]]) -> None:
        with self._moving:
            for stream, items in taken:
                stream.put_back(items)
            self._committing = 0
        if self.healthy:
            expected = isinstance(error, DBAPIError) and is_storage_failure(error)
            cause = error.orig if isinstance(error, DBAPIError) else error
            _log.error("the storage does not take writes: %s", cause, exc_info=None if expected else error)
        self.healthy = False
        for work in works:
            work.future.set_exception(storage_unavailable())
        self._disconnect()
        self._abandoned.wait(self._pause)
        self._pause = min(self._pause * 2, self._settings.longest_retry_seconds)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # The connection may be as broken as the disk below it; a new one is made for the next attempt.
            with contextlib.suppress(SQLAlchemyError, sqlite3.Error):
                connection.close()

    def _refuse_works(self) -> None:
        while self._works:
            work = self._works.popleft()
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(storage_unavailable())


def _attempt(connection: Connection, work: _Work[Any]) -> Callable[[], None]:
    savepoint = connection.begin_nested()
    try:
        result = work.run(connection)
    except Exception as error:  # noqa: BLE001 - it belongs to whoever submitted the work
        _raise_if_storage_failed(error)
        savepoint.rollback()
        return partial(work.future.set_exception, error)
    savepoint.commit()
    return partial(work.future.set_result, result)


def _raise_if_storage_failed(error: Exception) -> None:
    if isinstance(error, DBAPIError) and is_storage_failure(error):
        raise error


def _probe(connection: Connection) -> None:
    """Writes one row, so that a healthy writer is one whose disk has really taken something."""
    at = time.time()
    if connection.execute(update(storage_probe).values(at=at)).rowcount == 0:
        connection.execute(insert(storage_probe).values(id=1, at=at))
