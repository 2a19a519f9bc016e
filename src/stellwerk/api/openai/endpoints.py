"""OpenAI's API: chat completions, completions, embeddings and models."""

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote

import msgspec

from stellwerk.api._guard import Request, RequestHandler, Routes
from stellwerk.api._routing import read_priority, read_session
from stellwerk.api.openai.conversations import Conversations
from stellwerk.api.openai.models import render_model
from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.requests import Body, ChatBody, CompletionBody, EmbeddingBody, read_body
from stellwerk.core.call import Call, Operation, Place, Wire
from stellwerk.core.errors import NotFound
from stellwerk.core.plan import Model
from stellwerk.core.principal import CALLERS, READERS, Principal
from stellwerk.http.exchange import Headers
from stellwerk.pipeline.gateway import Gateway

_JSON: Headers = ((b"content-type", b"application/json"),)
_OWN_FIELDS = frozenset({"session_id", "timeout", "retries", "fallbacks", "models"})
_SHORTEST_SECONDS = 1.0
_MOST_ATTEMPTS = 10
_CALLS: tuple[tuple[str, Operation, Wire, type[Body]], ...] = (
    ("/chat/completions", Operation.CHAT, Wire.OPENAI_CHAT, ChatBody),
    ("/completions", Operation.COMPLETION, Wire.OPENAI_COMPLETION, CompletionBody),
    ("/embeddings", Operation.EMBEDDING, Wire.OPENAI_EMBEDDING, EmbeddingBody),
)


class Models(Protocol):
    """What the catalogue offers to this API."""

    def models(self) -> Sequence[Model]: ...

    def get(self, name: str) -> Model | None: ...


class OpenAIAPI:
    """Registers its routes and turns each request into a Call."""

    def __init__(
        self,
        gateway: Gateway,
        models: Models,
        may_see: Callable[[Principal, Model], bool],
        total_seconds: float,
        conversations: Conversations,
    ) -> None:
        self._gateway = gateway
        self._conversations = conversations
        self._models = models
        self._may_see = may_see
        self.total_seconds = total_seconds

    def register(self, routes: Routes) -> None:
        """The same below /v1 and at the root: many clients are given a base URL without it."""
        for prefix in ("/v1", ""):
            self.register_calls(routes, prefix)
            routes.add("GET", f"{prefix}/models", READERS, self._list_models)
            routes.add("GET", f"{prefix}/models/{{rest}}", READERS, self._retrieve_model)

    def register_calls(self, routes: Routes, prefix: str, resolve: Callable[[str], str] | None = None) -> None:
        """The routes that ask a model. `resolve` is for a listener of its own: it gives the catalogue's name for a
        client's, who reads his own in the answers; bodies are JSON there whatever they are called, and no session is
        kept."""
        for path, operation, wire, body in _CALLS:
            decoder = msgspec.json.Decoder(body)
            if resolve is None:
                handler = self._answering(operation, wire, decoder)
            else:
                handler = self._answering_renamed(operation, wire, decoder, resolve)
            routes.add("POST", prefix + path, CALLERS, handler)

    def _answering_renamed(
        self, operation: Operation, wire: Wire, decoder: "msgspec.json.Decoder[Body]", resolve: Callable[[str], str]
    ) -> RequestHandler:
        async def answer(request: Request) -> None:
            exchange = request.exchange
            body, fields = read_body(exchange.body, None, decoder)
            asked = body.model
            body.model = resolve(asked)
            # Here too nothing leads out of what this listener offers.
            body.fallbacks = [resolve(name) for name in asked_fallbacks(body)]
            body.models = None
            call = make_call(request, operation, wire, body, fields, self.total_seconds)
            await self._gateway.run(call, OpenAIReply(call, exchange, shown=asked))

        return answer

    def _answering(self, operation: Operation, wire: Wire, decoder: "msgspec.json.Decoder[Body]") -> RequestHandler:
        async def answer(request: Request) -> None:
            exchange = request.exchange
            body, fields = read_body(exchange.body, exchange.headers.get(b"content-type"), decoder)
            call = make_call(request, operation, wire, body, fields, self.total_seconds)
            if body.session_id and operation is Operation.CHAT:
                await self._conversations.run(call, exchange, body.session_id)
            else:
                await self._gateway.run(call, OpenAIReply(call, exchange))

        return answer

    async def _list_models(self, request: Request) -> None:
        caller = request.caller
        models = [render_model(model) for model in self._models.models() if self._may_see(caller, model)]
        self._respond(request, {"object": "list", "data": models})

    async def _retrieve_model(self, request: Request) -> None:
        name = unquote(request.exchange.path.partition("/models/")[2])
        model = self._models.get(name)
        if model is None or not self._may_see(request.caller, model):
            raise NotFound("There is no such model; GET /v1/models lists them.", code="model_not_found", param="model")
        self._respond(request, render_model(model))

    def _respond(self, request: Request, body: object) -> None:
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        request.exchange.respond(200, headers, msgspec.json.encode(body))


def asked_fallbacks(body: Body) -> tuple[str, ...]:
    """The models that the client wants to be tried after the one that it named."""
    return (*(body.fallbacks or ()), *(body.models or ()))


def make_call(
    request: Request,
    operation: Operation,
    wire: Wire,
    body: Body,
    fields: dict[str, msgspec.Raw],
    total_seconds: float,
) -> Call:
    """The call that a body asks for; the fields that are ours are taken out of what goes upstream.

    Every handler comes past here when it has checked its body, and past nothing else that could refuse the request.
    """
    exchange, caller = request.exchange, request.caller
    headers = exchange.headers
    if not _OWN_FIELDS.isdisjoint(fields):
        for name in _OWN_FIELDS:
            fields.pop(name, None)
    # Some clients write null for what they do not ask for, which llama.cpp refuses.
    if bytes(fields.get("encoding_format", b"")) == b"null":
        del fields["encoding_format"]
    seconds = total_seconds
    if body.timeout:
        seconds = min(max(body.timeout, _SHORTEST_SECONDS), total_seconds)
    call = Call(
        id=request.id,
        operation=operation,
        wire=wire,
        model=body.model,
        fields=fields,
        principal=caller,
        received=exchange.received,
        deadline=exchange.received + seconds,
        stream=body.streams,
        wants_usage=body.wants_usage,
        attempts=min(max(body.retries, 1), _MOST_ATTEMPTS) if body.retries else None,
        peer=exchange.peer,
        priority=read_priority(headers, caller),
        place=Place(),
        session=read_session(headers, body.session_id, body.prompt_cache_key),
        fallbacks=asked_fallbacks(body) if body.fallbacks or body.models else (),
        background=request.background,
    )
    if request.look is not None:
        request.look(call)
    return call
