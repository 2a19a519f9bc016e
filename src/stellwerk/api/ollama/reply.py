"""The way back to an Ollama client: relays what a real Ollama says and renders what others say."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from stellwerk.api._routing import answered_by
from stellwerk.api.ollama.answers import AnswerRenderer, Durations
from stellwerk.api.ollama.errors import error_line
from stellwerk.api.ollama.lines import LineRelay, first_vector, openai_vectors
from stellwerk.api.ollama.openai_requests import Abilities, chat_fields, embedding_fields
from stellwerk.api.ollama.requests import Body, Sampling
from stellwerk.api.openai.answers import check_data
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, GatewayError, UpstreamError
from stellwerk.core.events import Event, Used
from stellwerk.core.plan import Target
from stellwerk.core.ports import Meter, UpstreamAnswer
from stellwerk.http.exchange import Exchange, Headers

_JSON: Headers = ((b"content-type", b"application/json; charset=utf-8"),)
_LINES: Headers = (
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class OllamaReply:
    """Fills the port `Reply` for one call."""

    __slots__ = ("_abilities", "_body", "_call", "_clock", "_exchange", "_headers", "_old", "_started_after", "started")

    def __init__(
        self,
        call: Call,
        exchange: Exchange,
        body: Body,
        *,
        abilities: Abilities,
        clock: Clock,
        old: bool = False,
    ) -> None:
        """`body` has the model's name as the client wrote it; `old` gives one vector as /api/embeddings does."""
        self._call = call
        self._exchange = exchange
        self._body = body
        self._abilities = abilities
        self._clock = clock
        self._old = old
        self._headers: Headers = ((b"x-request-id", call.id.encode()),)
        self._started_after: float | None = None
        self.started = False

    def admit(self, headers: Headers) -> None:
        self._headers += headers

    def fields(self, wire: Wire) -> Mapping[str, msgspec.Raw]:
        call = self._call
        if wire is call.wire:
            return call.fields
        if wire is Wire.OPENAI_CHAT and isinstance(self._body, Sampling):
            return chat_fields(self._body, self._abilities)
        if wire is Wire.OPENAI_EMBEDDING and call.wire is Wire.OLLAMA_EMBED:
            return embedding_fields(call.fields)
        raise BadRequest("This request cannot be translated for the model's provider.", code="unsupported_operation")

    async def relay(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        call = self._call
        lines = LineRelay(
            upstream=target.model,
            asked=self._body.model,
            meter=meter,
            longest=answer.event_bytes,
            secrets=answer.secrets,
        )
        if call.stream:
            await self._relay_stream(answer, lines, target, meter)
        elif call.operation is Operation.EMBEDDING:
            body = lines.vectors(await answer.read())
            self._respond(first_vector(body) if self._old else body, target, meter)
        else:
            self._respond(lines.whole(await answer.read()), target, meter)

    async def _relay_stream(self, answer: UpstreamAnswer, lines: LineRelay, target: Target, meter: Meter) -> None:
        first = b""
        # The status is decided by the first whole line: an upstream that fails before it can still be replaced.
        while not first:
            data = await answer.next()
            first = lines.feed(data) if data else lines.end()
            if not data and not first:
                raise UpstreamError("The upstream ended without an answer.", may_fall_back=True)
        exchange = self._exchange
        self._start(target, meter)
        exchange.write(first)
        exchange.feed_from(answer)

        def pass_on(data: bytes) -> None:
            try:
                out = lines.feed(data)
            except UpstreamError as error:
                answer.fail(error)
            else:
                if out:
                    exchange.write(out)

        try:
            await answer.pour(pass_on)
            if rest := lines.end():
                exchange.write(rest)
        except asyncio.CancelledError:
            # A client that leaves after the last line has everything.
            task = asyncio.current_task()
            if not lines.done or task is None:
                raise
            task.uncancel()
        except GatewayError as error:
            # What goes wrong after the last line takes nothing from the client.
            if not lines.done:
                self._fail_inside(error)
                raise
        finally:
            exchange.feed_from(None)
        exchange.finish()

    async def render(self, events: AsyncIterator[Event], answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        """Embeddings are no events: they are read from the answer itself."""
        if self._call.operation is Operation.EMBEDDING:
            await self._render_vectors(answer, target, meter)
            return
        call, exchange = self._call, self._exchange
        renderer = AnswerRenderer(
            self._body.model,
            chat=call.wire is Wire.OLLAMA_CHAT,
            keeps=not call.stream,
            clock=self._clock,
            longest_call=answer.event_bytes,
        )
        exchange.feed_from(answer)
        try:
            await self._render_events(renderer, events, target, meter)
            # In here because a tool call that is only complete now may turn out to be broken.
            last = renderer.last(self._durations()) if call.stream else renderer.whole(self._durations())
        except GatewayError as error:
            if self.started:
                self._fail_inside(error)
            raise
        finally:
            exchange.feed_from(None)
        if not call.stream:
            self._respond(last, target, meter)
            return
        if not self.started:
            self._start(target, meter)
        exchange.write(last)
        exchange.finish()

    async def _render_events(
        self, renderer: AnswerRenderer, events: AsyncIterator[Event], target: Target, meter: Meter
    ) -> None:
        async for event in events:
            if isinstance(event, Used):
                meter.count(event.usage)
            lines = renderer.take(event)
            if not lines or not self._call.stream:
                continue
            if not self.started:
                self._start(target, meter)
            meter.deliver(1, len(lines))
            self._exchange.write(lines)

    async def _render_vectors(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        body = await answer.read()
        usage = check_data(body, answer.secrets)
        vectors = openai_vectors(body)
        if self._old and not vectors:
            raise UpstreamError("The upstream's answer has no vector.", may_fall_back=True)
        if usage is not None:
            meter.count(usage)
        if self._old:
            self._respond(msgspec.json.encode({"embedding": vectors[0]}), target, meter)
            return
        total = self._durations().fields()["total_duration"]
        rendered: dict[str, Any] = {"model": self._body.model, "embeddings": vectors, "total_duration": total}
        if usage is not None:
            rendered["prompt_eval_count"] = usage.input_tokens
        self._respond(msgspec.json.encode(rendered), target, meter)

    def _durations(self) -> Durations:
        return Durations(
            total=self._clock.monotonic() - self._call.received,
            first_byte=self._started_after,
        )

    def tell(self, _error: GatewayError) -> bool:
        """Its stream is never opened before there is an answer: Ollama's has no lines that say nothing."""
        return False

    def _start(self, target: Target, meter: Meter) -> None:
        self.started = True
        self._started_after = meter.begin()
        self._exchange.start(200, (*self._headers, *answered_by(self._call, target), *_LINES))

    def _respond(self, body: bytes, target: Target, meter: Meter) -> None:
        self.started = True
        meter.deliver(1, len(body))
        meter.begin()
        self._exchange.respond(200, (*self._headers, *answered_by(self._call, target), *_JSON), body)

    def _fail_inside(self, error: GatewayError) -> None:
        self._exchange.write(error_line(error))
        self._exchange.finish()
