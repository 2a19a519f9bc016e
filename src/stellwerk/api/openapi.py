"""The OpenAPI document of every endpoint, made from the types that check its requests and render its answers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._errors import render_error
from stellwerk.core.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    TooLarge,
    Unauthenticated,
    UnsupportedMedia,
)
from stellwerk.core.principal import ADMINS

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_REFERENCE = "#/components/schemas/{name}"
_ERRORS_OF_BODIES = (TooLarge, UnsupportedMedia)
_SECURITY: Mapping[str, Mapping[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or the access token of a login."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
_MESSAGES: Mapping[int, str] = {
    400: "Invalid value for 'tier': invalid enum value 'gold'.",
    401: "The API key is not known to this gateway.",
    402: "The balance is used up.",
    403: "The role 'user' may not do this.",
    404: "There is no such user.",
    409: "This is the last active administrator.",
    413: "The body may have 1048576 bytes at most.",
    415: "Send the request as JSON, with 'Content-Type: application/json'.",
    429: "Too many attempts. Try again later.",
    503: "The storage cannot be reached.",
}


class ErrorDetail(msgspec.Struct, kw_only=True):
    """What went wrong, for people (`message`) and for programs (`code`)."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct, kw_only=True):
    """Every error; `detail` repeats the message for older clients."""

    error: ErrorDetail
    detail: str


class OpenAPI:
    """Serves the document to administrators. It is made when it is first asked for: then the registry is complete."""

    def __init__(self, registry: Registry, version: str) -> None:
        self._registry = registry
        self._version = version
        self._made: dict[str, Any] | None = None

    def register(self) -> None:
        self._registry.add(
            Endpoint(
                method="GET",
                path="/openapi.json",
                access=ADMINS,
                tag="Reports",
                summary="Show this document",
                handler=self._show,
                answer=dict[str, Any],
                example={"openapi": "3.1.0", "info": {"title": "Stellwerk", "version": self._version}, "paths": {}},
            )
        )

    async def _show(self, _asked: Asked) -> dict[str, Any]:
        if self._made is None:
            self._made = document(self._registry, self._version)
        return self._made


def document(registry: Registry, version: str) -> dict[str, Any]:
    """The document as JSON has it."""
    endpoints = registry.endpoints
    described, components = _describe(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for one in described:
        paths.setdefault(one.endpoint.path, {})[one.endpoint.method.lower()] = _operation(one, components)
    # Their fields have become parameters of their own.
    queries = {one.query for one in described}
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Stellwerk",
            "version": version,
            "description": "Administration, accounts and public information. The paths for models speak OpenAI's API.",
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in _SECURITY],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "responses": _error_responses(endpoints),
            "securitySchemes": _SECURITY,
        },
    }
    plain: dict[str, Any] = msgspec.to_builtins(made)
    return plain


class _Described(NamedTuple):
    """An endpoint with the schemas of its types."""

    endpoint: Endpoint
    answer: Any
    accepted: Any
    parameters: Mapping[str, Any]
    query: str | None
    """Name of a component."""
    body: Any


def _describe(endpoints: Sequence[Endpoint]) -> tuple[list[_Described], dict[str, Any]]:
    """All at once, so that types that are used twice are described once."""
    types: list[Any] = [ErrorAnswer]
    for endpoint in endpoints:
        types += [endpoint.answer, *endpoint.path_parameters.values()]
        types += [] if endpoint.accepted is None else [endpoint.accepted]
        types += [kind for kind in (endpoint.query, endpoint.body) if kind is not None]
    made, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas = iter(made[1:])
    described = [
        _Described(
            endpoint=endpoint,
            answer=next(schemas),
            parameters={name: next(schemas) for name in endpoint.path_parameters},
            accepted=None if endpoint.accepted is None else next(schemas),
            query=None if endpoint.query is None else _name_of(next(schemas)),
            body=None if endpoint.body is None else next(schemas),
        )
        for endpoint in endpoints
    ]
    return described, components


def _name_of(reference: Mapping[str, str]) -> str:
    return reference["$ref"].removeprefix(_REFERENCE.format(name=""))


def _operation(described: _Described, components: Mapping[str, Any]) -> dict[str, Any]:
    endpoint = described.endpoint
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "x-roles": sorted(endpoint.access),
        "responses": _answers(described) | _errors(endpoint),
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if not endpoint.access:
        operation["security"] = []
    parameters = [_path_parameter(name, schema) for name, schema in described.parameters.items()]
    if described.query is not None:
        parameters += _query_parameters(components[described.query])
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {"schema": described.body, "example": endpoint.body_example}
        kinds = (_JSON, _FORM) if endpoint.reads_body else (_JSON,)
        operation["requestBody"] = {
            "required": not endpoint.body_optional,
            "content": dict.fromkeys(kinds, content),
        }
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    return "_".join([endpoint.method.lower(), *re.findall(r"\w+", endpoint.path.replace("-", "_"))])


def _path_parameter(name: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(kind)}
        for name, kind in schema["properties"].items()
    ]


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that may be left out, but cannot be null: a query knows only texts."""
    kept = dict(schema)
    if kept.get("default", ...) is None:
        del kept["default"]
    choices = [choice for choice in kept.pop("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**choices[0], **kept}
    return {"anyOf": choices, **kept} if choices else kept


def _answers(described: _Described) -> dict[str, Any]:
    endpoint = described.endpoint
    if endpoint.media == _JSON:
        content = {"schema": described.answer, "example": endpoint.example}
    else:
        # The document has no words for the parts of a stream.
        content = {"schema": {"type": "string"}, "example": endpoint.example}
    answers = {str(endpoint.status): {"description": "Done.", "content": {endpoint.media: content}}}
    if described.accepted is not None:
        later = {"schema": described.accepted, "example": endpoint.accepted_example}
        answers["202"] = {"description": "It goes on; `status_url` tells how far.", "content": {_JSON: later}}
    return answers


def _errors(endpoint: Endpoint) -> dict[str, Any]:
    return {
        str(status): {"$ref": f"#/components/responses/{_response_name(status)}"}
        for status in sorted({error.status for error in _errors_of(endpoint)})
    }


def _errors_of(endpoint: Endpoint) -> set[type[GatewayError]]:
    """Also those that come before the handler is asked."""
    # A request that is no valid HTTP is refused on every path.
    errors: set[type[GatewayError]] = {BadRequest, *endpoint.errors}
    if endpoint.access:
        errors |= {Unauthenticated, Forbidden}
    if endpoint.body is not None:
        errors |= set(_ERRORS_OF_BODIES)
    return errors


def _error_responses(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    errors = {error.status: error for endpoint in endpoints for error in _errors_of(endpoint)}
    return {_response_name(status): _error_response(errors[status], status) for status in sorted(errors)}


def _error_response(error: type[GatewayError], status: int) -> dict[str, Any]:
    example = error(_MESSAGES.get(status, HTTPStatus(status).phrase))
    return {
        "description": f"{HTTPStatus(status).phrase}.",
        "content": {
            _JSON: {
                "schema": {"$ref": _REFERENCE.format(name=ErrorAnswer.__name__)},
                "example": msgspec.json.decode(render_error(example, "")[2]),
            }
        },
    }


def _response_name(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
