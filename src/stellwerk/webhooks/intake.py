"""Takes messages on the hot path and stores them in the writer's next transaction."""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection

from stellwerk.core.errors import Unavailable
from stellwerk.storage.sealing import Seal
from stellwerk.webhooks.outbox import NewMessage, append

MOST_WAITING = 10_000
"""Messages that may wait in memory for the storage; later ones are dropped and counted."""
MOST_WAITING_BYTES = 32 * 1024 * 1024
_STORED_AT_ONCE = 500

_log = logging.getLogger(__name__)


class Submit(Protocol):
    """`Writer.submit`."""

    def __call__(self, work: Callable[[Connection], Any], /) -> Future[Any]: ...


class Intake:
    """Messages that are not on the disk yet. For the event loop's thread alone."""

    def __init__(self, submit: Submit, seal: Seal, *, stored: Callable[[], None]) -> None:
        """`stored` is called when messages have reached the outbox."""
        self.dropped: Counter[int] = Counter()
        """Messages that are lost because too many waited, by subscription."""
        self.refused: deque[int] = deque()
        """Subscriptions of lost messages that are not counted yet: every thread may append to it."""
        self._submit = submit
        self._seal = seal
        self._tell_stored = stored
        self._waiting: list[NewMessage] = []
        self._bytes = 0
        self._storing: asyncio.Future[None] | None = None
        self._full: set[int] = set()

    @property
    def waiting(self) -> int:
        """Messages that are not handed to the storage, or that it has refused."""
        return len(self._waiting)

    def add(self, message: NewMessage) -> None:
        """Takes a message whose body is not sealed yet. Never waits and never raises."""
        if len(self._waiting) >= MOST_WAITING or self._bytes + len(message.body) > MOST_WAITING_BYTES:
            self._drop(Counter([message.subscription_id]))
            return
        self._waiting.append(message)
        self._bytes += len(message.body)
        if self._storing is None:
            self.store()

    def store_with(self, connection: Connection, messages: Sequence[NewMessage]) -> None:
        """Stores messages in a transaction of somebody else's. In the writer's thread."""
        if messages:
            self.refused.extend(_store(connection, seal=self._seal, batch=messages).elements())

    def count_dropped(self) -> Counter[int]:
        """Messages that are lost, by subscription."""
        while self.refused:
            self.dropped[self.refused.popleft()] += 1
        return self.dropped

    def store(self) -> None:
        """Begins to store what waits, unless that is under way."""
        if self._storing is not None or not self._waiting:
            return
        batch, self._waiting = self._waiting[:_STORED_AT_ONCE], self._waiting[_STORED_AT_ONCE:]
        loop = asyncio.get_running_loop()
        self._storing = loop.create_future()
        future = self._submit(partial(_store, seal=self._seal, batch=batch))
        future.add_done_callback(partial(self._call_back, loop, batch))

    async def flush(self) -> None:
        """Returns when everything that waited is stored, or the storage has refused it."""
        self.store()
        while (storing := self._storing) is not None:
            await asyncio.shield(storing)

    def _call_back(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[NewMessage], future: Future[Counter[int]]
    ) -> None:
        # The writer's thread calls this; at the very end there may be no loop any more that wants to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._finish, batch, future)

    def _finish(self, batch: Sequence[NewMessage], future: Future[Counter[int]]) -> None:
        storing, self._storing = self._storing, None
        if self._settle(batch, future):
            self.store()
        if storing is not None and not storing.done():
            storing.set_result(None)

    def _settle(self, batch: Sequence[NewMessage], future: Future[Counter[int]]) -> bool:
        """Whether the storage takes messages."""
        error = future.exception()
        if isinstance(error, Unavailable):
            self._waiting[:0] = batch
            return False
        self._bytes -= sum(len(message.body) for message in batch)
        if error is not None:
            _log.error("%d webhook messages could not be stored", len(batch), exc_info=error)
            self.dropped.update(message.subscription_id for message in batch)
            return True
        dropped = future.result()
        self._drop(dropped)
        self._full -= {message.subscription_id for message in batch} - dropped.keys()
        self._tell_stored()
        return True

    def _drop(self, dropped: Counter[int]) -> None:
        self.dropped += dropped
        for subscription_id in dropped.keys() - self._full:
            _log.error("too many messages wait for the webhook %d: new ones are dropped", subscription_id)
        self._full |= dropped.keys()


def _store(connection: Connection, *, seal: Seal, batch: Sequence[NewMessage]) -> Counter[int]:
    # Sealed here, in the writer's thread, where it delays nobody.
    sealed = (msgspec.structs.replace(message, body=seal_body(seal, message.id, message.body)) for message in batch)
    return append(connection, list(sealed))


def seal_body(seal: Seal, message_id: str, body: bytes) -> bytes:
    """A body as it is stored: it can be opened as that of this message alone."""
    return seal.seal(body, purpose=message_id.encode())


def open_body(seal: Seal, message_id: str, sealed: bytes) -> bytes:
    """The reverse of `seal_body`. Raises SealBroken."""
    return seal.open(sealed, purpose=message_id.encode())
