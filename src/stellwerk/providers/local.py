"""Models that we run ourselves: an engine slot is an upstream on loopback, loaded when it is needed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, UpstreamBroken, UpstreamTimeout
from stellwerk.core.events import Event
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import EngineAddress, EngineLease, Engines, UpstreamAnswer
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import Origin, Pool
from stellwerk.http.upstream import Answer, ConnectionDied
from stellwerk.providers._engine_requests import check_abilities, check_fields, wants_tools
from stellwerk.providers._openai_events import read_events
from stellwerk.providers._reranking import embedding_fields, ranking_fields, read_scored
from stellwerk.providers._vectors import read_shortened, wanted_dimensions, without_dimensions
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings

_ATTEMPTS = 2
_PATIENCE = 30.0
"""Seconds after which it says something of the engine, and not of the client, when a client leaves without a byte."""


class Local:
    """Fills the port `Provider` for the engines of this process."""

    name = "local"
    images_as_data = True

    def __init__(self, engines: Engines, open_pool: Callable[[Origin], Pool], clock: Clock) -> None:
        self._engines = engines
        self._open_pool = open_pool
        self._clock = clock
        self._speakers: dict[int, tuple[EngineAddress, OpenAICompatible]] = {}

    def wire(self, operation: Operation, preferred: Wire) -> Wire | None:  # noqa: ARG002  # the port has it
        return {
            Operation.CHAT: Wire.OPENAI_CHAT,
            Operation.COMPLETION: Wire.OPENAI_COMPLETION,
            Operation.EMBEDDING: Wire.OPENAI_EMBEDDING,
            Operation.RERANK: Wire.RERANK,
        }.get(operation)

    async def send(self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        """A process that died since the last call is noticed here: then its successor gets the request."""
        if wire is Wire.RERANK:
            return await self._rerank(call, target, fields)
        needed = check_fields(fields)
        if needed or wants_tools(fields):
            model = self._model(target)
            if model is not None:
                check_abilities(fields, needed, model)
        dimensions = wanted_dimensions(fields)
        if dimensions is None:
            return await self._ask(call, target, wire, fields)
        return await read_shortened(await self._ask(call, target, wire, without_dimensions(fields)), dimensions)

    def _model(self, target: Target) -> Model | None:
        return next((known for known in self._engines.models() if known.name == target.model), None)

    async def _rerank(self, call: Call, target: Target, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        """A reranker does it itself; of an embedding model the vectors are compared here."""
        model = self._model(target)
        if model is not None and Operation.EMBEDDING in model.operations:
            return await read_scored(await self._ask(call, target, Wire.OPENAI_EMBEDDING, embedding_fields(fields)))
        return await self._ask(call, target, Wire.RERANK, ranking_fields(fields))

    async def _ask(self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        attempt = 1
        while True:
            lease = await self._engines.acquire(
                target.model, deadline=call.deadline, request_id=call.id, place=call.place
            )
            use = _Use(lease, self._clock)
            try:
                answer = await self._speaker(lease.address).send_as(call, target, wire, fields)
            except GatewayError as error:
                died = isinstance(error, ConnectionDied) or error.code == "upstream_unreachable"
                if died:
                    lease.doubt()
                use.end(in_vain=isinstance(error, UpstreamTimeout))
                # One that answers, however badly, has had its chance: its work is not done twice.
                if attempt == _ATTEMPTS and isinstance(error, ConnectionDied):
                    raise _deadly() from None
                if attempt == _ATTEMPTS or not died:
                    raise
                attempt += 1
            except asyncio.CancelledError:
                use.end(in_vain=use.seconds >= _PATIENCE)
                raise
            except BaseException:
                use.end()
                raise
            else:
                return use.hold(answer)

    def _speaker(self, address: EngineAddress) -> OpenAICompatible:
        known = self._speakers.get(address.port)
        if known is not None and known[0] == address:
            return known[1]
        origin = Origin(scheme="http", host=address.host, port=address.port)
        settings = ProviderSettings(
            name=self.name,
            base_url=f"http://{origin.authority}/v1",
            keys=(Secret(address.key),),
            local=True,
            rerank="rerank",
        )
        speaker = OpenAICompatible(settings, self._open_pool(origin), self._clock)
        self._speakers[address.port] = (address, speaker)
        return speaker

    def events(self, answer: UpstreamAnswer, wire: Wire, *, stream: bool) -> AsyncIterator[Event]:
        return read_events(answer, wire, stream=stream)

    async def models(self) -> Sequence[Model]:
        return self._engines.models()


def _deadly() -> UpstreamBroken:
    """Of a request over which two engines have ended: neither a client nor a job is to send it to a third by itself."""
    error = UpstreamBroken(
        "The model's engine ended twice while it had this request.",
        code="engine_died",
        may_fall_back=True,
        headers=((b"x-should-retry", b"false"),),
    )
    error.status = 500
    return error


class _Use:
    """One request at an engine: keeps the model loaded until its answer is complete or given up, and tells of the
    engine what can be seen from here."""

    def __init__(self, lease: EngineLease, clock: Clock) -> None:
        self._lease = lease
        self._clock = clock
        self._began = clock.monotonic()
        self._answered = False

    @property
    def seconds(self) -> float:
        return self._clock.monotonic() - self._began

    def hold(self, answer: UpstreamAnswer) -> UpstreamAnswer:
        if not isinstance(answer, Answer):
            raise TypeError("an engine is reached through the connection pool")
        # Some engines send a head at once: only what follows has been computed.
        answer.when_fed(self._note_answer)
        answer.when_closed(lambda: self.end(in_vain=not self._answered and self.seconds >= _PATIENCE))
        return answer

    def end(self, *, in_vain: bool = False) -> None:
        if in_vain:
            self._lease.suspect()
        self._lease.release()

    def _note_answer(self) -> None:
        self._answered = True
        self._lease.note_answer()
