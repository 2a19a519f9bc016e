"""Everything that sigoREST's clients ask: models in two forms, health, the memory block, and the later small routes."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._guard import Request, Routes
from stellwerk.api._transactions import RunInTransaction
from stellwerk.api.sigorest.chat import Chat
from stellwerk.core.clock import Clock
from stellwerk.core.errors import Forbidden, TooLarge, Unavailable
from stellwerk.core.plan import Model, Price
from stellwerk.core.principal import CALLERS, READERS, Principal
from stellwerk.ledger.reports import usage_by
from stellwerk.providers.registry import RegistryModel
from stellwerk.records.audit import Actor, append
from stellwerk.sessions.memory import MemoryBlock

_TAG = "sigoREST"
_DAY = 86_400.0
_PICO_PER_MILLION = 1_000_000
_OLLAMA_RANGE = (0.0, 2.0)


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """One circuit breaker as the documented health shows it."""

    model: str
    open: bool
    failures: int


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["sigorest"] = "sigorest"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ListedModel]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Costs are dollars, or the currency of the house for prices of its own, for a million tokens."""

    id: str
    shortcode: str
    endpoint: str
    apikey: Annotated[str, Meta(description="Name of the environment variable that holds the key, never the key.")]
    max_input_tokens: int
    max_output_tokens: int
    input_cost: float
    output_cost: float
    min_temperature: float
    max_temperature: float
    requires_completion_tokens: bool


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok", "degraded"]
    timestamp: int
    available_models: int
    circuit_breakers: list[BreakerState]
    memory_set: bool


class MemoryShape(msgspec.Struct, kw_only=True):
    content: Annotated[str, Meta(max_length=65_536)] = ""
    cache: bool = False


class Version(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    component: Literal["stellwerk"] = "stellwerk"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    requests: int = 0


class UsageShape(msgspec.Struct, frozen=True, kw_only=True):
    """Of the last 24 hours, of the caller's user."""

    by_model: dict[str, Tokens]
    by_channel: dict[str, Tokens]
    total: Tokens


class SigoRestAPI:
    """The routes of one listener; `may_change_memory` is what its peers may do to everybody's prompts."""

    def __init__(
        self,
        *,
        chat: Chat,
        models: Callable[[], Sequence[Model]],
        offers: Callable[[Model], bool],
        may_see: Callable[[Principal, Model], bool],
        registry: Callable[[], Mapping[str, RegistryModel]],
        breakers: Callable[[], list[BreakerState]],
        obstacles: Callable[[], list[str]],
        memory: MemoryBlock,
        may_change_memory: Callable[[], bool],
        run: RunInTransaction,
        fetch: RunInTransaction,
        clock: Clock,
        version: str,
    ) -> None:
        """`offers` says which of the models are on the list of this listener, `may_see` who sees them; `registry`
        holds the rows of the table by shortcode."""
        self._chat = chat
        self._models = models
        self._offers = offers
        self._may_see = may_see
        self._registry = registry
        self._breakers = breakers
        self._obstacles = obstacles
        self._memory = memory
        self._may_change_memory = may_change_memory
        self._run = run
        self._fetch = fetch
        self._clock = clock
        self._version = version

    def register(self, routes: Routes) -> None:
        # Clients of Go that were made before 2025-03 lose the last part of a base URL that ends without a slash.
        for path in ("/v1/chat/completions", "/chat/completions"):
            routes.add("POST", path, CALLERS, self._chat.answer)
        routes.add("GET", "/ping", READERS, self._pong)
        registry = Registry(routes)
        for path, handler, answer, summary in (
            ("/v1/models", self._list_models, ModelList, "List the models by id and by shortcode"),
            ("/models", self._list_models, ModelList, "List the models, for clients that leave /v1 out"),
            ("/api/models", self._show_models, list[ModelFacts], "Show prices, limits and temperatures"),
            ("/api/health", self._show_health, Health, "Show the state, the breakers and whether a memory is set"),
            ("/api/memory", self._show_memory, MemoryShape, "Show the memory block"),
            ("/api/version", self._show_version, Version, "Show the version"),
            ("/api/usage", self._show_usage, UsageShape, "Show the tokens of the last day"),
            ("/api/shortcodes", self._show_shortcodes, dict[str, str], "Show the shortcode of each id"),
        ):
            registry.add(
                Endpoint(
                    method="GET", path=path, access=READERS, summary=summary, tag=_TAG, handler=handler, answer=answer
                )
            )
        registry.add(
            Endpoint(
                method="PUT",
                path="/api/memory",
                access=CALLERS,
                summary="Replace the memory block, which every call carries from then on",
                tag=_TAG,
                handler=self._replace_memory,
                body=MemoryShape,
                answer=MemoryShape,
                errors=(Forbidden, TooLarge, Unavailable),
            )
        )

    async def _pong(self, request: Request) -> None:
        request.exchange.respond(200, ((b"content-type", b"text/plain; charset=utf-8"),), b"pong")

    def _own_models(self) -> list[Model]:
        return [model for model in self._models() if self._offers(model)]

    def _models_for(self, caller: Principal) -> list[Model]:
        return [model for model in self._own_models() if self._may_see(caller, model)]

    async def _list_models(self, asked: Asked) -> ModelList:
        rows = []
        now = int(self._clock.now())
        for model in self._models_for(asked.caller):
            names = (_full_name(model), model.shortcode)
            rows += [ListedModel(id=name, created=now) for name in dict.fromkeys(names) if name is not None]
        return ModelList(data=rows)

    async def _show_models(self, asked: Asked) -> list[ModelFacts]:
        registry = self._registry()
        return [_facts(model, registry.get(model.shortcode or "")) for model in self._models_for(asked.caller)]

    async def _show_health(self, _asked: Asked) -> Health:
        return Health(
            status="degraded" if self._obstacles() else "ok",
            timestamp=int(self._clock.now()),
            available_models=len(self._own_models()),
            circuit_breakers=self._breakers(),
            memory_set=bool(self._memory.current().content),
        )

    async def _show_memory(self, _asked: Asked) -> MemoryShape:
        memory = self._memory.current()
        return MemoryShape(content=memory.content, cache=memory.cache)

    async def _replace_memory(self, asked: Asked) -> MemoryShape:
        if not self._may_change_memory():
            raise Forbidden("The memory block may only be changed on the machine of the gateway.")
        block: MemoryShape = asked.body
        await asyncio.to_thread(self._memory.replace, block.content, block.cache)
        actor = Actor(name=asked.caller.name, key_id=asked.caller.key_id, peer=asked.peer)
        # What everybody's prompts begin with is nobody's private affair; the text itself stays out of the record.
        details = {"characters": len(block.content), "cache": block.cache}
        now = self._clock.now()
        await self._run(lambda connection: append(connection, actor, "memory.replace", "memory", details, now=now))
        return block

    async def _show_version(self, _asked: Asked) -> Version:
        return Version(version=self._version)

    async def _show_usage(self, asked: Asked) -> UsageShape:
        now, user_id = self._clock.now(), asked.caller.user_id
        rows = await self._fetch(lambda connection: usage_by(connection, "model", now - _DAY, now, user_id=user_id))
        by_model = {
            row.value: Tokens(
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                total_tokens=row.input_tokens + row.output_tokens,
                requests=row.calls,
            )
            for row in rows
        }
        return UsageShape(by_model=by_model, by_channel={}, total=_sum(by_model.values()))

    async def _show_shortcodes(self, asked: Asked) -> dict[str, str]:
        models = self._models_for(asked.caller)
        return {_full_name(model) or model.id: model.shortcode for model in models if model.shortcode}


def _full_name(model: Model) -> str | None:
    """The vendor's own name; of an Ollama's model None, because the short one is the only name that it has here."""
    if model.shortcode is not None and model.shortcode.startswith("ollama-"):
        return None
    return model.name if model.shortcode is not None else model.id


def _facts(model: Model, row: RegistryModel | None) -> ModelFacts:
    price = model.price or Price()
    least, most = model.temperature or _OLLAMA_RANGE
    return ModelFacts(
        id=_full_name(model) or model.shortcode or model.id,
        shortcode=model.shortcode or model.id,
        endpoint="local" if row is None else row.endpoint,
        apikey="" if row is None else row.key_variable,
        max_input_tokens=model.context_length or 0,
        max_output_tokens=(model.max_output_tokens or 0) if row is None else row.max_output,
        input_cost=price.input / _PICO_PER_MILLION if row is None else float(row.input_cost),
        output_cost=price.output / _PICO_PER_MILLION if row is None else float(row.output_cost),
        min_temperature=least,
        max_temperature=most,
        requires_completion_tokens=model.completion_tokens,
    )


def _sum(parts: Iterable[Tokens]) -> Tokens:
    total = Tokens()
    for part in parts:
        total = Tokens(**{name: getattr(total, name) + getattr(part, name) for name in Tokens.__struct_fields__})
    return total
