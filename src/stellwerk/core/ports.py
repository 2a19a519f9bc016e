"""The seams to the outside world. Production code fills them once; tests fill them with fakes."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from stellwerk.core.call import Call, Operation, Place, Wire
from stellwerk.core.errors import UpstreamError
from stellwerk.core.events import Event
from stellwerk.core.outcome import Outcome, Usage
from stellwerk.core.plan import Model, Target


class UpstreamAnswer(Protocol):
    """An answer that has begun to arrive: its head is here, its body is on the way."""

    status: int
    event_bytes: int
    """How long one event of a stream may be."""
    secrets: tuple[str, ...]
    """What the upstream was shown and may repeat when it fails; no error says it."""
    key: int | None
    """The place of the key that was shown among those of the provider; None when it has none."""

    def header(self, name: bytes) -> bytes | None:
        """Value of a header, `name` in lower case."""

    async def read(self) -> bytes:
        """The whole rest of the body. Raises UpstreamBroken when it ends early, UpstreamError past the size bound."""

    async def next(self) -> bytes:
        """The next bytes of the body, at least one; b"" after the last. Raises UpstreamBroken and UpstreamTimeout."""

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        """Calls `sink` with each piece of the body as it arrives and returns after the last. Raises as `next` does."""

    def fail(self, error: UpstreamError) -> None:
        """Ends the answer here with an error that whoever reads it will see."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        """Gives the answer up and closes its connection; harmless when it is complete."""


class Provider(Protocol):
    """One upstream: it knows its address, its credentials and its wires."""

    name: str
    images_as_data: bool
    """It takes images in the request alone: it cannot fetch them, or must not be made to."""

    def wire(self, operation: Operation, preferred: Wire) -> Wire | None:
        """The wire in which it takes this operation; None when it cannot do it at all.

        That is `preferred`, the client's own, where it speaks that: then nothing has to be translated.
        """

    async def send(self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        """Sends the request and returns when a successful head has arrived.

        `fields` is the body in `wire`; the provider sets the model's name in it. Raises a GatewayError, with
        `may_fall_back` where another target could do better.
        """

    def events(self, answer: UpstreamAnswer, wire: Wire, *, stream: bool) -> AsyncIterator[Event]:
        """Reads an answer in `wire` into events. Raises UpstreamError when it ends early or cannot be understood."""

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

    def doubt(self) -> None:
        """The engine did not answer as a living one does: the next lease is given only after it has been checked."""

    def suspect(self) -> None:
        """The engine let somebody wait in vain: it has to prove that it computes."""

    def note_answer(self) -> None:
        """It has computed something; to be called for everything that comes from it."""

    def release(self) -> None:
        """Exactly once; afterwards the slot may be given to another model."""


class Engines(Protocol):
    """Models that we run ourselves."""

    def models(self) -> Sequence[Model]:
        """Everything that can be loaded, loaded or not."""

    async def acquire(
        self, model: str, *, deadline: float, request_id: str = "", place: Place | None = None
    ) -> EngineLease:
        """Waits until `model` is loaded and healthy, loading or restarting it where needed.

        `deadline` is monotonic seconds; `place` is told where the request stands while it waits. Raises Unavailable,
        code `model_loading` when the deadline passes first and `model_failed` when the engine cannot load it; NotFound
        when there is no such model.
        """


class Recorder(Protocol):
    """Takes the record of a finished call; never blocks and never raises."""

    def __call__(self, outcome: Outcome, /) -> None: ...


class Likely(Protocol):
    """An Estimate that is perhaps only made when it is looked at: reading a long prompt takes milliseconds."""

    @property
    def input_tokens(self) -> int: ...

    @property
    def output_tokens(self) -> int | None: ...

    @property
    def answers(self) -> int: ...


class Hold(Protocol):
    """Money set aside for one call. Both ways to close it neither wait nor raise, and only the first one counts."""

    def settle(self, cost: int, *, estimated: bool) -> None:
        """The call was answered and costs so many micro units; what is left of the hold goes back."""

    def release(self) -> None:
        """The call brought nothing: all of it goes back."""


class Meter(Protocol):
    """Counts one call while it passes. Whoever carries the answer tells it what it sees."""

    def begin(self) -> float:
        """The first byte of the answer goes to the client now; returns the seconds since the request arrived."""

    def deliver(self, events: int, size: int) -> None:
        """So many events with so many bytes in all go to the client; a whole body is one event."""

    def count(self, usage: Usage) -> None:
        """The upstream's own count; a later one replaces an earlier one."""


class Reply(Protocol):
    """The way back to one client: the API module that parsed the call renders what comes back."""

    started: bool
    """The client has seen the status: from now on there is neither a retry nor another target."""

    def fields(self, wire: Wire) -> Mapping[str, msgspec.Raw]:
        """The request's body in `wire`. Raises BadRequest when the request cannot be said in it."""

    async def relay(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        """Passes on an answer that is already written in the client's own wire.

        Raises UpstreamError, with `may_fall_back`, as long as the client has seen nothing; later the failure is told
        to the client in its own dialect first.
        """

    async def render(self, events: AsyncIterator[Event], answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        """The same for an answer in another wire, which is read into events; `answer` is what they are read from."""
