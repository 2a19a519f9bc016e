"""Errors as sigoREST's clients read them: `{"error": {message, type, code}}` with the same word in both."""

import os

import msgspec

from stellwerk.api._errors import error_headers
from stellwerk.core.errors import GatewayError
from stellwerk.http.exchange import Headers

_WORDS = {
    400: "invalid_request",
    401: "auth_failed",
    402: "insufficient_credits",
    403: "forbidden",
    404: "not_found",
    405: "invalid_request",
    413: "invalid_request",
    415: "invalid_request",
    429: "rate_limit",
    500: "server_error",
    502: "api_error",
    503: "server_error",
    504: "timeout",
}
_KEPT = frozenset({"model_not_found", "circuit_open"})
"""Codes that these clients know too."""


def render_error(error: GatewayError, _path: str, request_id: str | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body. A peer that is not let in gets the one word that it always got."""
    shown = (b"x-request-id", (request_id or f"req_{os.urandom(12).hex()}").encode())
    if error.code == "peer_not_allowed":
        return 403, ((b"content-type", b"text/plain; charset=utf-8"), shown), b"Forbidden\n"
    word = error.code if error.code in _KEPT else _WORDS.get(error.status, "server_error")
    # Here a name that is not known has always been the request's fault.
    status = 400 if error.code == "model_not_found" else error.status
    body = {"error": {"message": error.message, "type": word, "code": word, "param": error.param}}
    return status, (*error_headers(error), shown), msgspec.json.encode(body)
