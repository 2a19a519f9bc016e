"""Ollama's own API over every model: chat, generate, embeddings and lists."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from stellwerk.api._guard import Request, RequestHandler, Routes
from stellwerk.api.ollama.answers import loaded_object
from stellwerk.api.ollama.lists import render_loaded, render_shown, render_tags
from stellwerk.api.ollama.openai_requests import Abilities
from stellwerk.api.ollama.reply import OllamaReply
from stellwerk.api.ollama.requests import (
    Body,
    ChatBody,
    EmbedBody,
    GenerateBody,
    OldEmbedBody,
    ShowBody,
    as_embed_fields,
    no_model,
    read,
    read_call,
    unloads,
)
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.plan import Model, Plan
from stellwerk.core.principal import CALLERS, OPEN, READERS, Principal
from stellwerk.http.exchange import Headers
from stellwerk.pipeline.gateway import Gateway

VERSION: Final = "0.33.0"
"""The release of Ollama whose API this is: clients look at it before they use what is newer than they expect."""
_JSON: Headers = ((b"content-type", b"application/json; charset=utf-8"),)
_TEXT: Headers = ((b"content-type", b"text/plain; charset=utf-8"),)
_LINES: Headers = ((b"content-type", b"application/x-ndjson"),)
_LATEST = ":latest"
_SHOWN_CHARACTERS = 128
_REFUSED = (
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/blobs/{digest}"),
)
_CHAT = msgspec.json.Decoder(ChatBody)
_GENERATE = msgspec.json.Decoder(GenerateBody)
_EMBED = msgspec.json.Decoder(EmbedBody)
_OLD_EMBED = msgspec.json.Decoder(OldEmbedBody)
_SHOW = msgspec.json.Decoder(ShowBody)
_Asking = TypeVar("_Asking", ChatBody, GenerateBody)


class Models(Protocol):
    """What the catalogue offers to this API."""

    def models(self) -> Sequence[Model]: ...

    def get(self, name: str) -> Model | None: ...

    def plan(self, name: str) -> Plan | None: ...


class OllamaAPI:
    """Registers its routes and turns each request into a Call."""

    def __init__(
        self,
        gateway: Gateway,
        models: Models,
        may_see: Callable[[Principal, Model], bool],
        total_seconds: float,
        loaded: Callable[[], Iterable[str]],
        clock: Clock,
    ) -> None:
        """`loaded` gives the ids of the models that are in memory now."""
        self._gateway = gateway
        self._models = models
        self._may_see = may_see
        self.total_seconds = total_seconds
        self._loaded = loaded
        self._clock = clock

    def register(self, routes: Routes) -> None:
        # Clients look for a server here before they have been given a key.
        routes.add("GET", "/", OPEN, self._greet)
        routes.add("GET", "/api/version", READERS, self._show_version)
        routes.add("GET", "/api/tags", READERS, self._list_models)
        routes.add("GET", "/api/ps", READERS, self._list_loaded)
        routes.add("POST", "/api/show", READERS, self._show_model)
        routes.add("POST", "/api/chat", CALLERS, self._answering(Wire.OLLAMA_CHAT, _CHAT))
        routes.add("POST", "/api/generate", CALLERS, self._answering(Wire.OLLAMA_GENERATE, _GENERATE))
        routes.add("POST", "/api/embed", CALLERS, self._embed)
        routes.add("POST", "/api/embeddings", CALLERS, self._embed_one)
        for method, path in _REFUSED:
            routes.add(method, path, CALLERS, _refuse)
        routes.add("HEAD", "/api/blobs/{digest}", CALLERS, _know_no_blob)

    def _answering(self, wire: Wire, decoder: "msgspec.json.Decoder[_Asking]") -> RequestHandler:
        async def answer(request: Request) -> None:
            exchange = request.exchange
            body, fields = read_call(exchange.body, exchange.headers.get(b"content-type"), decoder)
            await self._answer(request, wire, body, fields)

        return answer

    async def generate(self, request: Request, body: GenerateBody, fields: Mapping[str, msgspec.Raw]) -> None:
        """Answers what another API has read with `read_call`, as POST /api/generate does."""
        await self._answer(request, Wire.OLLAMA_GENERATE, body, fields)

    async def _answer(
        self, request: Request, wire: Wire, body: ChatBody | GenerateBody, fields: Mapping[str, msgspec.Raw]
    ) -> None:
        if body.only_loads:
            self._check_exists(request.caller, body.model)
            self._respond_loaded(request, body)
        else:
            await self._run(request, Operation.CHAT, wire, body, fields, stream=body.streams)

    async def _embed(self, request: Request) -> None:
        exchange = request.exchange
        body, fields = read_call(exchange.body, exchange.headers.get(b"content-type"), _EMBED)
        if body.input:
            await self._run(request, Operation.EMBEDDING, Wire.OLLAMA_EMBED, body, fields)
        else:
            self._check_exists(request.caller, body.model)
            self._respond(request, {"model": body.model, "embeddings": []})

    async def _embed_one(self, request: Request) -> None:
        exchange = request.exchange
        body, fields = read_call(exchange.body, exchange.headers.get(b"content-type"), _OLD_EMBED)
        if body.prompt:
            fields = as_embed_fields(fields)
            await self._run(request, Operation.EMBEDDING, Wire.OLLAMA_EMBED, body, fields, old=True)
        else:
            self._check_exists(request.caller, body.model)
            self._respond(request, {"embedding": []})

    async def _run(
        self,
        request: Request,
        operation: Operation,
        wire: Wire,
        body: Body,
        fields: Mapping[str, msgspec.Raw],
        *,
        stream: bool = False,
        old: bool = False,
    ) -> None:
        exchange = request.exchange
        name = self._resolve(body.model)
        call = Call(
            id=request.id,
            operation=operation,
            wire=wire,
            model=name,
            fields=fields,
            principal=request.caller,
            received=exchange.received,
            deadline=exchange.received + self.total_seconds,
            stream=stream,
            peer=exchange.peer,
        )
        reply = OllamaReply(call, exchange, body, abilities=self._abilities(name), clock=self._clock, old=old)
        try:
            await self._gateway.run(call, reply)
        except NotFound as error:
            if error.code != "model_not_found":
                raise
            raise _no_such_model(body.model) from None

    def _resolve(self, name: str) -> str:
        """The name that the catalogue knows: in Ollama's world a name without a tag and `:latest` are the same."""
        candidates = [name, name.removesuffix(_LATEST)]
        if ":" not in name.rpartition("/")[2]:
            candidates.append(name + _LATEST)
        return next((known for known in candidates if known and self._models.get(known) is not None), name)

    def _abilities(self, name: str) -> Abilities:
        model, plan = self._models.get(name), self._models.plan(name)
        if model is None or plan is None:
            return Abilities()
        # An alias may lead on to others, which know less.
        alone = len(plan.targets) == 1 and plan.stands_for is None
        return Abilities(
            thinks=alone and "reasoning_effort" in model.parameters, engine=alone and model.provider == "local"
        )

    def _visible(self, caller: Principal, name: str) -> Model | None:
        model = self._models.get(self._resolve(name))
        return model if model is not None and self._may_see(caller, model) else None

    def _check_exists(self, caller: Principal, name: str) -> None:
        """Raises NotFound. A name that no list contains may still lead somewhere."""
        if self._models.get(self._resolve(name)) is None and caller.models is None:
            found = self._models.plan(name) is not None
        else:
            found = self._visible(caller, name) is not None
        if not found:
            raise _no_such_model(name)

    def _respond_loaded(self, request: Request, body: ChatBody | GenerateBody) -> None:
        """Engines load what is asked of them anyway, and keep it; so there is nothing to do."""
        said = loaded_object(body.model, chat=isinstance(body, ChatBody), unload=unloads(body), now=self._clock.now())
        headers = ((b"x-request-id", request.id.encode()), *(_LINES if body.streams else _JSON))
        request.exchange.respond(200, headers, said + b"\n" if body.streams else said)

    async def _greet(self, request: Request) -> None:
        request.exchange.respond(200, _TEXT, b"Ollama is running")

    async def _show_version(self, request: Request) -> None:
        self._respond(request, {"version": VERSION})

    async def _list_models(self, request: Request) -> None:
        caller = request.caller
        self._respond(request, render_tags(model for model in self._models.models() if self._may_see(caller, model)))

    async def _list_loaded(self, request: Request) -> None:
        found = (self._visible(request.caller, name) for name in self._loaded())
        self._respond(request, render_loaded(model for model in found if model is not None))

    async def _show_model(self, request: Request) -> None:
        exchange = request.exchange
        body = read(exchange.body, exchange.headers.get(b"content-type"), _SHOW)
        name = body.model or body.name
        if not name:
            raise no_model()
        model = self._visible(request.caller, name)
        if model is None:
            raise _no_such_model(name)
        self._respond(request, render_shown(model))

    def _respond(self, request: Request, body: object) -> None:
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        request.exchange.respond(200, headers, msgspec.json.encode(body))


def _no_such_model(name: str) -> NotFound:
    shown = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"
    return NotFound(f"model '{shown}' not found", code="model_not_found", param="model")


async def _refuse(request: Request) -> None:
    action = request.exchange.path.split("/")[2]
    raise BadRequest(
        f"{action} is not offered here: this gateway's models are managed by its operator", code="unsupported_operation"
    )


async def _know_no_blob(_request: Request) -> None:
    raise NotFound("blob not found")
