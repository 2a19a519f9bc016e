"""Performs a job by the handler of the live call: the same limits, money, ledger and routing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from stellwerk.api._errors import render_openai_error
from stellwerk.api._guard import Request, RequestHandler
from stellwerk.api.jobs.assembly import ChatAssembly
from stellwerk.api.jobs.exchange import CollectingExchange
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, GatewayError, NotFound, TooLarge, UpstreamBroken, UpstreamError
from stellwerk.core.principal import Principal
from stellwerk.jobs.job import Job, JobError, Leased, Performed
from stellwerk.jobs.sink import Sink

CALL = "call"
"""The kind of these jobs."""
_RETRIED = frozenset({429, 502, 503, 504})
_NOT_YET: dict[str, Literal["key", "queue"]] = {
    "rate_limit_exceeded": "key",
    "overloaded": "queue",
    "queue_full": "queue",
    "queue_timeout": "queue",
    "circuit_open": "queue",
}
"""Codes of refusals by which this gateway says that it is not the call's turn yet, and whose it is not: no upstream was
asked."""
_UNKNOWN_MODEL = "model_not_found"
_PATIENCE_SECONDS = 5.0
_SHORTEST_PAUSE = 0.05
MOST_PATIENT = 8
"""Attempts that wait here for their turn. More would take the workers from everybody else's jobs."""
_STATUS_OF_TYPE = {"rate_limit_error": 429, "timeout_error": 504, "server_error": 503, "upstream_error": 502}
_CHAT_PATHS = frozenset({"/v1/chat/completions", "/chat/completions"})
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TRUE = msgspec.Raw(b"true")

FindPrincipal = Callable[[str, int], Principal]
"""Who is behind the id of a key, with the rights of this moment. Raises GatewayError when nobody is any more."""


class CallPerformer:
    """Of jobs of the kind `call`: their path and body are those of a POST request."""

    def __init__(
        self,
        handlers: Mapping[tuple[str, str], RequestHandler],
        find_principal: FindPrincipal,
        clock: Clock,
        *,
        result_bytes: int,
        complete: Callable[[], bool] = lambda: True,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        """`handlers` are the live ones by method and path. A few attempts whose caller has reached his own limit wait,
        in all for `patience` seconds each; others are put off. `complete` says that every model is known that there
        is."""
        self._handlers = handlers
        self._find_principal = find_principal
        self._clock = clock
        self._result_bytes = result_bytes
        self._complete = complete
        self._pause = pause
        self._patience = patience
        self._patient = 0

    async def __call__(self, leased: Leased, sink: Sink) -> Performed:
        """One attempt. A job whose turn does not come soon is put off, which costs it no attempt."""
        waited = 0.0
        while True:
            try:
                return await self._ask(leased, sink)
            except GatewayError as error:
                whose = self._whose_turn_it_is_not(error)
                if whose is None:
                    return failed(error)
                seconds = max(error.retry_after or 1.0, _SHORTEST_PAUSE)
            waited += seconds
            if whose == "queue" or waited > self._patience or self._patient >= MOST_PATIENT:
                return Performed.not_yet(seconds, whose)
            self._patient += 1
            try:
                await self._pause(seconds)
            finally:
                self._patient -= 1

    def _whose_turn_it_is_not(self, error: GatewayError) -> Literal["key", "queue"] | None:
        # The model was known when the job was taken: after a restart its provider may come later than the gateway.
        if error.code == _UNKNOWN_MODEL and not self._complete():
            return "queue"
        return _NOT_YET.get(error.code)

    async def _ask(self, leased: Leased, sink: Sink) -> Performed:
        job = leased.job
        handler = self._handlers.get(("POST", job.path))
        if handler is None:
            raise NotFound(f"There is nothing at POST {job.path}.", code="unknown_url")
        principal = self._find_principal(job.key_id, job.user_id)
        body, streams = prepare_body(job.path, leased.body)
        assembly = ChatAssembly(self._result_bytes, lambda text: sink.piece(text.encode("utf-8", "replace")))
        answering: list[asyncio.Future[None]] = []
        exchange = CollectingExchange(
            job.path,
            body,
            headers_of(job),
            received=self._clock.monotonic(),
            most_bytes=self._result_bytes,
            hear=assembly.feed if streams else None,
            overflow=lambda: _cancel(answering),
        )
        # The lease's fence counts the attempts over everything: each has a record of its own in the ledger.
        request_id = f"job_{job.id}_{leased.lease.fence}"
        request = Request(exchange, request_id, principal, background=True)
        answering.append(asyncio.ensure_future(handler(request)))
        try:
            await answering[0]
        except asyncio.CancelledError:
            if not exchange.too_large:
                raise
        if exchange.too_large:
            raise TooLarge(f"The result has more than {self._result_bytes} bytes.", code="result_too_large")
        return _read_answer(exchange, assembly)


def prepare_body(path: str, body: bytes) -> tuple[bytes, bool]:
    """The body to ask with, and whether the answer will be a stream: chats are, so that others can read along.

    Everything else is asked for as a whole, whatever the client wrote: nobody is there to stream to.
    """
    try:
        fields = _decode_fields(body)
    except (ValueError, RecursionError):
        return body, False
    if path in _CHAT_PATHS and not _has_sound(fields):
        options = _read_options(fields.get("stream_options"))
        fields["stream"] = _TRUE
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
        return msgspec.json.encode(fields), True
    if "stream" in fields and path.startswith("/v1/"):
        fields.pop("stream")
        fields.pop("stream_options", None)
        body = msgspec.json.encode(fields)
    return body, False


def headers_of(job: Job) -> dict[bytes, bytes]:
    return {b"content-type": b"application/json", b"x-stellwerk-priority": job.priority.value.encode()}


def failed(error: GatewayError) -> Performed:
    """The outcome of an attempt that ended so. What may pass is tried again; what the client did wrong never is."""
    return Performed(
        status=error.status,
        result=render_openai_error(error),
        error=JobError(code=error.code, message=error.message),
        retry=error.status in _RETRIED,
        retry_after=error.retry_after,
    )


def _cancel(answering: list[asyncio.Future[None]]) -> None:
    for task in answering:
        task.cancel()


def _read_answer(exchange: CollectingExchange, assembly: ChatAssembly) -> Performed:
    if exchange.streams:
        if assembly.error is not None:
            return failed(_error_in_stream(assembly.error))
        if not assembly.complete or exchange.broken:
            raise UpstreamBroken("The answer broke off.")
        return Performed(status=200, result=assembly.whole())
    if exchange.broken or not exchange.finished:
        raise UpstreamBroken("The answer broke off.")
    result, status = exchange.collected, exchange.status
    error = None
    if status >= 400:
        error = JobError(code="request_failed", message=f"The call was answered with status {status}.")
    return Performed(
        status=status, result=result, result_type=exchange.content_type, error=error, retry=status in _RETRIED
    )


def _error_in_stream(said: dict[str, Any]) -> GatewayError:
    """An error that came after the answer had begun, as the OpenAI API's own reply writes it."""
    status = _STATUS_OF_TYPE.get(str(said.get("type")), 400)
    message, code = str(said.get("message") or "The call failed."), str(said.get("code") or "upstream_error")
    kind = BadRequest if status == 400 else UpstreamError
    error = kind(message, code=code)
    error.status = status
    return error


def _has_sound(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Sound is not put together from pieces."""
    return "audio" in fields or b'"audio"' in bytes(fields.get("modalities", b""))


def _read_options(raw: msgspec.Raw | None) -> dict[str, Any]:
    try:
        options = msgspec.json.decode(raw) if raw is not None else {}
    except (ValueError, RecursionError):
        return {}
    return options if isinstance(options, dict) else {}
