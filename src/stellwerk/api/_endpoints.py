"""One way to write a route that takes and gives JSON: its types are declared once and checked, rendered and documented.

Routes of the data path read and write their exchange themselves; these are for everything that is not in a hurry.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from stellwerk.api._bodies import decode_body, explain
from stellwerk.api._guard import Request, Routes
from stellwerk.core.errors import BadRequest, GatewayError, NotFound, TooLarge
from stellwerk.core.principal import Access, Principal
from stellwerk.http.exchange import Exchange, Headers
from stellwerk.http.router import compile_template

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_MOST_BYTES = 1 << 20
_MOST_PARAMETERS = 32


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler returns in place of the plain answer when the status is not the endpoint's own."""

    status: int
    body: Any
    headers: Headers = ()


class Asked:
    """A request whose parts have been checked against the types of its endpoint."""

    __slots__ = ("_body", "_query", "parameters", "request")

    def __init__(self, request: Request, parameters: Mapping[str, Any], query: Any, body: Any) -> None:
        self.request = request
        self.parameters = parameters
        """Values of the names in the path."""
        self._query = query
        self._body = body

    @property
    def caller(self) -> Principal:
        """Raises Unauthenticated on an open route without a key."""
        return self.request.caller

    @property
    def peer(self) -> str:
        return self.request.exchange.peer

    @property
    def query(self) -> Any:
        """An object of the endpoint's `query` type."""
        return self._query

    @property
    def body(self) -> Any:
        """An object of the endpoint's `body` type."""
        return self._body


Handler = Callable[[Asked], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A route with its types. Bodies and queries refuse fields that their type does not have."""

    method: str
    path: str
    """With `{name}` for each path parameter."""
    access: Access
    summary: str
    tag: str
    handler: Handler
    """Returns the answer, an object of the type `answer`, or `Answered`; None when `media` is not JSON."""
    answer: Any
    description: str = ""
    path_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Type of each name in the path; `int` with bounds or `str`."""
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    body_optional: bool = False
    """No body at all stands for the defaults of the type."""
    reads_body: bool = False
    """The handler reads the exchange's body itself, in more forms than one; `body` is what the document says of it."""
    unknown_hint: str = ""
    """What a client is told beside the name of a field that the body does not have."""
    body_example: Any = None
    example: Any = None
    """An answer."""
    errors: Sequence[type[GatewayError]] = ()
    """Beside those that every endpoint has: 401 and 403 where it asks for a role, 400, 413 and 415 with a body."""
    status: int = 200
    accepted: Any = None
    """Type of the answer 202, where the handler may leave the work to go on by itself."""
    accepted_example: Any = None
    media: str = "application/json"
    """Of another type the handler writes the answer itself; `answer` is what the document says of its parts."""


class Registry:
    """Every endpoint of a listener, for the router and for the OpenAPI document."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self.endpoints: list[Endpoint] = []

    def add(self, *endpoints: Endpoint) -> None:
        for endpoint in endpoints:
            self._routes.add(endpoint.method, endpoint.path, endpoint.access, _serving(endpoint))
            self.endpoints.append(endpoint)


def _serving(endpoint: Endpoint) -> Callable[[Request], Awaitable[None]]:
    template = compile_template(endpoint.path)
    decoder = None if endpoint.body is None or endpoint.reads_body else msgspec.json.Decoder(endpoint.body)
    default = endpoint.body() if endpoint.body is not None and endpoint.body_optional else None

    async def serve(request: Request) -> None:
        exchange = request.exchange
        found = template.fullmatch(exchange.path)
        parameters = {} if found is None else _parameters(found.groupdict(), endpoint.path_parameters)
        query = _query(exchange.query, endpoint.query)
        body = default
        if decoder is not None and (default is None or exchange.body.strip()):
            if len(exchange.body) > _MOST_BYTES:
                raise TooLarge(f"The body may have {_MOST_BYTES} bytes at most.")
            body = _body(exchange, decoder, endpoint.unknown_hint)
        answer = await endpoint.handler(Asked(request, parameters, query, body))
        if endpoint.media != "application/json":
            return
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        if isinstance(answer, Answered):
            exchange.respond(answer.status, (*headers, *answer.headers), msgspec.json.encode(answer.body))
        else:
            exchange.respond(endpoint.status, headers, msgspec.json.encode(answer))

    return serve


def _body(exchange: Exchange, decoder: "msgspec.json.Decoder[Any]", unknown_hint: str) -> Any:
    try:
        return decode_body(exchange.body, exchange.headers.get(b"content-type"), decoder)
    except BadRequest as error:
        if error.code != "unknown_parameter" or not unknown_hint:
            raise
        raise BadRequest(f"{error.message} {unknown_hint}", param=error.param, code=error.code) from None


def _parameters(texts: Mapping[str, str], types: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, text in texts.items():
        try:
            values[name] = msgspec.convert(unquote(text, errors="strict"), types.get(name, str), strict=False)
        except (msgspec.ValidationError, UnicodeDecodeError):
            # Something that cannot be an id is an id that nobody has.
            raise NotFound(f"There is no such {name.removesuffix('_id')}.", param=name) from None
    return values


def _query(query: bytes, kind: type[msgspec.Struct] | None) -> Any:
    """Raises BadRequest that names the parameter. Without a type the query is not looked at."""
    if kind is None:
        return None
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict"
        )
    except ValueError:
        raise BadRequest("The query cannot be read.", code="invalid_query") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise BadRequest(f"The parameter '{name[:100]}' is given twice.", param=name[:100], code="invalid_query")
        values[name] = value
    try:
        found = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    for name in values:
        # The text `null` is read as None; a parameter that is meant to be absent is left out.
        if getattr(found, name) is None:
            raise BadRequest(f"Invalid value for '{name}'.", param=name)
    return found
