"""What Ollama Cloud Proxy answers beside the calls of models: its state, its statistics, and some paths of the cloud.

Only what stands here reaches the cloud: it would do anything else in the name of whoever the keys belong to.
"""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from stellwerk.api._bodies import decode_body
from stellwerk.api._guard import Request, RequestHandler, Routes
from stellwerk.api._transactions import RunInTransaction
from stellwerk.api.cloud_proxy.names import cloud_name
from stellwerk.api.cloud_proxy.probe import CloudProbe
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import BadRequest, Forbidden, GatewayError, TooLarge, Unavailable
from stellwerk.core.principal import CALLERS, OPEN, READERS, Access
from stellwerk.http.exchange import Headers
from stellwerk.ledger.upstream_usage import hours_of_use, use_in_all
from stellwerk.pipeline.gateway import Gateway, Permit

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_SEARCHES = ("/web_search", "/web_fetch")
"""What uses the operator's keys up as a call of a model does."""
_PASSED: tuple[tuple[str, str, Access], ...] = (
    ("GET", "/tags", READERS),
    ("GET", "/ps", READERS),
    ("GET", "/version", READERS),
    ("POST", "/show", READERS),
    *(("POST", path, CALLERS) for path in _SEARCHES),
)
"""Below each of PREFIXES."""
PREFIXES: Final = ("/api", "", "/api/api")
"""Clients leave /api out, or write it twice because their base URL has it already."""
_MOST_ROWS = 10_000
_MOST_AT_ONCE = 64
_LONGEST_WAIT_SECONDS = 60.0
"""For money that other calls of the same user hold."""
_MOST_BYTES = 1 << 20
_VISIBLE = frozenset(range(0x21, 0x7F))
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_decode_text = msgspec.json.Decoder(str).decode


class Ask(Protocol):
    def __call__(self, method: str, target: str, body: bytes, /) -> Awaitable[tuple[bytes | None, bytes]]:
        """Asks the cloud; content type and body of its answer. Raises GatewayError."""


class CloudProxyAPI:
    """Registers its routes; the calls of models are those of the Ollama and the OpenAI API."""

    def __init__(
        self, *, provider: str, ask: Ask, probe: CloudProbe, fetch: RunInTransaction, gateway: Gateway
    ) -> None:
        """`provider` is whose keys are counted, `fetch` reads from the database; `gateway` knows everybody's limits."""
        self._gateway = gateway
        self._provider = provider
        self._ask = ask
        self._probe = probe
        self._fetch = fetch
        self._running = 0

    def register(self, routes: Routes, statistics: Routes) -> None:
        """`statistics` are the routes that programs on this machine may always use."""
        # Clients look for a server here before they show anything.
        statistics.add("HEAD", "/", OPEN, _greet)
        statistics.add("GET", "/", READERS, self._show_state)
        statistics.add("GET", "/stats", READERS, self._show_hours)
        for prefix in PREFIXES:
            for method, path, access in _PASSED:
                handler = self._passing(method, f"/api{path}")
                routes.add(
                    method, prefix + path, access, self._counting(path, handler) if path in _SEARCHES else handler
                )
        routes.add("GET", "/v1/models", READERS, self._passing("GET", "/v1/models"))

    def _passing(self, method: str, path: str) -> RequestHandler:
        async def pass_on(request: Request) -> None:
            exchange = request.exchange
            body = _read_body(exchange.body) if method == "POST" else b""
            kind, content = await self._ask_in_turn(method, path + _read_query(exchange.query), body)
            headers = ((b"x-request-id", request.id.encode()), (b"content-type", kind or b"application/json"))
            exchange.respond(200, headers, content)

        return pass_on

    def _counting(self, path: str, handler: RequestHandler) -> RequestHandler:
        async def count(request: Request) -> None:
            permit = await self._enter(request, path.removeprefix("/"))
            try:
                await handler(request)
            finally:
                permit.release(0)

        return count

    async def _ask_in_turn(self, method: str, target: str, body: bytes) -> tuple[bytes | None, bytes]:
        if self._running == _MOST_AT_ONCE:
            raise Unavailable("Too many questions to the cloud are waiting.", retry_after=1)
        self._running += 1
        try:
            return await self._ask(method, target, body)
        finally:
            self._running -= 1

    async def _enter(self, request: Request, name: str) -> Permit:
        """Counts a search among the requests of its sender. Raises Forbidden, RateLimited and InsufficientCredit."""
        caller, exchange = request.caller, request.exchange
        if caller.models is not None:
            raise Forbidden("This API key is for certain models only.", code="model_access_denied")
        call = Call(
            id=request.id,
            operation=Operation.CHAT,
            wire=Wire.OLLAMA_CHAT,
            model=f"{self._provider}/{name}",
            fields={},
            principal=caller,
            received=exchange.received,
            deadline=exchange.received + _LONGEST_WAIT_SECONDS,
            stream=False,
            peer=exchange.peer,
        )
        return await self._gateway.enter(call, call.model)

    async def _show_state(self, request: Request) -> None:
        state = await self._probe.state()
        try:
            found = await self._fetch(lambda connection: use_in_all(connection, self._provider))
        except GatewayError:
            summary: dict[str, Any] = {}
        else:
            # A sum of nothing has always been null here.
            summary = {
                "total_req": found.requests,
                "p_tokens": found.prompt_tokens if found.requests else None,
                "c_tokens": found.completion_tokens if found.requests else None,
            }
        _respond(request, {"status": "ok", "ollama_cloud": state, "usage_summary": summary})

    async def _show_hours(self, request: Request) -> None:
        try:
            rows = await self._fetch(lambda connection: hours_of_use(connection, self._provider, limit=_MOST_ROWS))
        except GatewayError as error:
            raise GatewayError(f"Error retrieving stats: {error.message}", code=error.code) from None
        _respond(
            request,
            [
                {
                    "date": f"{datetime.fromtimestamp(row.hour, UTC):%Y-%m-%d}",
                    "hour": f"{datetime.fromtimestamp(row.hour, UTC):%H}",
                    "key_index": row.key_index,
                    "model": row.model,
                    "requests": row.requests,
                    "prompt_tokens": row.prompt_tokens,
                    "completion_tokens": row.completion_tokens,
                }
                for row in rows
            ],
        )


async def _greet(request: Request) -> None:
    request.exchange.respond(200, _JSON, b"")


def _respond(request: Request, body: Any) -> None:
    headers = ((b"x-request-id", request.id.encode()), *_JSON)
    request.exchange.respond(200, headers, msgspec.json.encode(body))


def _read_query(query: bytes) -> str:
    if not query:
        return ""
    if not _VISIBLE.issuperset(query):
        raise BadRequest("The query cannot be read.", code="invalid_query")
    return f"?{query.decode('ascii')}"


def _read_body(body: bytes) -> bytes:
    """The body as it came but for names of models, which the cloud knows without their mark."""
    if len(body) > _MOST_BYTES:
        raise TooLarge(f"The body may have {_MOST_BYTES} bytes at most.")
    fields = decode_body(body, None, _OBJECT)
    changed = dict(fields)
    for field in ("model", "name"):
        if bytes(fields.get(field, b""))[:1] == b'"':
            changed[field] = msgspec.Raw(msgspec.json.encode(cloud_name(_decode_text(fields[field]))))
    return body if changed == fields else msgspec.json.encode(changed)
