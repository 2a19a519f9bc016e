"""Errors as AI Gateway's clients read them: `{"detail": "text"}` with the documented texts."""

import os

import msgspec

from stellwerk.api._errors import error_headers
from stellwerk.core.errors import GatewayError, NotFound, Unauthenticated
from stellwerk.http.exchange import Headers

_DETAILS = {
    "missing_api_key": "Not authenticated",
    "expired_token": "Token has expired",
    "invalid_token_type": "Invalid token type",
    "invalid_credentials": "Invalid credentials",
}


def render_error(error: GatewayError, _path: str, request_id: str | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body."""
    detail = _DETAILS.get(error.code, "Invalid token") if isinstance(error, Unauthenticated) else error.message
    shown = (b"x-request-id", (request_id or f"req_{os.urandom(12).hex()}").encode())
    return error.status, (*error_headers(error), shown), msgspec.json.encode({"detail": detail})


def model_not_available(name: str) -> NotFound:
    return NotFound(f"Model {name[:200]} not available", code="model_not_found")
