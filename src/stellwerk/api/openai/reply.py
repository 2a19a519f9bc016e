"""The way back to an OpenAI client: relays what is already in its wire and renders what is not."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import msgspec

from stellwerk.api._errors import render_openai_error
from stellwerk.api._routing import answered_by, waited
from stellwerk.api.openai import answers
from stellwerk.api.openai.completions_by_chat import CompletionRenderer, chat_fields
from stellwerk.api.openai.streams import DONE, StreamRelay
from stellwerk.api.openai.waiting import PATIENCE_SECONDS, Waiting
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import BadRequest, GatewayError, UpstreamError
from stellwerk.core.events import Event, Used
from stellwerk.core.plan import Target
from stellwerk.core.ports import Meter, UpstreamAnswer
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.sessions.transcript import Transcript

_JSON: Headers = ((b"content-type", b"application/json"), (b"openai-version", b"2020-10-01"))
_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"openai-version", b"2020-10-01"),
)


class OpenAIReply:
    """Fills the port `Reply` for one call."""

    __slots__ = (
        "_call",
        "_exchange",
        "_headers",
        "_keep",
        "_monotonic",
        "_opened",
        "_patience",
        "_shown",
        "_transcript",
        "_waiting",
        "started",
    )

    def __init__(
        self,
        call: Call,
        exchange: Exchange,
        transcript: Transcript | None = None,
        keep: Callable[[], Awaitable[None]] | None = None,
        *,
        shown: str | None = None,
        patience: float = PATIENCE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`transcript` is told what the client gets, `keep` is awaited before the answer is at its end: who has all of
        it finds it in his session. `shown` is the model's name for the client where it is not that of the call. A
        stream that waits for more than `patience` seconds is opened, and says where the call stands."""
        self._call = call
        self._exchange = exchange
        self._transcript = transcript
        self._keep = keep
        self._shown = call.model if shown is None else shown
        self._headers: Headers = ((b"x-request-id", call.id.encode()),)
        self.started = False
        self._opened = False
        self._waiting: Waiting | None = None
        self._patience = patience
        self._monotonic = monotonic
        if call.stream and call.place is not None:
            call.place.listener = self._hear_place

    def admit(self, headers: Headers) -> None:
        self._headers += headers

    def fields(self, wire: Wire) -> Mapping[str, msgspec.Raw]:
        call = self._call
        if wire is call.wire:
            return call.fields
        if call.wire is Wire.OPENAI_COMPLETION and wire is Wire.OPENAI_CHAT:
            return chat_fields(call.fields)
        raise BadRequest("This request cannot be translated for the model's provider.", code="unsupported_operation")

    async def relay(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        if self._call.stream:
            await self._relay_stream(answer, target, meter)
        else:
            body = self._finish_body(await answer.read(), answer.secrets, target, meter)
            if self._transcript is not None:
                self._transcript.whole(body)
            await self._keep_answer()
            self._respond(body, target, meter)

    def _finish_body(self, body: bytes, secrets: Sequence[str], target: Target, meter: Meter) -> bytes:
        call = self._call
        if call.operation is Operation.EMBEDDING:
            usage = answers.check_data(body, secrets)
            if bytes(call.fields.get("encoding_format", b"")) == b'"base64"':
                body = answers.encode_vectors(body)
        else:
            usage = answers.check_choices(body, secrets)
            chat = call.operation is Operation.CHAT
            body = answers.complete_chat(body) if chat else answers.complete_completion(body)
        if usage is not None:
            meter.count(usage)
        return answers.Renaming(target.model, self._shown)(body)

    async def _relay_stream(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        call = self._call
        renaming = answers.Renaming(target.model, self._shown)
        stream = StreamRelay(
            renaming=renaming,
            wants_usage=call.wants_usage,
            meter=meter,
            event_bytes=answer.event_bytes,
            secrets=answer.secrets,
        )
        first = b""
        # The status is decided by the first whole event: an upstream that fails before it can still be replaced.
        while not first:
            data = await answer.next()
            if not data:
                raise UpstreamError("The upstream ended without an answer.", may_fall_back=True)
            first = stream.feed(data)
        exchange = self._exchange
        write = exchange.write if self._transcript is None else self._write_down
        self._start(target, meter)
        exchange.feed_from(answer)

        def pass_on(data: bytes) -> None:
            try:
                # An exchange that translates may find that what it is given cannot be read.
                if out := stream.feed(data):
                    write(out)
            except UpstreamError as error:
                answer.fail(error)

        try:
            write(first)
            await answer.pour(pass_on)
            write(stream.end())
        except asyncio.CancelledError:
            # A client that leaves after `[DONE]` has everything, and its session must have it too.
            task = asyncio.current_task()
            if not stream.done or task is None:
                raise
            task.uncancel()
        except GatewayError as error:
            # What goes wrong after `[DONE]` takes nothing from the client: it has everything.
            if not stream.done:
                self._fail_inside(error)
                raise
        finally:
            exchange.feed_from(None)
        await self._keep_answer()
        exchange.finish()

    async def _keep_answer(self) -> None:
        if self._keep is not None:
            await self._keep()

    async def render(self, events: AsyncIterator[Event], answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        """Only text completions are ever rendered: they are what a chat-only vendor is asked for on their behalf."""
        renderer = CompletionRenderer(self._call, f"cmpl-{os.urandom(12).hex()}", self._shown)
        self._exchange.feed_from(answer)
        try:
            await self._render_events(renderer, events, target, meter)
        except GatewayError as error:
            if self.started:
                self._fail_inside(error)
            raise
        finally:
            self._exchange.feed_from(None)
        if not self._call.stream:
            self._respond(renderer.whole(), target, meter)
            return
        if not self.started:
            self._start(target, meter)
        self._exchange.write(renderer.last() + DONE)
        self._exchange.finish()

    async def _render_events(
        self, renderer: CompletionRenderer, events: AsyncIterator[Event], target: Target, meter: Meter
    ) -> None:
        async for event in events:
            if isinstance(event, Used):
                meter.count(event.usage)
            chunk = renderer.take(event)
            if chunk is None or not self._call.stream:
                continue
            if not self.started:
                self._start(target, meter)
            meter.deliver(1, len(chunk))
            self._exchange.write(chunk)

    def _write_down(self, data: bytes) -> None:
        assert self._transcript is not None
        self._transcript.feed(data)
        self._exchange.write(data)

    def _hear_place(self, number: int) -> None:
        """The call waits at this place of a line."""
        if self.started:
            return
        now = self._monotonic()
        if self._waiting is None:
            self._waiting = Waiting(now, self._patience)
        comment = self._waiting.comment(number, now)
        if comment is None:
            return
        if not self._opened:
            self._opened = True
            self._exchange.start(200, (*self._headers, *waited(self._call), *_STREAM))
        self._exchange.write(comment)

    def tell(self, error: GatewayError) -> bool:
        if not self._opened:
            return False
        self._fail_inside(error)
        return True

    def _start(self, target: Target, meter: Meter) -> None:
        call = self._call
        self.started = True
        if call.place is not None:
            # Otherwise it and this object would hold each other.
            call.place.listener = None
        seconds = meter.begin()
        if not self._opened:
            headers = (*self._headers, *answered_by(call, target), _processing(seconds), *_STREAM)
            self._exchange.start(200, headers)

    def _respond(self, body: bytes, target: Target, meter: Meter) -> None:
        self.started = True
        meter.deliver(1, len(body))
        headers = (*self._headers, *answered_by(self._call, target), _processing(meter.begin()), *_JSON)
        self._exchange.respond(200, headers, body)

    def _fail_inside(self, error: GatewayError) -> None:
        """Tells a client whose stream has begun; there is no `[DONE]` after it, because it is not done."""
        self._exchange.write(b"data: " + render_openai_error(error) + b"\n\n")
        self._exchange.finish()


def _processing(seconds: float) -> tuple[bytes, bytes]:
    return (b"openai-processing-ms", b"%d" % (seconds * 1000))
