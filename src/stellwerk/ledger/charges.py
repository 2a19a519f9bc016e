"""Lets a paying call begin: sets its money aside first, and closes the hold when the call is over.

Holds are made and closed in the database, in the writer's next transaction, so they are exact over all processes that
share it. What stands in memory is only who waits for money that other calls of the same user may give back, and what
could not be stored yet.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Unavailable
from stellwerk.core.outcome import Estimate
from stellwerk.core.plan import Price
from stellwerk.ledger.budgets import prune
from stellwerk.ledger.demands import make_demand, refusal
from stellwerk.ledger.holds import (
    RECOVERED_AT_ONCE,
    RELEASED,
    SETTLED,
    Ask,
    Closing,
    Demand,
    Recovered,
    Shortage,
    close_hold,
    place_holds,
    recover,
)

_log = logging.getLogger(__name__)

Answer = int | Shortage
"""The amount that is held, or why there is none."""

_LOOK_SECONDS = 0.25
"""How often a line looks for what other processes have given back."""

_TRIED_AT_ONCE = 100
_STORED_AT_ONCE = 256


class ChargeSettings(msgspec.Struct, frozen=True, kw_only=True):
    currency: str = "EUR"
    assumed_output_tokens: int = 1024
    """For a call that does not say how much it wants."""
    wait_seconds: float = 10.0
    """How long a call waits for money that is held for other calls of its user."""
    waiting_calls: int = 1_000
    """Calls of one user that may wait; further ones are refused at once."""
    unstored: int = 20_000
    """Closed holds that may wait for the storage; the process that starts next closes further ones."""
    retry_seconds: float = 0.1
    """Pause before the first new attempt to store them; it doubles up to `longest_retry_seconds`."""
    longest_retry_seconds: float = 5.0


class Submit(Protocol):
    """`Writer.submit`."""

    def __call__(self, work: Callable[[Connection], Any], /) -> Future[Any]: ...


class Run(Protocol):
    """`Writer.run`."""

    def __call__(self, work: Callable[[Connection], Any], /) -> Awaitable[Any]: ...


class Hold:
    """Money set aside for one call. Whoever has it ends it with `settle` or `release`.

    Both do it once: what comes later does nothing. Neither waits nor raises.
    """

    __slots__ = ("_close", "amount")

    def __init__(self, amount: int = 0, close: Callable[[str, int, bool], None] | None = None) -> None:
        self.amount = amount
        """Micro units; 0 for a call that needs none."""
        self._close = close

    def settle(self, cost: int, *, estimated: bool = False) -> None:
        """The call has cost that much, in micro units; more than the hold is taken from what is available."""
        self._end(SETTLED, cost, estimated)

    def release(self) -> None:
        """There is nothing to pay."""
        self._end(RELEASED, 0, False)

    def _end(self, state: str, cost: int, estimated: bool) -> None:
        close, self._close = self._close, None
        if close is not None:
            close(state, cost, estimated)


class _Due(msgspec.Struct, frozen=True):
    """A hold that has ended and has to be closed in the database."""

    user_id: int
    closing: Closing


class _Waiting(msgspec.Struct, frozen=True):
    demand: Demand
    until: float
    """Monotonic seconds after which it takes what there is."""


class _Line:
    """The calls of one user that wait; they are tried together, so a long line costs hardly more than a short one."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[Answer], _Waiting] = {}
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Charges:
    """Holds of this process. For the event loop's thread alone; `recover` comes before the first call."""

    def __init__(self, run: Run, submit: Submit, clock: Clock, settings: ChargeSettings | None = None) -> None:
        self.owner = secrets.token_hex(16)
        """Marks the holds of this process."""
        self.settings = settings or ChargeSettings()
        """May be replaced; calls that come take the new ones."""
        self.lost = 0
        """Closed holds that could not be stored; they stay open until the next start."""
        self._run = run
        self._submit = submit
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: dict[int, _Line] = {}
        self._unstored: deque[_Due] = deque()
        self._retrying: asyncio.Task[None] | None = None

    @property
    def unstored(self) -> int:
        """Closed holds that wait for the storage to take them."""
        return len(self._unstored)

    @property
    def waiting(self) -> int:
        """Calls that wait for money."""
        return sum(len(line.waiting) for line in self._lines.values())

    async def hold(self, call: Call, prices: Sequence[Price], estimate: Estimate) -> Hold:
        """Sets aside what `call` is expected to cost at the dearest of `prices`, after which it may begin.

        Waits while other calls of the same user hold what it lacks. Raises InsufficientCredit, code
        `insufficient_credits` or `budget_exceeded`, and Unavailable when the storage takes nothing.
        """
        demand = make_demand(call, prices, estimate, self.owner, self.settings.assumed_output_tokens)
        if demand is None:
            return Hold()
        self._loop = asyncio.get_running_loop()
        answer = (await self._place([Ask(demand, patient=True)]))[0]
        if isinstance(answer, Shortage) and answer.may_wait:
            until = min(self._clock.monotonic() + self.settings.wait_seconds, call.deadline)
            answer = await self._wait(_Waiting(demand, until), answer)
        if isinstance(answer, Shortage):
            raise refusal(demand, answer.room, self._clock.now(), self.settings.currency)
        return Hold(answer, partial(self._close, demand))

    async def recover(self) -> list[Recovered]:
        """Closes what processes that are gone have left open, and forgets budget windows of long ago."""
        found: list[Recovered] = []
        while True:
            some = await self._run(partial(recover, owner=self.owner, now=self._clock.now()))
            found += some
            if len(some) < RECOVERED_AT_ONCE:
                break
        await self._run(partial(prune, now=self._clock.now()))
        return found

    async def stop(self) -> None:
        """Gives up waiting; what is not stored yet goes to the writer once more. The writer is closed after this."""
        tasks = [line.task for line in self._lines.values()]
        tasks.append(self._retrying)
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        while self._unstored:
            self._submit(partial(close_hold, closing=self._unstored.popleft().closing))

    async def _place(self, asks: Sequence[Ask]) -> list[Answer]:
        future = self._submit(partial(place_holds, asks=asks, now=self._clock.now()))
        try:
            answers: list[Answer] = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # Nobody is there any more to whom the money could be given, but it may be held all the same.
            if not future.cancel():
                future.add_done_callback(partial(self._give_back, asks))
            raise
        return answers

    def _give_back(self, asks: Sequence[Ask], future: Future[list[Answer]]) -> None:
        """May run in the writer's thread."""
        if future.exception() is None:
            for ask, answer in zip(asks, future.result(), strict=True):
                if isinstance(answer, int):
                    self._call_soon(self._close, ask.demand, RELEASED, 0, False)

    async def _wait(self, mine: _Waiting, answer: Shortage) -> Answer:
        user_id = mine.demand.user_id
        line = self._lines.get(user_id)
        if line is None:
            line = self._lines[user_id] = _Line()
            line.task = asyncio.create_task(self._serve(user_id, line))
        elif len(line.waiting) >= self.settings.waiting_calls:
            return answer
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        line.waiting[waiter] = mine
        # Something may have been given back since the answer was found, when nobody listened yet.
        line.changed.set()
        try:
            return await waiter
        except asyncio.CancelledError:
            # The answer and the end of the call may come in the same moment.
            if not waiter.cancelled() and waiter.exception() is None and isinstance(waiter.result(), int):
                self._close(mine.demand, RELEASED, 0, False)
            raise
        finally:
            line.waiting.pop(waiter, None)

    async def _serve(self, user_id: int, line: _Line) -> None:
        """Tries everybody in the line whenever something may have changed, until nobody is left."""
        failure: Exception = Unavailable("The gateway is stopping.", code="shutting_down")
        try:
            while line.waiting:
                line.changed.clear()
                await self._try_all(line)
                if line.waiting:
                    last = min(mine.until for mine in line.waiting.values())
                    pause = min(_LOOK_SECONDS, last - self._clock.monotonic())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await line.changed.wait()
        except Exception as error:  # noqa: BLE001 - the supervisor of a line: each call in it hears what has failed
            failure = error
        finally:
            del self._lines[user_id]
            for waiter in line.waiting:
                if not waiter.done():
                    waiter.set_exception(failure)

    async def _try_all(self, line: _Line) -> None:
        everybody = iter(list(line.waiting.items()))
        while some := list(islice(everybody, _TRIED_AT_ONCE)):
            now = self._clock.monotonic()
            answers = await self._place([Ask(mine.demand, patient=now < mine.until) for _, mine in some])
            for (waiter, mine), answer in zip(some, answers, strict=True):
                if isinstance(answer, Shortage) and answer.may_wait:
                    continue
                line.waiting.pop(waiter, None)
                if not waiter.done():
                    waiter.set_result(answer)
                elif isinstance(answer, int):
                    self._close(mine.demand, RELEASED, 0, False)

    def _close(self, demand: Demand, state: str, cost: int, estimated: bool) -> None:
        closing = Closing(hold_id=demand.hold_id, state=state, cost=cost, estimated=estimated, at=self._clock.now())
        due = _Due(demand.user_id, closing)
        self._submit(partial(close_hold, closing=closing)).add_done_callback(partial(self._heard, due))

    def _heard(self, due: _Due, future: Future[bool]) -> None:
        """Runs in the writer's thread, after the commit."""
        if future.exception() is not None or due.user_id in self._lines:
            self._call_soon(self._stored, due, future)

    def _stored(self, due: _Due, future: Future[bool]) -> None:
        error = future.exception()
        if error is None:
            if line := self._lines.get(due.user_id):
                line.changed.set()
        elif isinstance(error, Unavailable):
            self._keep(due)
        else:
            self._lose(due, error)

    def _keep(self, due: _Due) -> None:
        if len(self._unstored) >= self.settings.unstored:
            self._lose(due, None)
            return
        self._unstored.append(due)
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._store_later())

    def _lose(self, due: _Due, error: BaseException | None) -> None:
        self.lost += 1
        _log.error("the hold %s could not be closed; the next start does it", due.closing.hold_id, exc_info=error)

    async def _store_later(self) -> None:
        pause = self.settings.retry_seconds
        while self._unstored:
            await asyncio.sleep(pause)
            some = list(islice(self._unstored, _STORED_AT_ONCE))
            futures = [self._submit(partial(close_hold, closing=due.closing)) for due in some]
            await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
            failed = False
            for due, future in zip(some, futures, strict=True):
                self._unstored.popleft()
                failed = failed or future.exception() is not None
                self._stored(due, future)
            pause = min(pause * 2, self.settings.longest_retry_seconds) if failed else self.settings.retry_seconds

    def _call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        # Without a loop the process ends, and the next start closes what is still open.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)
