"""Queues many jobs with one commit: what arrives while the storage writes goes together with its next transaction."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection

from stellwerk.core.errors import GatewayError, Unavailable
from stellwerk.jobs.admission import Entry
from stellwerk.jobs.job import Job

_MOST_WAITING = 20_000
_MOST_BYTES = 256 * 1024 * 1024
_JOBS_AT_ONCE = 500

Answers = list[list[Job] | GatewayError]
Group = tuple[Sequence[Entry], asyncio.Future[list[Job]]]


class Submit(Protocol):
    """`Writer.submit`."""

    def __call__(self, work: Callable[[Connection], Any], /) -> Future[Any]: ...


class Admit(Protocol):
    """Queues groups of jobs, each whole or not at all, in the writer's thread."""

    def __call__(self, connection: Connection, /, *, groups: list[Sequence[Entry]]) -> Answers: ...


class Intake:
    """Jobs that are not on the disk yet. For the event loop's thread alone."""

    def __init__(self, submit: Submit, admit: Admit) -> None:
        self._submit = submit
        self._admit = admit
        self._groups: list[Group] = []
        self._waiting = 0
        self._bytes = 0
        self._storing = False

    async def add(self, group: Sequence[Entry]) -> list[Job]:
        """Returns after the commit. Raises why the group was refused, or Unavailable; nothing is queued then."""
        size = sum(len(entry.new.body) for entry in group)
        if self._waiting + len(group) > _MOST_WAITING or self._bytes + size > _MOST_BYTES:
            raise Unavailable("Too many jobs arrive at once. Try again later.", retry_after=1.0)
        answered: asyncio.Future[list[Job]] = asyncio.get_running_loop().create_future()
        self._groups.append((group, answered))
        self._waiting += len(group)
        self._bytes += size
        self._store()
        try:
            return await answered
        finally:
            self._waiting -= len(group)
            self._bytes -= size

    def _store(self) -> None:
        if self._storing or not self._groups:
            return
        batch: list[Group] = []
        jobs = 0
        while self._groups and jobs < _JOBS_AT_ONCE:
            batch.append(self._groups.pop(0))
            jobs += len(batch[-1][0])
        self._storing = True
        future = self._submit(partial(self._admit, groups=[group for group, _ in batch]))
        future.add_done_callback(partial(self._call_back, asyncio.get_running_loop(), batch))

    def _call_back(self, loop: asyncio.AbstractEventLoop, batch: list[Group], future: Future[Answers]) -> None:
        # The writer's thread calls this; at the very end there may be no loop any more that wants to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._settle, batch, future)

    def _settle(self, batch: list[Group], future: Future[Answers]) -> None:
        self._storing = False
        self._store()
        error = future.exception()
        answers: Sequence[list[Job] | BaseException] = future.result() if error is None else [error] * len(batch)
        for (_, answered), answer in zip(batch, answers, strict=True):
            if answered.done():
                continue
            if isinstance(answer, BaseException):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)
