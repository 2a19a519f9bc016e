"""Upstreams that speak OpenAI's API: most vendors, vLLM, llama-server, LM Studio, and Ollama under /v1."""

import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from stellwerk import __version__
from stellwerk.core.call import UNKNOWN_OPERATIONS, Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.errors import GatewayError, RateLimited, UpstreamBroken, UpstreamError
from stellwerk.core.events import Event
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import Pool, parse_base_url
from stellwerk.http.upstream import Answer
from stellwerk.providers._engine_requests import check_links
from stellwerk.providers._key_refusals import Refusal, RefusalKind, read_key_refusal
from stellwerk.providers._openai_events import read_events
from stellwerk.providers._refusals import read_refusal
from stellwerk.providers._reranking import embedding_fields, read_scored
from stellwerk.providers.key_ring import KeyStatus, UpstreamKeys

_PATHS = {
    Wire.OPENAI_CHAT: "/chat/completions",
    Wire.OPENAI_COMPLETION: "/completions",
    Wire.OPENAI_EMBEDDING: "/embeddings",
}
_OF_VECTORS = frozenset({Operation.EMBEDDING, Operation.RERANK})
"""What an embedding model can do."""
_MOST_MODELS = 20_000
_DISCOVERY_SECONDS = 15.0
_log = logging.getLogger("stellwerk.providers")
_encode = msgspec.json.Encoder().encode
_decode_options = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream; the quirks at their defaults describe OpenAI's own API."""

    name: str
    base_url: str
    keys: tuple[Secret, ...] = ()
    """None sends no credential; of several, the next one is used when one is refused."""
    headers: tuple[tuple[str, str], ...] = ()
    owned_by: str = ""
    local: bool = False
    completions: bool = True
    embeddings: bool = True
    rerank: str = ""
    """Where it reranks: a path below `base_url`, or with a slash before it one of its host; empty when it does not."""
    lists_models: bool = True
    stream_options: bool = True
    model_prefix: str = ""
    """What the upstream's list puts before every name and requests do without."""
    models: tuple[str, ...] = ()
    """When given, these and no others; the upstream's list is not asked."""


class _Listed(msgspec.Struct):
    """One row of a list of models. Only the name must be right; odd values elsewhere are as good as none."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    created: Any = None
    owned_by: Any = None
    context_length: Any = None
    context_window: Any = None
    max_model_len: Any = None
    max_context_length: Any = None


class _List(msgspec.Struct):
    data: list[msgspec.Raw] | None


class OpenAICompatible:
    """Fills the port `Provider` for one upstream."""

    def __init__(
        self, settings: ProviderSettings, pool: Pool, clock: Clock, parked: Callable[[int], None] = lambda _index: None
    ) -> None:
        """`parked` is told the place of a key that the upstream does not know."""
        self.name = settings.name
        # A server of the operator's own would fetch for a stranger what only that server reaches.
        self.images_as_data = settings.local
        self._parked = parked
        self._settings = settings
        self._pool = pool
        self._clock = clock
        self._path = parse_base_url(settings.base_url)[1]
        shown = [value for _, value in settings.headers]
        shown += [key.reveal() for key in settings.keys]
        self._secrets = tuple(sorted(shown, key=len, reverse=True))
        self._keys = UpstreamKeys(settings.keys, clock) if len(settings.keys) > 1 else None
        self._only_key = 0 if settings.keys else None
        self._heads = {wire: self._all_heads("POST", self._path + path) for wire, path in _PATHS.items()}
        if settings.rerank:
            path = settings.rerank if settings.rerank.startswith("/") else f"{self._path}/{settings.rerank}"
            self._heads[Wire.RERANK] = self._all_heads("POST", path)

    def _all_heads(self, method: str, path: str) -> tuple[bytes, ...]:
        """One for each key."""
        return tuple(self._head(method, path, key) for key in self._settings.keys or (None,))

    def _head(self, method: str, path: str, key: Secret | None) -> bytes:
        settings = self._settings
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: {self._pool.origin.authority}",
            f"user-agent: stellwerk/{__version__}",
            "accept: application/json, text/event-stream",
            "accept-encoding: identity",
        ]
        if key is not None:
            lines.append(f"authorization: Bearer {key.reveal()}")
        lines += [f"{name}: {value}" for name, value in settings.headers]
        if method != "GET":
            lines += ["content-type: application/json", "content-length: "]
            return "\r\n".join(lines).encode("latin-1")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def wire(self, operation: Operation, preferred: Wire) -> Wire | None:  # noqa: ARG002  # the port has it
        settings = self._settings
        if operation is Operation.EMBEDDING:
            return Wire.OPENAI_EMBEDDING if settings.embeddings else None
        if operation is Operation.RERANK:
            return Wire.RERANK if settings.rerank or settings.embeddings else None
        if operation is Operation.OCR:
            return None
        if operation is Operation.COMPLETION and settings.completions:
            return Wire.OPENAI_COMPLETION
        return Wire.OPENAI_CHAT

    # No coroutine of its own, as the next one: each costs every call a microsecond.
    def send(
        self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]
    ) -> Coroutine[Any, Any, UpstreamAnswer]:
        if wire is Wire.RERANK and self._is_scored_here(target.model):
            return self._score(call, target, fields)
        if self._settings.local:
            check_links(fields)
        return self.send_as(call, target, wire, fields)

    async def _score(self, call: Call, target: Target, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        vectors = await self.send_as(call, target, Wire.OPENAI_EMBEDDING, embedding_fields(fields))
        return await read_scored(vectors)

    def _is_scored_here(self, model: str) -> bool:
        """Whether documents are ranked by the vectors of the model: a server that reranks may refuse to do it with an
        embedding model."""
        settings = self._settings
        return not settings.rerank or (settings.embeddings and _operations(model) == _OF_VECTORS)

    def send_as(
        self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]
    ) -> Coroutine[Any, Any, UpstreamAnswer]:
        """The same in exactly this wire."""
        body = self.write_body(call, target, wire, fields)
        heads = self._heads[wire]
        if self._keys is None:
            return self._ask(b"%b%d\r\n\r\n%b" % (heads[0], len(body), body), call.deadline)

        def write(key: int) -> bytes:
            return b"%b%d\r\n\r\n%b" % (heads[key], len(body), body)

        return self._ask_with_keys(self._keys, write, call.deadline, target.model)

    async def _ask(self, request: bytes, deadline: float) -> Answer:
        answer = await self._pool.send(request, deadline)
        answer.secrets = self._secrets
        answer.key = self._only_key
        status = answer.status
        if status < 200 or status >= 300:
            raise _error_of(answer, await _read_body(answer), self._clock.now())
        return answer

    async def _ask_with_keys(
        self, keys: UpstreamKeys, write: Callable[[int], bytes], deadline: float, model: str = ""
    ) -> Answer:
        """Sends what `write` makes for one key after another until one is taken, each of them once at the most."""
        tried: set[int] = set()
        error: GatewayError | None = None
        while (index := keys.pick(model, without=tried)) is not None:
            answer = await self._pool.send(write(index), deadline)
            answer.secrets = self._secrets
            status = answer.status
            if 200 <= status < 300:
                keys.succeeded(index)
                answer.key = index
                return answer
            body, now = await _read_body(answer), self._clock.now()
            error = _error_of(answer, body, now)
            refusal = read_key_refusal(status, body, answer.header, now)
            if refusal is None:
                raise error
            if keys.refused(index, refusal, model):
                self._report(index, refusal)
            tried.add(index)
        wait = keys.earliest(model)
        if error is None or 0 < wait < math.inf:
            raise RateLimited(
                "All keys for the model's upstream have reached their limits.",
                code="upstream_rate_limited",
                retry_after=wait,
                may_fall_back=True,
            )
        raise error

    def _report(self, index: int, refusal: Refusal) -> None:
        place, name = f"{index + 1} of {len(self._settings.keys)}", self.name
        if refusal.kind is RefusalKind.UNAUTHORIZED:
            _log.error("%s does not know the key %s: it is not used again before a restart or reload", name, place)
            self._parked(index)
        else:
            _log.info("%s refused the key %s for a while: %s", name, place, refusal.kind.value)

    def key_status(self) -> list[KeyStatus]:
        """The state of each key; a single one is always ready, since there is none to turn to."""
        if self._keys is not None:
            return self._keys.status()
        return [KeyStatus(index=0, state="ready")] if self._settings.keys else []

    def try_all_keys(self) -> None:
        """Gives keys that were refused another chance."""
        if self._keys is not None:
            self._keys.forget()

    def write_body(
        self,
        call: Call,
        target: Target,
        wire: Wire,  # noqa: ARG002  # for those who speak other wires too
        fields: Mapping[str, msgspec.Raw],
    ) -> bytes:
        """The client's body with the two changes that must be: the model's name here, and the usage asked for."""
        changed = dict(fields)
        changed["model"] = msgspec.Raw(_encode(target.model))
        if call.stream:
            if not self._settings.stream_options:
                changed.pop("stream_options", None)
            elif not call.wants_usage:
                options = changed.get("stream_options")
                given = _decode_options(options) if options is not None and bytes(options) != b"null" else {}
                changed["stream_options"] = msgspec.Raw(_encode({**given, "include_usage": True}))
        return _encode(changed)

    def events(self, answer: UpstreamAnswer, wire: Wire, *, stream: bool) -> AsyncIterator[Event]:
        return read_events(answer, wire, stream=stream)

    def configured_models(self) -> tuple[Model, ...]:
        """What the settings say that it offers; empty when it has to be asked."""
        return tuple(self._model(_Listed(id=name)) for name in self._settings.models)

    async def models(self) -> Sequence[Model]:
        settings = self._settings
        if settings.models:
            return self.configured_models()
        if not settings.lists_models:
            return []
        deadline = self._clock.monotonic() + _DISCOVERY_SECONDS
        heads = self._all_heads("GET", f"{self._path}/models")
        if self._keys is not None:
            answer = await self._ask_with_keys(self._keys, heads.__getitem__, deadline)
        else:
            answer = await self._ask(heads[0], deadline)
        try:
            body = await answer.read()
        finally:
            answer.abort()
        try:
            # Most wrap their list in an object, some send it bare.
            found = msgspec.json.decode(body, type=_List | list[msgspec.Raw])
        except (ValueError, RecursionError):
            raise UpstreamBroken("The upstream's list of models cannot be read.") from None
        rows = found.data or [] if isinstance(found, _List) else found
        return [self._model(row) for row in map(_read_row, rows[:_MOST_MODELS]) if row is not None]

    def _model(self, row: _Listed) -> Model:
        settings = self._settings
        name = row.id.removeprefix(settings.model_prefix)
        return Model(
            provider=settings.name,
            name=name,
            id=f"{settings.name}/{name}",
            owned_by=(isinstance(row.owned_by, str) and row.owned_by) or settings.owned_by or settings.name,
            created=_first_number(row.created) or 0,
            context_length=_first_number(
                row.context_length, row.context_window, row.max_model_len, row.max_context_length
            ),
            operations=_operations(name),
            local=settings.local,
        )


def _operations(name: str) -> frozenset[Operation]:
    """What a model is for, as far as its name tells."""
    folded = name.lower()
    if "rerank" in folded:
        return frozenset({Operation.RERANK})
    # Nothing is known of the others: what they cannot do, the upstream says.
    return _OF_VECTORS if "embed" in folded else UNKNOWN_OPERATIONS


def _read_row(raw: msgspec.Raw) -> _Listed | None:
    try:
        return msgspec.json.decode(raw, type=_Listed)
    except (ValueError, RecursionError):
        return None


def _first_number(*values: object) -> int | None:
    return next((int(value) for value in values if isinstance(value, int | float) and 0 < value < 2**53), None)


async def _read_body(answer: UpstreamAnswer) -> bytes:
    """The body of an unsuccessful answer, which may as well be none."""
    try:
        return await answer.read()
    except UpstreamError:
        return b""
    finally:
        answer.abort()


def _error_of(answer: UpstreamAnswer, body: bytes, now: float) -> GatewayError:
    return read_refusal(answer.status, body, answer.header(b"retry-after"), now, answer.secrets)
