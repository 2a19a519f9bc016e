"""Which of several targets goes first: by chance and weights, by price, by what runs there, or by how quick it was."""

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.clock import Clock
from stellwerk.core.outcome import Outcome
from stellwerk.core.plan import Plan, Target

_MOST_SESSIONS = 10_000
_SESSION_SECONDS = 3600.0
_MOST_TARGETS = 10_000
_WEIGHT_OF_NEW = 0.2
"""How much the newest answer moves the mean."""
_STALE_SECONDS = 300.0
"""A target that has not been asked for so long is tried anew: it may have become quicker."""


class Choice(StrEnum):
    ORDER = "order"
    WEIGHTED = "weighted"
    LEAST_BUSY = "least-busy"
    LOWEST_COST = "lowest-cost"
    LOWEST_LATENCY = "lowest-latency"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """How the targets of one public name are chosen from."""

    choice: Choice = Choice.ORDER
    weights: tuple[float, ...] = ()
    """One for each configured target; more than one target behind it share it."""
    sticky: bool = True


class _Pace(msgspec.Struct):
    seconds: float
    at: float


Place = tuple[str, str]
"""Provider and upstream name: prices may change without the target being another one."""


class Traffic:
    """What runs where, how quick it was, and where each session was answered last. One event loop only."""

    def __init__(self, clock: Clock) -> None:
        self.counts = self.measures = True
        """Whether anybody wants to know what runs where, and how quick it was."""
        self._clock = clock
        self._running: dict[Place, int] = {}
        self._paces: OrderedDict[Place, _Pace] = OrderedDict()
        self._sessions: OrderedDict[tuple[int, str, str], tuple[Place, float]] = OrderedDict()

    def begin(self, target: Target) -> None:
        """A call is sent there."""
        place = (target.provider, target.model)
        self._running[place] = self._running.get(place, 0) + 1

    def end(self, target: Target) -> None:
        place = (target.provider, target.model)
        left = self._running.get(place, 0) - 1
        if left > 0:
            self._running[place] = left
        else:
            self._running.pop(place, None)

    def running(self, target: Target) -> int:
        return self._running.get((target.provider, target.model), 0)

    def record(self, outcome: Outcome) -> None:
        """Fills the port `Recorder`."""
        if not self.measures or outcome.error is not None or outcome.provider is None or outcome.target is None:
            return
        place = (outcome.provider, outcome.target)
        if outcome.first_byte is not None:
            pace = self._paces.get(place)
            if pace is None:
                self._paces[place] = _Pace(outcome.first_byte, self._clock.monotonic())
                if len(self._paces) > _MOST_TARGETS:
                    self._paces.popitem(last=False)
            else:
                pace.seconds += (outcome.first_byte - pace.seconds) * _WEIGHT_OF_NEW
                pace.at = self._clock.monotonic()

    def latency(self, target: Target) -> float:
        """Seconds to the first byte lately; below zero when nobody knows, so that it is found out."""
        pace = self._paces.get((target.provider, target.model))
        if pace is None or self._clock.monotonic() - pace.at > _STALE_SECONDS:
            return -1.0
        return pace.seconds

    def remember(self, call: Call, name: str, target: Target) -> None:
        """The session of a call was answered there."""
        if call.session is None:
            return
        key = (call.principal.user_id, name, call.session)
        self._sessions[key] = ((target.provider, target.model), self._clock.monotonic())
        self._sessions.move_to_end(key)
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)

    def last_place(self, call: Call, name: str) -> Place | None:
        """Where the session of a call was answered last, when that was within the hour."""
        if call.session is None:
            return None
        key = (call.principal.user_id, name, call.session)
        found = self._sessions.get(key)
        if found is None:
            return None
        place, at = found
        if self._clock.monotonic() - at > _SESSION_SECONDS:
            del self._sessions[key]
            return None
        return place


class Chooser:
    """Puts the targets of a plan in the order in which they are to be tried."""

    def __init__(
        self,
        traffic: Traffic,
        groups: Mapping[str, Group],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._traffic = traffic
        self._chance = chance
        self.take(groups)

    def take(self, groups: Mapping[str, Group]) -> None:
        """Chooses by these from now on, by public name."""
        choices = {group.choice for group in groups.values()}
        self._groups = groups
        self._traffic.counts = Choice.LEAST_BUSY in choices
        self._traffic.measures = Choice.LOWEST_LATENCY in choices

    def arrange(self, call: Call, plan: Plan) -> Plan:
        """The plan with the chosen target first; the others keep their order behind it."""
        group = self._groups.get(plan.name)
        if group is None or len(plan.targets) == 1:
            return plan
        targets = plan.targets
        place = self._traffic.last_place(call, plan.name) if group.sticky else None
        first = next((target for target in targets if (target.provider, target.model) == place), None)
        if first is None:
            first = self._choose(group, targets)
        if first is targets[0]:
            return plan
        ordered = (first, *(target for target in targets if target is not first))
        return msgspec.structs.replace(plan, targets=ordered)

    def answered(self, call: Call, plan: Plan, target: Target) -> None:
        """To be told of every success: the next call of the session goes there too."""
        group = self._groups.get(plan.name)
        if group is not None and group.sticky:
            self._traffic.remember(call, plan.name, target)

    def _choose(self, group: Group, targets: tuple[Target, ...]) -> Target:
        traffic = self._traffic
        if group.choice is Choice.WEIGHTED:
            return self._draw(group.weights, targets)
        if group.choice is Choice.LEAST_BUSY:
            return min(targets, key=traffic.running)
        if group.choice is Choice.LOWEST_COST:
            return min(targets, key=_cost)
        if group.choice is Choice.LOWEST_LATENCY:
            return min(targets, key=traffic.latency)
        return targets[0]

    def _draw(self, weights: tuple[float, ...], targets: tuple[Target, ...]) -> Target:
        shares = weights if len(weights) == len(targets) else (1.0,) * len(targets)
        left = self._chance() * sum(shares)
        for target, share in zip(targets, shares, strict=True):
            left -= share
            if left < 0:
                return target
        return targets[-1]


def _cost(target: Target) -> float:
    """What a thousand tokens in and as many out cost; without a price it is our own machine, which costs nothing."""
    price = target.price
    return 0 if price is None else price.request + 1000 * (price.input + price.output)
