"""Errors as Ollama's clients read them: `{"error": "text"}` under the status, or as the last line of a stream."""

import os

import msgspec

from stellwerk.api._errors import error_headers
from stellwerk.core.errors import GatewayError
from stellwerk.http.exchange import Headers

_PREFIX = "/api/"
_OTHERS = frozenset({"/api/uptime", "/api/models", "/api/signup"})
"""What is no API of Ollama's and stands below the same prefix."""


def speaks_ollama(path: str) -> bool:
    """Whether who asks for this path reads errors as here, also those that come before there is a route."""
    return path.startswith(_PREFIX) and path not in _OTHERS


def render_error(error: GatewayError, _path: str, request_id: str | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body."""
    shown = (b"x-request-id", (request_id or f"req_{os.urandom(12).hex()}").encode())
    return error.status, (*error_headers(error), shown), msgspec.json.encode({"error": error.message})


def error_line(error: GatewayError) -> bytes:
    """What ends a stream that has begun; no line with `done` follows it."""
    return msgspec.json.encode({"error": error.message}) + b"\n"
