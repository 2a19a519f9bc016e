"""A gateway whose seams are plain objects that a test scripts."""

import asyncio
from dataclasses import dataclass, field

import msgspec
import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Plan, Price, Target
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.gateway import Gateway
from stellwerk.pipeline.settle import Settle
from stellwerk.routing.breaker import Breakers, BreakerSettings
from tests.port_fakes import WIRES, Pause, PlayedAnswer, StillClock, make_call

PRICE = Price(input=2_000_000, output=3_000_000)
USAGE = Usage(input_tokens=10, output_tokens=20)


@dataclass
class Permit:
    headers: tuple = ((b"x-left", b"1"),)
    released: int = 0
    tokens: int | None = None
    refunded: int = 0

    def release(self, tokens=None) -> None:
        self.released += 1
        self.tokens = tokens

    def refund(self) -> None:
        self.refunded += 1


@dataclass
class Hold:
    prices: tuple
    settled: list = field(default_factory=list)
    released: int = 0

    def settle(self, cost, *, estimated) -> None:
        self.settled.append((cost, estimated))

    def release(self) -> None:
        self.released += 1


@dataclass
class House:
    """A provider that plays what it is given: an answer, an exception, or a Pause before either."""

    name: str
    plays: list = field(default_factory=list)
    operations: frozenset = frozenset(Operation)
    wires: dict = field(default_factory=lambda: dict(WIRES))
    sent: list = field(default_factory=list)
    images_as_data: bool = False

    def wire(self, operation, preferred):
        return self.wires[operation] if operation in self.operations else None

    async def send(self, call, target, wire, fields):
        self.sent.append((target, wire, fields))
        while isinstance(self.plays[0], Pause):
            await self.plays.pop(0).wait()
        play = self.plays.pop(0)
        if isinstance(play, BaseException):
            raise play
        return play

    def events(self, answer, wire, *, stream):
        return ("events of", answer, wire, stream)

    async def models(self):
        return []


class Client:
    """A reply that reads the answer piece by piece: the first piece starts it, `error` pieces break it."""

    def __init__(self, call) -> None:
        self.call = call
        self.started = False
        self.admitted = None
        self.opened = False
        self.told = []
        self.got = []
        self.rendered = []
        self.refuses_to_say = None
        self.uncounted = False

    def admit(self, headers):
        self.admitted = headers

    def fields(self, wire):
        if self.refuses_to_say is not None:
            raise self.refuses_to_say
        return {"as": wire}

    async def relay(self, answer, target, meter):
        while piece := await answer.next():
            if not self.started:
                self.started = True
                meter.begin()
            self.got.append(piece)
            meter.deliver(1, len(piece) + 350)
        if not self.uncounted:
            meter.count(USAGE)

    def tell(self, error):
        if self.opened:
            self.told.append(error)
        return self.opened

    async def render(self, events, answer, target, meter):
        self.rendered.append(events)
        self.started = True
        meter.begin()


@dataclass
class Line:
    """Everything around one gateway."""

    houses: dict = field(default_factory=lambda: {name: House(name) for name in ("a", "b", "c", "d")})
    clock: StillClock = field(default_factory=StillClock)
    permits: list = field(default_factory=list)
    outcomes: list = field(default_factory=list)
    fallbacks: int = 0
    retries: int = 0
    naps: list = field(default_factory=list)
    """Seconds of every wait between two attempts; the clock goes on by as much."""
    attempts: int = 3
    failures: int = 5
    targets: tuple = ("a", "b")
    plan_error: Exception | None = None
    admit_error: Exception | None = None
    hold_play: object = None
    """An exception for whoever wants money to be held, or a Pause before it is."""
    holds: list = field(default_factory=list)
    price: Price | None = PRICE

    def __post_init__(self) -> None:
        self.breakers = Breakers(BreakerSettings(failures=self.failures), self.clock)
        self.dispatch = Dispatch(self.houses, self, self.attempts, self.breakers, self.clock, self.sleep)
        self.gateway = Gateway(
            plan=self.plan,
            admit=self.admit,
            hold=self.hold,
            dispatch=self.dispatch,
            settle=Settle([self.outcomes.append], self.cost),
            clock=self.clock,
        )

    def fell_back(self) -> None:
        self.fallbacks += 1

    def retried(self) -> None:
        self.retries += 1

    async def sleep(self, seconds) -> None:
        self.naps.append(seconds)
        self.clock.seconds += seconds

    def plan(self, call) -> Plan:
        if self.plan_error is not None:
            raise self.plan_error
        targets = tuple(Target(provider=name, model=f"model-{name}", price=self.price) for name in self.targets)
        return Plan(name=call.model, targets=targets)

    async def hold(self, call, prices, estimate) -> Hold:
        if isinstance(self.hold_play, Pause):
            await self.hold_play.wait()
        elif self.hold_play is not None:
            raise self.hold_play
        self.holds.append(Hold(tuple(prices)))
        return self.holds[-1]

    def admit(self, call, estimate, model) -> Permit:
        if self.admit_error is not None:
            raise self.admit_error
        self.permits.append(Permit())
        return self.permits[-1]

    def cost(self, price, usage) -> int:
        return (price.input * usage.input_tokens + price.output * usage.output_tokens) // 10**6

    def play(self, **plays) -> None:
        for name, pieces in plays.items():
            self.houses[name].plays += pieces if isinstance(pieces, list) else [pieces]

    def client(self, operation=Operation.CHAT, principal=None, **fields) -> Client:
        call = make_call(operation, **fields)
        return Client(call if principal is None else msgspec.structs.replace(call, principal=principal))

    async def run(self, client=None):
        client = client or self.client()
        async with asyncio.timeout(30):
            await self.gateway.run(client.call, client)
        return client

    @property
    def outcome(self):
        """The one record; there must be exactly one, and one permit given back once."""
        assert [permit.released for permit in self.permits] == [1]
        assert self.gateway.in_flight == 0
        (outcome,) = self.outcomes
        return outcome


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def make_line():
    return Line


@pytest.fixture
def answer():
    """Makes answers: `answer(b"one", error)`."""
    return PlayedAnswer


@pytest.fixture
def chat_only():
    return {Operation.CHAT: Wire.OPENAI_CHAT, Operation.COMPLETION: Wire.OPENAI_CHAT}
