"""OpenAI's API: chat completions, completions, embeddings and models."""

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import unquote

import msgspec

from stellwerk.api._guard import Request, RequestHandler, Routes
from stellwerk.api.openai.conversations import Conversations
from stellwerk.api.openai.models import render_model
from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.requests import Body, ChatBody, CompletionBody, EmbeddingBody, read_body
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import NotFound
from stellwerk.core.plan import Model
from stellwerk.core.principal import CALLERS, READERS, Principal
from stellwerk.http.exchange import Headers
from stellwerk.pipeline.gateway import Gateway

_JSON: Headers = ((b"content-type", b"application/json"),)
_OWN_FIELDS = ("session_id", "timeout", "retries")
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
            for path, operation, wire, body in _CALLS:
                handler = self._answering(operation, wire, msgspec.json.Decoder(body))
                routes.add("POST", prefix + path, CALLERS, handler)
            routes.add("GET", f"{prefix}/models", READERS, self._list_models)
            routes.add("GET", f"{prefix}/models/{{rest}}", READERS, self._retrieve_model)

    def _answering(self, operation: Operation, wire: Wire, decoder: "msgspec.json.Decoder[Body]") -> RequestHandler:
        async def answer(request: Request) -> None:
            exchange = request.exchange
            body, fields = read_body(exchange.body, exchange.headers.get(b"content-type"), decoder)
            call = make_call(request, operation, wire, body, fields, self.total_seconds)
            session = getattr(body, "session_id", None)
            if session:
                await self._conversations.run(call, exchange, session)
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


def make_call(
    request: Request,
    operation: Operation,
    wire: Wire,
    body: Body,
    fields: dict[str, msgspec.Raw],
    total_seconds: float,
) -> Call:
    """The call that a body asks for; the fields that are ours are taken out of what goes upstream."""
    exchange = request.exchange
    for name in _OWN_FIELDS:
        fields.pop(name, None)
    seconds = total_seconds
    if body.timeout:
        seconds = min(max(body.timeout, _SHORTEST_SECONDS), total_seconds)
    return Call(
        id=request.id,
        operation=operation,
        wire=wire,
        model=body.model,
        fields=fields,
        principal=request.caller,
        received=exchange.received,
        deadline=exchange.received + seconds,
        stream=body.streams,
        wants_usage=body.wants_usage,
        attempts=min(max(body.retries, 1), _MOST_ATTEMPTS) if body.retries else None,
        peer=exchange.peer,
    )
