"""The line: one call from an API to an upstream and its answer back. Read this first."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import ClientLeft, Forbidden, GatewayError
from stellwerk.core.outcome import Estimate
from stellwerk.core.plan import Plan, Price, Target
from stellwerk.core.ports import Hold, Likely, Reply
from stellwerk.core.principal import Principal, Tier
from stellwerk.http.exchange import Headers, header_text
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.estimate import LateEstimate
from stellwerk.pipeline.meter import CallMeter, RunningCall
from stellwerk.pipeline.settle import Settle

_LEAST_PRICE = Price(request=1_000_000)
"""A millionth: the least that can be set aside."""


class Permit(Protocol):
    """The right to run one call; `headers` tell the client what is left of its limits."""

    headers: Headers

    def release(self, tokens: int | None = None) -> None:
        """The call is over and used up so many tokens; None when nobody knows."""

    def refund(self) -> None:
        """The call was refused after all: as if it had never come."""


HoldMoney = Callable[[Call, Sequence[Price], Estimate], Awaitable[Hold]]
"""Sets money aside for a call at the dearest of the prices. Raises InsufficientCredit and Unavailable."""


class GatewayReply(Reply, Protocol):
    def admit(self, headers: Headers) -> None:
        """The call may run; `headers` go out with the answer."""

    def tell(self, error: GatewayError) -> bool:
        """Tells a client whose answer was opened while it waited that it gets none; False when it has seen nothing."""


class Gateway:
    """Carries a call through plan, admission, hold, dispatch and settlement."""

    def __init__(
        self,
        *,
        plan: Callable[[Call], Plan],
        admit: Callable[[Call, Likely, str], Permit],
        hold: HoldMoney,
        dispatch: Dispatch,
        settle: Settle,
        clock: Clock,
        default_price: Price | None = None,
        answered: Callable[[Call, Plan, Target], None] = lambda _call, _plan, _target: None,
    ) -> None:
        """`answered` is told which target of a plan answered the call."""
        self._plan = plan
        self._admit = admit
        self._hold = hold
        self._dispatch = dispatch
        self._settle = settle
        self._clock = clock
        self._answered = answered
        self.default_price = default_price
        """Of a model without a price, for who is not of the house."""
        self._running: dict[CallMeter, tuple[Principal, asyncio.Task[Any] | None]] = {}

    @property
    def in_flight(self) -> int:
        """Calls that are being answered, or wait for money."""
        return len(self._running)

    def running(self) -> list[RunningCall]:
        """The calls that are being answered, or wait for money, in the order in which they came."""
        return [meter.running() for meter in self._running]

    def end(self, call_id: str) -> int:
        """Ends the running calls of this id, and returns how many they were; ids of clients need not be unique."""
        return self._end(
            [(meter, task) for meter, (_, task) in self._running.items() if meter.call_id == call_id],
            "ended_by_operator",
        )

    def plan(self, call: Call) -> Plan:
        """Where the call would go, without making it. Raises what says that it could not be made."""
        return self._plan(call)

    async def enter(self, call: Call, model: str) -> Permit:
        """Counts a call that has no price, such as one that only loads `model`, among those of its caller; to be
        released when it is over.

        Raises RateLimited and Unavailable, and InsufficientCredit for who pays or has a budget and has nothing left.
        """
        likely = LateEstimate(call)
        permit = self._admit(call, likely, model)
        if call.principal.is_charged:
            try:
                (await self._hold(call, (_LEAST_PRICE,), likely.make())).release()
            except BaseException:
                permit.refund()
                raise
        return permit

    def cut(self, may_go_on: Callable[[Principal], bool]) -> int:
        """Ends the running calls of those who may not go on, and returns how many they were."""
        ended = [(meter, task) for meter, (principal, task) in self._running.items() if not may_go_on(principal)]
        return self._end(ended, "access_ended")

    def _end(self, ended: Sequence[tuple[CallMeter, asyncio.Task[Any] | None]], code: str) -> int:
        for meter, task in ended:
            meter.fail(Forbidden.status, code)
            if task is not None:
                task.cancel()
        return len(ended)

    async def run(self, call: Call, reply: GatewayReply) -> None:
        """Answers `call` through `reply`.

        Raises GatewayError when the client has seen nothing yet. A cancelled run closes the upstream's connection.
        Planning comes first because it is pure: a call that nobody could answer uses nothing up.
        """
        plan = self._plan(call)
        likely = LateEstimate(call)
        principal = call.principal
        default_price = None if principal.tier is Tier.ADMIN else self.default_price
        permit = self._admit(call, likely, plan.stands_for or plan.name)
        meter = CallMeter(call, self._clock, likely, default_price)
        # Before the wait for money: who is shut out meanwhile must not begin when it comes.
        self._running[meter] = principal, asyncio.current_task()
        if principal.is_charged:
            try:
                meter.hold = await self._set_aside(call, plan, likely, default_price, permit)
            except BaseException:
                del self._running[meter]
                raise
        try:
            note = plan.note
            reply.admit(
                permit.headers if note is None else (*permit.headers, (b"x-stellwerk-fallback", header_text(note)))
            )
            await self._dispatch.run(call, plan, reply, meter)
            if meter.target is not None:
                self._answered(call, plan, meter.target)
        except GatewayError as error:
            told = reply.started or reply.tell(error)
            meter.fail(200 if told else error.status, error.code)
            if not told:
                raise
        except asyncio.CancelledError:
            meter.fail(ClientLeft.status, ClientLeft.code)
            raise
        except BaseException:
            meter.fail(GatewayError.status, GatewayError.code)
            raise
        finally:
            # Nothing here may wait: a second cancellation would lose the record.
            del self._running[meter]
            outcome = self._settle(meter)
            usage = outcome.usage
            permit.release(0 if usage is None else usage.input_tokens + usage.output_tokens)

    async def _set_aside(
        self, call: Call, plan: Plan, likely: LateEstimate, default_price: Price | None, permit: Permit
    ) -> Hold:
        """The one step that waits before an upstream is asked: the money must be on the disk as held by then."""
        prices = [price for target in plan.targets if (price := target.price or default_price) is not None]
        try:
            return await self._hold(call, prices, likely.make())
        except BaseException:
            permit.refund()
            raise
