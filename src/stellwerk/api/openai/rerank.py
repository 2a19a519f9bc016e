"""Reranking, in the form that Cohere and Jina share: how well documents answer a query, the best first."""

import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api._routing import answered_by
from stellwerk.api.openai.endpoints import make_call
from stellwerk.api.openai.requests import RerankBody, read_body
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import BadRequest, GatewayError, UpstreamBroken, UpstreamError
from stellwerk.core.events import Event
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Target
from stellwerk.core.ports import Meter, UpstreamAnswer
from stellwerk.core.principal import CALLERS
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.pipeline.gateway import Gateway
from stellwerk.providers._openai_events import stream_error

PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")
_MOST_TOKENS = 1_000_000_000
_NOTHING = msgspec.Raw(b"null")
_JSON: Headers = ((b"content-type", b"application/json"),)


class Document(msgspec.Struct, frozen=True):
    text: str


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    index: int
    relevance_score: float
    document: Document | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream answered; the results in its own order."""

    results: Sequence[Result]
    id: str | None
    input_tokens: int | None


class _Score(msgspec.Struct):
    index: int
    relevance_score: float


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens: float | None = None


class _Meta(msgspec.Struct):
    tokens: _Tokens | None = None
    billed_units: _Tokens | None = None


class _Answer(msgspec.Struct):
    results: list[_Score] | None = None
    data: list[_Score] | None = None
    id: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    meta: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING


_decode = msgspec.json.Decoder(_Answer).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_tokens = msgspec.json.Decoder(_Tokens | None).decode
_decode_meta = msgspec.json.Decoder(_Meta | None).decode


class RerankAPI:
    """Registers its routes and turns each request into a Call."""

    def __init__(self, gateway: Gateway, total_seconds: Callable[[], float]) -> None:
        self._gateway = gateway
        self._total_seconds = total_seconds
        self._decoder = msgspec.json.Decoder(RerankBody)

    def register(self, routes: Routes) -> None:
        """Cohere's clients put the version of its API into the path, others are given a base URL without any."""
        for path in PATHS:
            routes.add("POST", path, CALLERS, self._rerank)

    async def _rerank(self, request: Request) -> None:
        exchange = request.exchange
        body, fields = read_body(exchange.body, exchange.headers.get(b"content-type"), self._decoder)
        documents = [each if isinstance(each, str) else each.text for each in body.documents]
        # Not every upstream takes documents as objects or knows of returning them: that is done here.
        fields["documents"] = msgspec.Raw(msgspec.json.encode(documents))
        fields.pop("return_documents", None)
        call = make_call(request, Operation.RERANK, Wire.RERANK, body, fields, self._total_seconds())
        reply = RerankReply(
            call, exchange, documents, most=body.top_n or len(documents), shows=bool(body.return_documents)
        )
        await self._gateway.run(call, reply)


class RerankReply:
    """Fills the port `Reply` for one call."""

    __slots__ = ("_call", "_documents", "_exchange", "_headers", "_most", "_shows", "started")

    def __init__(self, call: Call, exchange: Exchange, documents: Sequence[str], *, most: int, shows: bool) -> None:
        """`most` is how many results the client wants, `shows` whether with the text of each."""
        self._call = call
        self._exchange = exchange
        self._documents = documents
        self._most = most
        self._shows = shows
        self._headers: Headers = ((b"x-request-id", call.id.encode()),)
        self.started = False

    def admit(self, headers: Headers) -> None:
        self._headers += headers

    def fields(self, wire: Wire) -> Mapping[str, msgspec.Raw]:
        if wire is self._call.wire:
            return self._call.fields
        raise BadRequest("This request cannot be translated for the model's provider.", code="unsupported_operation")

    def tell(self, _error: GatewayError) -> bool:
        """Nothing is sent before there is an answer."""
        return False

    async def relay(self, answer: UpstreamAnswer, target: Target, meter: Meter) -> None:
        ranking = read_ranking(await answer.read(), len(self._documents), answer.secrets)
        if ranking.input_tokens:
            meter.count(Usage(input_tokens=ranking.input_tokens))
        body = self._render(ranking)
        self.started = True
        meter.deliver(1, len(body))
        seconds = meter.begin()
        headers = (
            *self._headers,
            *answered_by(self._call, target),
            (b"openai-processing-ms", b"%d" % (seconds * 1000)),
            *_JSON,
        )
        self._exchange.respond(200, headers, body)

    async def render(
        self, _events: AsyncIterator[Event], _answer: UpstreamAnswer, _target: Target, _meter: Meter, /
    ) -> None:
        """Never needed: every provider answers in this wire."""
        raise BadRequest("This request cannot be translated for the model's provider.", code="unsupported_operation")

    def _render(self, ranking: Ranking) -> bytes:
        """What clients of Cohere's and of Jina's API read: `id` and `meta` are of the one, `usage` is of the other."""
        results = sorted(ranking.results, key=lambda result: (-result.relevance_score, result.index))[: self._most]
        if self._shows:
            results = [
                msgspec.structs.replace(result, document=Document(self._documents[result.index])) for result in results
            ]
        answer: dict[str, object] = {
            "id": ranking.id or f"rerank-{os.urandom(12).hex()}",
            "object": "list",
            "model": self._call.model,
            "results": results,
        }
        tokens = ranking.input_tokens
        if tokens is not None:
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
            answer["meta"] = {"tokens": {"input_tokens": tokens, "output_tokens": 0}}
        return msgspec.json.encode(answer)


def read_ranking(body: bytes, count: int, secrets: Sequence[str] = ()) -> Ranking:
    """An upstream's answer for `count` documents. Raises UpstreamError when it is no such thing."""
    try:
        answer = _decode(body)
    except (ValueError, RecursionError):
        raise _unreadable() from None
    scores = answer.results if answer.results is not None else answer.data
    if scores is None:
        raise _complain(answer, secrets)
    places = {score.index for score in scores}
    if len(places) != len(scores) or not places <= set(range(count)):
        raise _unreadable()
    return Ranking(
        results=[Result(score.index, score.relevance_score) for score in scores],
        id=_read_id(answer.id),
        input_tokens=_read_tokens(answer),
    )


def _complain(answer: _Answer, secrets: Sequence[str]) -> UpstreamError:
    """Some upstreams report a failure under status 200."""
    return stream_error(answer.error, secrets) if bytes(answer.error) != b"null" else _unreadable()


def _unreadable() -> UpstreamBroken:
    return UpstreamBroken("The upstream's answer cannot be read.", may_fall_back=True)


def _read_id(raw: msgspec.Raw) -> str | None:
    try:
        return _decode_text(raw)[:256] or None
    except msgspec.DecodeError:
        return None


def _read_tokens(answer: _Answer) -> int | None:
    """How many tokens were read, wherever the upstream says it; None when it does not, or nonsense."""
    try:
        usage, meta = _decode_tokens(answer.usage), _decode_meta(answer.meta)
    except (msgspec.DecodeError, RecursionError):
        return None
    places = [usage] if usage is not None else []
    if meta is not None:
        places += [place for place in (meta.tokens, meta.billed_units) if place is not None]
    for place in places:
        tokens = place.prompt_tokens or place.total_tokens or place.input_tokens
        if tokens and math.isfinite(tokens) and 0 < tokens <= _MOST_TOKENS:
            return int(tokens)
    return None
