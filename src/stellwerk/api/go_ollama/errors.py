"""Errors as Go Ollama API's clients read them: `{"error": "text"}` with the documented texts and statuses."""

from stellwerk.api.ollama.errors import render_error as render_ollama_error
from stellwerk.core.errors import BadRequest, Forbidden, GatewayError, RateLimited, Unauthenticated, UpstreamError
from stellwerk.http.exchange import Headers

_ENDED = frozenset({"revoked_api_key", "expired_api_key", "account_disabled", "key_role_changed"})
"""Keys that were good once."""


def render_error(error: GatewayError, path: str, request_id: str | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body."""
    return render_ollama_error(translate_error(error), path, request_id)


def translate_error(error: GatewayError) -> GatewayError:
    """The documented error for this one, or the same where nothing is documented."""
    if error.code in _ENDED:
        return Forbidden("API key is deactivated", code=error.code)
    if isinstance(error, Unauthenticated):
        if error.code == "missing_api_key":
            return BadRequest("API key is required", code=error.code)
        return Forbidden("Invalid API key", code=error.code)
    if isinstance(error, RateLimited):
        text = "Rate limit exceeded. Try again later."
        return RateLimited(text, code=error.code, retry_after=error.retry_after, headers=error.headers)
    if isinstance(error, UpstreamError):
        return GatewayError("Error making request to Ollama API", code=error.code, retry_after=error.retry_after)
    if error.status == GatewayError.status:
        return GatewayError("Internal server error", code=error.code)
    return error
