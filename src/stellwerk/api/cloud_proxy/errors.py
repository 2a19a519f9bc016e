"""Errors as clients of Ollama Cloud Proxy read them: the documented texts, where Ollama's and OpenAI's clients look."""

from collections.abc import Callable

import msgspec

from stellwerk.api._errors import render_error as render_openai_error
from stellwerk.api.ollama.errors import render_error as render_ollama_error
from stellwerk.core.errors import GatewayError, RateLimited, Unauthenticated
from stellwerk.http.exchange import Headers

REFUSED = "Unauthorized: Missing or invalid token"
NOT_CONFIGURED = "Server configuration error: PROXY_AUTH_TOKEN is not set"
EXHAUSTED = "All API keys have exceeded quota"

Render = Callable[..., tuple[int, Headers, bytes]]
"""(error, path, request id or None) to status, headers and body."""


def make_renderer(*, configured: bool, several_keys: bool) -> Render:
    """`configured` says that there is a token, or that none is needed; `several_keys` that one may stand in for
    another, which is when the cloud's own words for a limit would be those of one key."""

    def render(error: GatewayError, path: str, request_id: str | None = None) -> tuple[int, Headers, bytes]:
        if isinstance(error, Unauthenticated):
            if not configured:
                error = GatewayError(NOT_CONFIGURED, code="not_configured")
            else:
                error = Unauthenticated(REFUSED, code=error.code)
        elif several_keys and error.code == "upstream_rate_limited":
            error = RateLimited(EXHAUSTED, code=error.code, retry_after=error.retry_after, headers=error.headers)
        if path.startswith("/v1/"):
            return render_openai_error(error, path, request_id)
        status, headers, _ = render_ollama_error(error, path, request_id)
        # `detail` is where the original has put it.
        return status, headers, msgspec.json.encode({"error": error.message, "detail": error.message})

    return render
