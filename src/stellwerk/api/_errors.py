"""Renders errors, each in the dialect of the API that was asked. There is no other place that does."""

import os
from typing import Any

import msgspec

from stellwerk.core.errors import GatewayError
from stellwerk.http.exchange import Headers

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    502: "upstream_error",
    503: "server_error",
    504: "timeout_error",
}
_RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504})


def render_openai_error(error: GatewayError) -> bytes:
    """The error object as OpenAI's clients read it: `{"error": {message, type, param, code}}`."""
    return msgspec.json.encode({"error": _error_object(error)})


def _error_object(error: GatewayError) -> dict[str, Any]:
    body: dict[str, Any] = {
        "message": error.message,
        "type": _TYPES.get(error.status, "server_error"),
        "param": error.param,
        "code": error.code,
    }
    if error.metadata:
        body["metadata"] = dict(error.metadata)
    return body


def error_headers(error: GatewayError) -> Headers:
    """Headers that tell a client whether and when to come back; OpenAI's and Anthropic's clients obey all three."""
    headers: Headers = ((b"content-type", b"application/json"), *error.headers)
    if error.retry_after is not None:
        wait = max(error.retry_after, 0.0)
        headers += (
            (b"retry-after", b"%d" % -(-wait // 1)),
            (b"retry-after-ms", b"%d" % -(-wait * 1000 // 1)),
        )
    if error.status == 401:
        # RFC 9110, 15.5.2: whoever is turned away is told how to come in.
        headers += ((b"www-authenticate", b"Bearer"),)
    if error.status >= 400 and error.status not in _RETRYABLE:
        headers += ((b"x-should-retry", b"false"),)
    return headers


def render_error(error: GatewayError, _path: str, request_id: str | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body; every path of today speaks OpenAI's dialect and the admin API's at once.

    A request that was refused before it had an id gets one here: no answer goes out without.
    """
    shown = request_id or f"req_{os.urandom(12).hex()}"
    headers = (*error_headers(error), (b"x-request-id", shown.encode()))
    # `detail` is where clients of the admin API look.
    body = {"error": _error_object(error), "detail": error.message}
    return error.status, headers, msgspec.json.encode(body)
