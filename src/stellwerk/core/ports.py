"""The seams to the outside world. Production code fills them once; tests fill them with fakes."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.outcome import Outcome
from stellwerk.core.plan import Model, Target


class UpstreamAnswer(Protocol):
    """An answer that has begun to arrive: its head is here, its body is on the way."""

    status: int

    def header(self, name: bytes) -> bytes | None:
        """Value of a header, `name` in lower case."""

    async def read(self) -> bytes:
        """The whole rest of the body. Raises UpstreamBroken when it ends early, UpstreamError past the size bound."""

    async def next(self) -> bytes:
        """The next bytes of the body, at least one; b"" after the last. Raises UpstreamBroken and UpstreamTimeout."""

    def abort(self) -> None:
        """Gives the answer up and closes its connection; harmless when it is complete."""


class Provider(Protocol):
    """One upstream: it knows its address, its credentials and its wires."""

    name: str

    def wire(self, operation: Operation) -> Wire | None:
        """The wire in which it takes this operation; None when it cannot do it at all."""

    async def send(self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        """Sends the request and returns when a successful head has arrived.

        `fields` is the body in `wire`; the provider sets the model's name in it. Raises a GatewayError, with
        `may_fall_back` where another target could do better.
        """

    async def models(self) -> Sequence[Model]:
        """What it offers now. Raises UpstreamError when it cannot be asked."""


class EngineAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a loaded model listens: loopback only, with a key that is new at every start."""

    host: str
    port: int
    key: str


class EngineLease(Protocol):
    """A loaded model that stays loaded until it is released."""

    address: EngineAddress

    def release(self) -> None:
        """Exactly once; afterwards the slot may be given to another model."""


class Engines(Protocol):
    """Models that we run ourselves."""

    def models(self) -> Sequence[Model]:
        """Everything that can be loaded, loaded or not."""

    async def acquire(self, model: str, *, deadline: float) -> EngineLease:
        """Waits until `model` is loaded and healthy, loading or restarting it where needed.

        `deadline` is monotonic seconds. Raises Unavailable, code `model_loading` when the deadline passes first and
        `model_failed` when the engine cannot load it; NotFound when there is no such model.
        """


class Recorder(Protocol):
    """Takes the record of a finished call; never blocks and never raises."""

    def __call__(self, outcome: Outcome) -> None: ...
