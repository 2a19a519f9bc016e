"""Tries the targets of a plan in order, and those that may recover once more."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.errors import (
    BadRequest,
    GatewayError,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from stellwerk.core.plan import Plan, Target
from stellwerk.core.ports import Meter, Provider, Reply
from stellwerk.limits.gate import Gate
from stellwerk.pipeline.image_links import find_image_links
from stellwerk.pipeline.images import FetchedImages, Images
from stellwerk.pipeline.meter import CallMeter
from stellwerk.routing.breaker import Breakers, Probe
from stellwerk.routing.choice import Traffic

_NO_TURN = frozenset({"circuit_open", "queue_full", "queue_timeout", "memory_short", "engine_died"})
"""Who was not let in, or waited for long, does not stand in line again; memory does not grow in a few seconds; and what
brought a model's engine down twice must not use up its restarts: others need the model too."""
_OF_A_PAGE = frozenset({"ocr_crashed", "ocr_timeout", "ocr_failed"})
"""A page can be made to bring its reader down, which is replaced: nobody else has to wait for that."""
_FIRST_WAIT, _LONGEST_BACK_OFF = 0.5, 5.0
LONGEST_WAIT: Final = 30.0
"""Seconds that a call waits for a target. Who is told to wait longer is told so: his client knows better what to do."""


class DispatchWatch(Protocol):
    def fell_back(self) -> None:
        """A target failed and the next one is tried."""

    def retried(self) -> None:
        """A target failed and is tried once more."""


class Dispatch:
    """Sends a call to the first target that answers. After the first byte to the client there is no second attempt."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        watch: DispatchWatch,
        attempts: int,
        breakers: Breakers,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        gate: Callable[[Target], Gate | None] = lambda _: None,
        traffic: Traffic | None = None,
        images: Images | None = None,
    ) -> None:
        """`attempts` are the most for one call, over all of its targets. `gate` is where the calls of a target wait for
        their turn; `traffic` is told of each that is running; `images` fetches those that a provider does not."""
        self.providers = providers
        self._watch = watch
        self.attempts = attempts
        self._breakers = breakers
        self._clock = clock
        self._sleep = sleep
        self._gate = gate
        self._traffic = traffic or Traffic(clock)
        self._images = images

    async def run(self, call: Call, plan: Plan, reply: Reply, meter: CallMeter) -> None:
        """Raises the error of the last attempt when none brought an answer.

        Raises Unavailable, code `circuit_open`, when every target is being left alone.
        """
        first = plan.targets[0]
        probe = self._breakers.admit(first)
        error = None
        if probe is not None:
            error = await self._try(call, first, probe, reply, meter)
            if error is None:
                return
        await self._go_on(call, plan, reply, meter, error)

    async def _go_on(self, call: Call, plan: Plan, reply: Reply, meter: CallMeter, error: GatewayError | None) -> None:
        """Everything after a first target that has failed with `error`, or was not even tried."""
        attempts = self.attempts if call.attempts is None else call.attempts
        targets = plan.targets
        course = _Course(len(targets), call.deadline, self._clock)
        if error is not None:
            course.note(0, error)
        while meter.attempts < attempts:
            chosen = self._choose(targets, course)
            if chosen is None:
                wait = course.wait()
                if wait is None:
                    break
                await self._sleep(wait)
                # One that was being left alone may be free by now, and goes before a second attempt.
                chosen = self._choose(targets, course) or self._choose_again(targets, course)
                if chosen is None:
                    continue
            index, probe = chosen
            if error is not None:
                (self._watch.retried if course.was_tried(index) else self._watch.fell_back)()
            error = await self._try(call, targets[index], probe, reply, meter)
            if error is None:
                return
            course.note(index, error)
        raise error or self._left_alone(*targets)

    def _admit_again(self, target: Target) -> Probe:
        """Raises Unavailable, code `circuit_open`, for what has come to be left alone meanwhile."""
        probe = self._breakers.admit(target)
        if probe is None:
            raise self._left_alone(target)
        return probe

    def _left_alone(self, *targets: Target) -> Unavailable:
        return Unavailable(
            "The model's upstream has failed several times in a row and is left alone for a moment.",
            code="circuit_open",
            retry_after=min(map(self._breakers.wait, targets)),
            may_fall_back=True,
        )

    def _choose(self, targets: Sequence[Target], course: "_Course") -> tuple[int, Probe] | None:
        """The next target that was not tried yet and may be."""
        for index in course.untried:
            probe = self._breakers.admit(targets[index])
            if probe is not None:
                return index, probe
        return None

    def _choose_again(self, targets: Sequence[Target], course: "_Course") -> tuple[int, Probe] | None:
        """The target that is due for another attempt, when its breaker has not opened meanwhile."""
        index = course.take()
        probe = self._breakers.admit(targets[index])
        return None if probe is None else (index, probe)

    async def _try(
        self, call: Call, target: Target, probe: Probe, reply: Reply, meter: CallMeter
    ) -> GatewayError | None:
        """One attempt. Returns the error when another attempt may follow, and raises it when none may."""
        breakers = self._breakers
        meter.attempt(target)
        fetched = None
        try:
            provider = self.providers.get(target.provider)
            if provider is None:
                raise Unavailable("This model's provider is not available at the moment.", may_fall_back=True)
            images = self._images
            if provider.images_as_data and images is not None and (links := find_image_links(call)):
                # Before its turn comes, and without holding back those who would try it: a slow server elsewhere must
                # not keep a model from working.
                breakers.gave_up(target, probe)
                probe = Probe()
                fetched = await images.fetch(call, target, links)
                probe = self._admit_again(target)
            gate = self._gate(target)
            if gate is not None:
                await gate.enter(call)
            try:
                await self._ask(call, target, provider, fetched, probe, reply, meter)
            finally:
                if gate is not None:
                    gate.leave()
        except GatewayError as error:
            if is_failure(error) and not self._is_late(call, error):
                breakers.failed(target, probe, error.retry_after)
            else:
                breakers.gave_up(target, probe)
            if reply.started or not error.may_fall_back:
                raise
            return error
        except BaseException:
            breakers.gave_up(target, probe)
            raise
        finally:
            if fetched is not None:
                fetched.release()
        breakers.succeeded(target, probe)
        return None

    async def _ask(
        self,
        call: Call,
        target: Target,
        provider: Provider,
        fetched: FetchedImages | None,
        probe: Probe,
        reply: Reply,
        meter: CallMeter,
    ) -> None:
        wire = provider.wire(call.operation, call.wire)
        if wire is None:
            raise BadRequest(
                f"The model '{call.model}' cannot be used for this.", param="model", code="unsupported_operation"
            )
        watched: Meter = meter
        if probe.breaker is not None:
            watched = _ProbeMeter(meter, partial(self._breakers.succeeded, target, probe))
        traffic = self._traffic if self._traffic.counts else None
        if traffic is not None:
            traffic.begin(target)
        try:
            if fetched is None:
                answer = await provider.send(call, target, wire, reply.fields(wire))
            else:
                answer = await provider.send(call, target, wire, fetched.fields)
                # The upstream has them.
                fetched.release()
            meter.upstream_key = answer.key
            try:
                if wire is call.wire:
                    await reply.relay(answer, target, watched)
                else:
                    await reply.render(provider.events(answer, wire, stream=call.stream), answer, target, watched)
            finally:
                # Complete answers do not mind; an unfinished one must not go on when nobody reads it any more.
                answer.abort()
        finally:
            if traffic is not None:
                traffic.end(target)

    def _is_late(self, call: Call, error: GatewayError) -> bool:
        """Whether the time was up that the call had: a client that gives little of it says nothing about the target."""
        return isinstance(error, UpstreamTimeout) and self._clock.monotonic() >= call.deadline


class _Course:
    """Which targets of one call, by their place in the plan, are still to be tried, and when."""

    def __init__(self, count: int, deadline: float, clock: Clock) -> None:
        self.untried = list(range(count))
        self._due: dict[int, float] = {}
        self._deadline = deadline
        self._clock = clock
        self._retries = 0

    def was_tried(self, index: int) -> bool:
        return index not in self.untried

    def note(self, index: int, error: GatewayError) -> None:
        """The target was tried and failed; whether and when it is due again depends on the error."""
        if self.was_tried(index):
            self._retries += 1
        else:
            self.untried.remove(index)
        if not is_transient(error):
            return
        wait = max(back_off(self._retries), error.retry_after or 0.0)
        due = self._clock.monotonic() + wait
        if wait <= LONGEST_WAIT and due < self._deadline:
            self._due[index] = due

    def wait(self) -> float | None:
        """Seconds until a target is due for another attempt; None when none ever is."""
        if not self._due:
            return None
        return max(0.0, min(self._due.values()) - self._clock.monotonic())

    def take(self) -> int:
        """The target that is due first. It is not due any more."""
        index = min(self._due, key=self._due.__getitem__)
        del self._due[index]
        return index


class _ProbeMeter:
    """A meter that tells a breaker as soon as the answer begins, so that a long one holds nobody back."""

    def __init__(self, meter: Meter, begun: Callable[[], None]) -> None:
        self._meter = meter
        self._begun = begun
        self.deliver = meter.deliver
        self.count = meter.count

    def begin(self) -> float:
        self._begun()
        return self._meter.begin()


def is_failure(error: GatewayError) -> bool:
    """Whether the upstream failed: not the request, not our credentials, and no limit of ours or of its own."""
    if isinstance(error, UpstreamError):
        return not isinstance(error, UpstreamRefused) and error.code not in _OF_A_PAGE
    return isinstance(error, Unavailable) and error.code == "upstream_overloaded"


def is_transient(error: GatewayError) -> bool:
    """Whether the same target may do better in a moment."""
    if not error.may_fall_back or isinstance(error, UpstreamRefused) or error.code in _NO_TURN:
        return False
    return isinstance(error, UpstreamError | Unavailable | RateLimited)


def back_off(retries: int) -> float:
    """Seconds before the next attempt; a part of it is chance, so that many calls do not come back at once."""
    return float(min(_FIRST_WAIT * 2**retries, _LONGEST_BACK_OFF) * (1 - random.random() / 4))  # noqa: S311  # no secret
