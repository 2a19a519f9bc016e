"""Ollama's own API over every model: chat, generate, embeddings and lists."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from stellwerk.api._guard import Request, RequestHandler, Routes
from stellwerk.api._routing import read_priority, read_session
from stellwerk.api.ollama.answers import loaded_object
from stellwerk.api.ollama.keep_alive import keep_seconds
from stellwerk.api.ollama.lists import render_loaded, render_shown, render_tags
from stellwerk.api.ollama.manage import Management
from stellwerk.api.ollama.model_names import LATEST, is_whole_name, no_such_model
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
)
from stellwerk.core.call import Call, Operation, Place, Wire
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
_REFUSED = (
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/blobs/{digest}"),
)
_CHAT = msgspec.json.Decoder(ChatBody)
_GENERATE = msgspec.json.Decoder(GenerateBody)
_EMBED = msgspec.json.Decoder(EmbedBody)
_OLD_EMBED = msgspec.json.Decoder(OldEmbedBody)
_SHOW = msgspec.json.Decoder(ShowBody)
_Asking = TypeVar("_Asking", ChatBody, GenerateBody)
_Reading = TypeVar("_Reading", bound=Body)
Resolve = Callable[[str], str]
"""A client's name for a model to the catalogue's."""


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
        management: Management,
        clock: Clock,
    ) -> None:
        self._gateway = gateway
        self._models = models
        self._may_see = may_see
        self.total_seconds = total_seconds
        self._management = management
        self._clock = clock

    def register(self, routes: Routes) -> None:
        # Clients look for a server here before they have been given a key.
        routes.add("GET", "/", OPEN, self._greet)
        routes.add("GET", "/api/version", READERS, self._show_version)
        routes.add("GET", "/api/tags", READERS, self._list_models)
        routes.add("GET", "/api/ps", READERS, self._list_loaded)
        routes.add("POST", "/api/show", READERS, self._show_model)
        self.register_calls(routes, "/api")
        self._management.register(routes, self._named)
        for method, path in _REFUSED:
            routes.add(method, path, CALLERS, _refuse)
        routes.add("HEAD", "/api/blobs/{digest}", CALLERS, _know_no_blob)

    def register_calls(self, routes: Routes, prefix: str, resolve: Resolve | None = None) -> None:
        """The routes that ask a model. `resolve` is for a listener of its own: it gives the catalogue's name for a
        client's, who reads his own in the answers; bodies are JSON there whatever they are called."""
        chat = self._answering(Wire.OLLAMA_CHAT, _CHAT, resolve)
        generate = self._answering(Wire.OLLAMA_GENERATE, _GENERATE, resolve)
        routes.add("POST", f"{prefix}/chat", CALLERS, chat)
        routes.add("POST", f"{prefix}/generate", CALLERS, generate)
        routes.add("POST", f"{prefix}/embed", CALLERS, partial(self._embed, resolve=resolve))
        routes.add("POST", f"{prefix}/embeddings", CALLERS, partial(self._embed_one, resolve=resolve))

    def _answering(
        self, wire: Wire, decoder: "msgspec.json.Decoder[_Asking]", resolve: Resolve | None
    ) -> RequestHandler:
        async def answer(request: Request) -> None:
            body, fields = _read_call(request, decoder, resolve)
            await self._answer(request, wire, body, fields, resolve)

        return answer

    async def generate(self, request: Request, body: GenerateBody, fields: Mapping[str, msgspec.Raw]) -> None:
        """Answers what another API has read with `read_call`, as POST /api/generate does."""
        await self._answer(request, Wire.OLLAMA_GENERATE, body, fields, None)

    async def _answer(
        self,
        request: Request,
        wire: Wire,
        body: ChatBody | GenerateBody,
        fields: Mapping[str, msgspec.Raw],
        resolve: Resolve | None,
    ) -> None:
        name = (resolve or self._resolve)(body.model)
        if body.only_loads:
            self._check_exists(request.caller, name, body.model)
            model = self._models.get(name)
            if model is None or not self._management.loads_itself(model):
                await self._load(request, name, wire, body, fields)
                return
        await self._run(request, name, Operation.CHAT, wire, body, fields, stream=body.streams)

    async def _embed(self, request: Request, resolve: Resolve | None) -> None:
        body, fields = _read_call(request, _EMBED, resolve)
        name = (resolve or self._resolve)(body.model)
        if body.input:
            await self._run(request, name, Operation.EMBEDDING, Wire.OLLAMA_EMBED, body, fields)
        else:
            self._check_exists(request.caller, name, body.model)
            self._respond(request, {"model": body.model, "embeddings": []})

    async def _embed_one(self, request: Request, resolve: Resolve | None) -> None:
        body, fields = _read_call(request, _OLD_EMBED, resolve)
        name = (resolve or self._resolve)(body.model)
        if body.prompt:
            fields = as_embed_fields(fields)
            await self._run(request, name, Operation.EMBEDDING, Wire.OLLAMA_EMBED, body, fields, old=True)
        else:
            self._check_exists(request.caller, name, body.model)
            self._respond(request, {"embedding": []})

    async def _run(
        self,
        request: Request,
        name: str,
        operation: Operation,
        wire: Wire,
        body: Body,
        fields: Mapping[str, msgspec.Raw],
        *,
        stream: bool = False,
        old: bool = False,
    ) -> None:
        exchange, seconds = request.exchange, keep_seconds(body.keep_alive)
        call = self._call(request, name, operation, wire, fields, stream=stream)
        if request.look is not None:
            request.look(call)
        reply = OllamaReply(call, exchange, body, abilities=self._abilities(name), clock=self._clock, old=old)
        try:
            await self._gateway.run(call, reply)
        except NotFound as error:
            if error.code != "model_not_found":
                raise
            raise no_such_model(body.model) from None
        if seconds is not None:
            self._management.keep(self._models.get(name), seconds)

    def _call(
        self,
        request: Request,
        name: str,
        operation: Operation,
        wire: Wire,
        fields: Mapping[str, msgspec.Raw],
        *,
        stream: bool,
    ) -> Call:
        exchange = request.exchange
        return Call(
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
            priority=read_priority(exchange.headers, request.caller),
            place=Place(),
            session=read_session(exchange.headers),
            background=request.background,
        )

    def _resolve(self, name: str) -> str:
        """The name that the catalogue knows: in Ollama's world a name without a tag and `:latest` are the same."""
        candidates = [name, name.removesuffix(LATEST)]
        if ":" not in name.rpartition("/")[2]:
            candidates.append(name + LATEST)
        found = next((known for known in candidates if known and self._models.get(known) is not None), None)
        if found is None and self._models.plan(name) is None:
            # What was pulled has the name of a file here.
            pulled = self._management.candidates(name)
            found = next((known for known in pulled if self._models.get(known) is not None), None)
        return name if found is None else found

    def _abilities(self, name: str) -> Abilities:
        model, plan = self._models.get(name), self._models.plan(name)
        if model is None or plan is None:
            return Abilities()
        # An alias may lead on to others, which know less.
        alone = len(plan.targets) == 1 and plan.stands_for is None
        return Abilities(
            thinks=alone and "reasoning_effort" in model.parameters,
            engine=alone and model.provider == "local",
            context_length=model.context_length,
        )

    def _visible(self, caller: Principal, name: str) -> Model | None:
        model = self._models.get(self._resolve(name))
        return model if model is not None and self._may_see(caller, model) else None

    def _named(self, caller: Principal, name: str) -> Model | None:
        """The visible model that has exactly this name."""
        name = self._resolve(name)
        model = self._visible(caller, name)
        return model if model is not None and is_whole_name(name, model) else None

    async def _load(
        self,
        request: Request,
        name: str,
        wire: Wire,
        body: ChatBody | GenerateBody,
        fields: Mapping[str, msgspec.Raw],
    ) -> None:
        """Loads or lets go what is asked for by asking nothing. It counts among the caller's requests, and who has no
        money left may not: it may cost others the model that they use."""
        seconds, model, plan = keep_seconds(body.keep_alive), self._models.get(name), self._models.plan(name)
        call = self._call(request, name, Operation.CHAT, wire, fields, stream=body.streams)
        permit = await self._gateway.enter(call, name if plan is None else plan.stands_for or plan.name)
        try:
            if model is not None:
                await self._management.load(model, seconds, until=call.deadline)
        finally:
            permit.release(0)
        self._respond_loaded(request, body, permit.headers)

    def _check_exists(self, caller: Principal, name: str, asked: str) -> None:
        """Raises NotFound with the name that was asked for. A name that no list contains may still lead somewhere."""
        model = self._models.get(name)
        if model is None and caller.models is None:
            found = self._models.plan(name) is not None
        else:
            found = model is not None and self._may_see(caller, model)
        if not found:
            raise no_such_model(asked)

    def _respond_loaded(self, request: Request, body: ChatBody | GenerateBody, limits: Headers) -> None:
        unload = keep_seconds(body.keep_alive) == 0
        said = loaded_object(body.model, chat=isinstance(body, ChatBody), unload=unload, now=self._clock.now())
        headers = ((b"x-request-id", request.id.encode()), *limits, *(_LINES if body.streams else _JSON))
        request.exchange.respond(200, headers, said + b"\n" if body.streams else said)

    async def _greet(self, request: Request) -> None:
        request.exchange.respond(200, _TEXT, b"Ollama is running")

    async def _show_version(self, request: Request) -> None:
        self._respond(request, {"version": VERSION})

    async def _list_models(self, request: Request) -> None:
        caller = request.caller
        self._respond(request, render_tags(model for model in self._models.models() if self._may_see(caller, model)))

    async def _list_loaded(self, request: Request) -> None:
        slots = self._management.loaded(self._clock.now())
        found = ((self._visible(request.caller, slot.model or ""), slot) for slot in slots)
        self._respond(request, render_loaded((model, slot) for model, slot in found if model is not None))

    async def _show_model(self, request: Request) -> None:
        exchange = request.exchange
        body = read(exchange.body, exchange.headers.get(b"content-type"), _SHOW)
        name = body.model or body.name
        if not name:
            raise no_model()
        model = self._visible(request.caller, name)
        if model is None:
            raise no_such_model(name)
        self._respond(request, render_shown(model))

    def _respond(self, request: Request, body: object) -> None:
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        request.exchange.respond(200, headers, msgspec.json.encode(body))


def _read_call(
    request: Request, decoder: "msgspec.json.Decoder[_Reading]", resolve: Resolve | None
) -> tuple[_Reading, dict[str, msgspec.Raw]]:
    exchange = request.exchange
    return read_call(exchange.body, None if resolve else exchange.headers.get(b"content-type"), decoder)


async def _refuse(request: Request) -> None:
    action = request.exchange.path.split("/")[2]
    raise BadRequest(
        f"{action} is not offered here: this gateway's models are managed by its operator", code="unsupported_operation"
    )


async def _know_no_blob(_request: Request) -> None:
    raise NotFound("blob not found")
