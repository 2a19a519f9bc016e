"""OpenAI's /v1/responses over chat completions: at once, as a stream, or in the background as a job."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from stellwerk.api._bodies import decode_body
from stellwerk.api._guard import Request, RequestHandler, Routes
from stellwerk.api.jobs.events import first_of, write_events
from stellwerk.api.jobs.exchange import CollectingExchange
from stellwerk.api.jobs.intake import Intake, headers_of_call, new_job
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.openai.files import read_id, read_query, respond
from stellwerk.api.openai.responses_answers import (
    METADATA,
    begin_response,
    job_of_id,
    new_response_id,
    show_job_response,
    show_response,
)
from stellwerk.api.openai.responses_items import OutputItems
from stellwerk.api.openai.responses_replay import ResponseReplay
from stellwerk.api.openai.responses_requests import ResponsesBody, to_chat
from stellwerk.api.openai.responses_stream import ResponseStream
from stellwerk.api.openai.responses_tools import full_names, leave_out_web_search
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, GatewayError, NotFound, UpstreamBroken
from stellwerk.core.principal import CALLERS, READERS
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.jobs.job import Job, NewJob
from stellwerk.jobs.jobs import Jobs

PATH = "/v1/responses"
_CHAT = ("POST", "/v1/chat/completions")
_ANSWER_BYTES = 64 * 1024 * 1024
_LONGEST_METADATA = 3_000
_BODY = msgspec.json.Decoder(ResponsesBody)
_FORWARDED = (b"x-ratelimit-", b"x-stellwerk-", b"openai-processing-ms")


_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class _Look(msgspec.Struct):
    stream: bool = False
    starting_after: Annotated[int, Meta(ge=-1)] | None = None


class ResponsesAPI:
    def __init__(
        self,
        jobs: Jobs,
        intake: Intake,
        handlers: Mapping[tuple[str, str], RequestHandler],
        ownership: Ownership,
        clock: Clock,
        stopping: Callable[[], bool],
    ) -> None:
        """`handlers` are the live ones: that of chats answers here too. `stopping` says whether the gateway wants its
        last answers to go out."""
        self._jobs = jobs
        self._intake = intake
        self._handlers = handlers
        self._ownership = ownership
        self._clock = clock
        self._stopping = stopping

    def register(self, routes: Routes) -> None:
        routes.add("POST", PATH, CALLERS, self._create)
        routes.add("GET", f"{PATH}/{{response_id}}", READERS, self._show)
        routes.add("DELETE", f"{PATH}/{{response_id}}", CALLERS, self._delete)
        routes.add("POST", f"{PATH}/{{response_id}}/cancel", CALLERS, self._cancel)
        self._intake.accepted[PATH] = self._accept

    async def _create(self, request: Request) -> None:
        body = _read(request)
        if body.background and not request.background:
            job = await self._intake.enqueue(await self._accept(request))
            if body.stream:
                await self._tell(request, job.id, -1)
            else:
                respond(request, show_job_response(await self._jobs.get(job.id, with_result=True)))
            return
        response = begin_response(body, new_response_id(), self._clock.now())
        if body.stream:
            await self._stream(request, body, response)
            return
        chat = await self._ask(request, body)
        shown = show_response(response, chat.collected, _output(body))
        headers = [(name, value) for name, value in chat.sent_headers.items() if name.startswith(_FORWARDED)]
        head = ((b"x-request-id", request.id.encode()), (b"content-type", b"application/json"), *headers)
        request.exchange.respond(200, head, shown)

    async def _ask(self, request: Request, body: ResponsesBody) -> CollectingExchange:
        """Raises what the chat is refused with."""
        asking = request.exchange
        exchange = CollectingExchange(
            _CHAT[1],
            msgspec.json.encode(to_chat(body)),
            _headers_of_chat(asking),
            received=asking.received,
            most_bytes=_ANSWER_BYTES,
        )
        exchange.peer = asking.peer
        await self._answer_chat(request, exchange)
        if exchange.too_large or exchange.broken or exchange.status != 200:
            raise UpstreamBroken("The upstream's answer cannot be read.")
        return exchange

    async def _stream(self, request: Request, body: ResponsesBody, response: dict[str, Any]) -> None:
        """The same for a stream, which is refused as the chat is as long as nothing of it was sent."""
        asking = request.exchange
        chat, headers = msgspec.json.encode(to_chat(body)), _headers_of_chat(asking)
        await self._answer_chat(
            request, ResponseStream(asking, _CHAT[1], chat, headers, response=response, output=_output(body))
        )

    async def _answer_chat(self, request: Request, exchange: Exchange) -> None:
        inner = Request(exchange, request.id, request.principal, background=request.background, look=request.look)
        try:
            await self._handlers[_CHAT](inner)
        except GatewayError as error:
            if error.param is not None and error.param.startswith("messages"):
                # The caller has sent none: they were made of his input.
                error.param = "input"
            raise

    async def _accept(self, request: Request) -> NewJob:
        """The job of a response: its body is that of one at once."""
        body = _read(request)
        fields = msgspec.json.decode(request.exchange.body, type=dict[str, msgspec.Raw])
        for name in ("background", "stream"):
            fields.pop(name, None)
        plain, headers = msgspec.json.encode(fields), headers_of_call(request.exchange.headers)
        checked = await self._intake.check(request.caller, PATH, plain, headers)
        labels = {"model": body.model}
        if body.metadata:
            pairs = msgspec.json.encode(body.metadata).decode()
            if len(pairs) > _LONGEST_METADATA:
                raise BadRequest("'metadata' is too long for a response in the background.", param="metadata")
            labels[METADATA] = pairs
        return new_job(request, queue=checked.queue, path=PATH, body=plain, headers=headers, labels=labels)

    async def _show(self, request: Request) -> None:
        look = read_query(request, _Look)
        job = await self._find(request)
        if look.stream:
            await self._tell(request, job.id, -1 if look.starting_after is None else look.starting_after)
        else:
            respond(request, show_job_response(await self._jobs.get(job.id, with_result=True)))

    async def _tell(self, request: Request, job_id: str, after: int) -> None:
        """Streams what happens to a response in the background. It goes on without whoever listens."""
        exchange, replay = request.exchange, ResponseReplay(after)
        following = await first_of(self._jobs.follow(job_id))
        exchange.start(200, ((b"x-request-id", request.id.encode()), *_STREAM))
        await write_events(exchange, following, replay, self._stopping)
        job = await self._jobs.get(job_id, with_result=True)
        if job.state.ended:
            exchange.write(replay.end(job))
        exchange.finish()

    async def _cancel(self, request: Request) -> None:
        job = await self._find(request)
        await self._jobs.cancel(job.id)
        respond(request, show_job_response(await self._jobs.get(job.id, with_result=True)))

    async def _delete(self, request: Request) -> None:
        job = await self._find(request)
        await self._jobs.forget(job.id)
        respond(request, {"id": read_id(request, 3), "object": "response", "deleted": True})

    async def _find(self, request: Request) -> Job:
        """Raises NotFound, in the same words for what is not there and for what is not his."""
        job_id = job_of_id(read_id(request, 3))
        if job_id is not None:
            try:
                job = await self._jobs.get(job_id)
            except NotFound:
                pass
            else:
                if job.path == PATH and self._ownership.may_see(request.caller, job):
                    return job
        raise NotFound(
            "There is no such response; only those in the background are kept, and for a while.",
            code="response_not_found",
            param="response_id",
        )


def _output(body: ResponsesBody) -> OutputItems:
    return OutputItems(_ANSWER_BYTES, full_names(body.tools or ()))


def _headers_of_chat(exchange: Exchange) -> dict[bytes, bytes]:
    return {name: value for name, value in exchange.headers.items() if name != b"content-type"}


def _read(request: Request) -> ResponsesBody:
    exchange = request.exchange
    body = decode_body(exchange.body, exchange.headers.get(b"content-type"), _BODY)
    if body.tools:
        body.tools = leave_out_web_search(body.tools, body.tool_choice)
    to_chat(body)
    return body
