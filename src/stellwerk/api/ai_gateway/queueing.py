"""`POST /api/chat` and `POST /api/ocr`: requests that are acknowledged once they are stored, and answered later."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.ai_gateway.errors import model_not_available
from stellwerk.api.ai_gateway.names import Meant, ModelNames
from stellwerk.api.ai_gateway.requests import (
    Body,
    read_body,
    read_client,
    read_priority,
    read_query,
    read_resolution,
    read_wait,
)
from stellwerk.api.jobs.intake import headers_of_call, new_job
from stellwerk.api.jobs.shapes import show_job
from stellwerk.core.errors import BadRequest, GatewayError, NotFound, Unavailable
from stellwerk.core.principal import CALLERS, Principal
from stellwerk.http.exchange import Headers
from stellwerk.jobs.job import Job, NewJob, State
from stellwerk.limits.clients import ClientLimits

CHAT, OCR = "/api/chat", "/api/ocr"
OCR_KIND = "ocr"
"""Of jobs whose body is that of `POST /api/ocr`, with the model that is to read; the label `resolution` says how."""
CHAT_PATH = "/v1/chat/completions"
_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_CHAT_MESSAGE, _OCR_MESSAGE = "Request queued for processing", "Request queued for OCR processing"
_FULL = "Queue is full, please try again later"
_FULL_SECONDS = 5.0
_MESSAGES = msgspec.json.Decoder(Annotated[list[dict[str, msgspec.Raw]], msgspec.Meta(min_length=1)])


class Queue(Protocol):
    """The part of `Jobs` that is needed here."""

    async def enqueue(self, new: NewJob) -> Job: ...

    async def waiting(self, queue: str) -> int: ...


class Accept(Protocol):
    """`Intake.accept_call`."""

    def __call__(self, request: Request, path: str, body: bytes, labels: Any = None) -> Awaitable[NewJob]: ...


class QueueingAPI:
    def __init__(
        self,
        jobs: Queue,
        *,
        names: ModelNames,
        limits: ClientLimits,
        accept: Accept,
        wait: Callable[[str, float], Awaitable[Job]],
        queue_of: Callable[[str], str],
        resolution: Callable[[], str],
        missing: Callable[[str, Principal, str], None],
        max_waiting: int | None,
    ) -> None:
        """`accept` checks a call as the live route does and makes its job; `wait` gives a job and its result after at
        most so many seconds; `queue_of` says in whose queue the jobs of a model are. `resolution` is that of who asks
        for none. `missing` hears of models that are not there (name, caller, client). `max_waiting` bounds the jobs
        that wait for one model."""
        self._jobs = jobs
        self._names = names
        self._limits = limits
        self._accept = accept
        self._wait = wait
        self._queue_of = queue_of
        self._resolution = resolution
        self._missing = missing
        self._max_waiting = max_waiting
        self._turn = asyncio.Lock()

    def register(self, routes: Routes) -> None:
        routes.add("POST", CHAT, CALLERS, self._queue_chat)
        routes.add("POST", OCR, CALLERS, self._queue_ocr)

    async def _queue_chat(self, request: Request) -> None:
        async def make(body: Body, client: str) -> NewJob:
            meant = self._names.chat(body.model)
            model = self._there(request, meant, client)
            try:
                return await self._accept(request, CHAT_PATH, body.with_model(model))
            except NotFound as error:
                raise _in_documented_words(error, meant) from None

        await self._queue(request, make, {"message": _CHAT_MESSAGE})

    async def _queue_ocr(self, request: Request) -> None:
        given = request.exchange.headers.get(b"x-resolution")
        shown = self._resolution() if given is None else given.decode("latin-1")
        resolution = read_resolution(shown)

        async def make(body: Body, client: str) -> NewJob:
            model = self._there(request, self._names.ocr(body.model), client)
            if not request.caller.may_use(model):
                raise model_not_available(model)
            _check_messages(body)
            return new_job(
                request,
                queue=self._queue_of(model),
                path=OCR,
                body=body.with_model(model),
                kind=OCR_KIND,
                headers=headers_of_call(request.exchange.headers),
                labels={"resolution": resolution},
            )

        await self._queue(request, make, {"resolution": shown, "message": _OCR_MESSAGE})

    async def _queue(
        self, request: Request, make: Callable[[Body, str], Awaitable[NewJob]], more: dict[str, str]
    ) -> None:
        exchange, caller = request.exchange, request.caller
        client, priority = read_client(exchange.headers, caller), read_priority(exchange.headers, caller)
        seconds = read_wait(request, read_query(exchange))
        taken = self._limits.take(f"{caller.user_id}:{client}")
        try:
            new = await make(read_body(exchange), client)
            job = await self._enqueue(msgspec.structs.replace(new, client_id=client, priority=priority))
        except GatewayError:
            # Who is refused for another reason has not had his turn.
            self._limits.give_back(taken)
            raise
        acknowledgement = {"request_id": job.id, "status": "queued", **more}
        if seconds is None:
            _respond(request, acknowledgement)
            return
        job = await self._wait(job.id, seconds)
        shown = msgspec.structs.asdict(show_job(job, with_result=True))
        if job.state is not State.QUEUED:
            acknowledgement["message"] = f"Request {shown['status']}"
        _respond(request, {**acknowledgement, **shown}, b"wait=%d" % seconds)

    async def _enqueue(self, new: NewJob) -> Job:
        """Raises Unavailable in the documented words."""
        if self._max_waiting is None:
            return await self._jobs.enqueue(new)
        # One after the other: else many at once would all find the same room.
        async with self._turn:
            if await self._jobs.waiting(new.queue) >= self._max_waiting:
                raise Unavailable(_FULL, code="queue_full", retry_after=_FULL_SECONDS)
            return await self._jobs.enqueue(new)

    def _there(self, request: Request, meant: Meant, client: str) -> str:
        if meant.model is None:
            self._missing(meant.shown, request.caller, client)
            raise model_not_available(meant.shown)
        return meant.model


def _in_documented_words(error: NotFound, meant: Meant) -> GatewayError:
    return model_not_available(meant.shown) if error.code == "model_not_found" else error


def _check_messages(body: Body) -> None:
    if "messages" not in body.fields:
        raise BadRequest("Missing required parameter: 'messages'.", param="messages")
    try:
        _MESSAGES.decode(body.fields["messages"])
    except msgspec.DecodeError:
        raise BadRequest("Invalid value for 'messages': a list of messages is expected.", param="messages") from None


def _respond(request: Request, body: Any, preference: bytes = b"") -> None:
    headers: Headers = ((b"x-request-id", request.id.encode()), *_JSON)
    if preference:
        headers += ((b"preference-applied", preference),)
    request.exchange.respond(200, headers, msgspec.json.encode(body))
