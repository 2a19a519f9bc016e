import json

import pytest

from stellwerk.api.go_ollama.errors import render_error
from stellwerk.core import errors as core


def rendered(error):
    status, headers, body = render_error(error, "/generate", "req_1")
    return status, json.loads(body), dict(headers)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (core.Unauthenticated("x", code="missing_api_key"), 400, "API key is required"),
        (core.Unauthenticated("x"), 403, "Invalid API key"),
        (core.Unauthenticated("x", code="expired_token"), 403, "Invalid API key"),
        (core.Unauthenticated("x", code="revoked_api_key"), 403, "API key is deactivated"),
        (core.Unauthenticated("x", code="expired_api_key"), 403, "API key is deactivated"),
        (core.Forbidden("x", code="account_disabled"), 403, "API key is deactivated"),
        (core.Forbidden("x", code="key_role_changed"), 403, "API key is deactivated"),
        (core.Forbidden("Not from there."), 403, "Not from there."),
        (core.BadRequest("Invalid request body"), 400, "Invalid request body"),
        (core.NotFound("model 'm' not found"), 404, "model 'm' not found"),
        (core.InsufficientCredit("No money."), 402, "No money."),
        (core.RateLimited("x"), 429, "Rate limit exceeded. Try again later."),
        (core.UpstreamError("x"), 500, "Error making request to Ollama API"),
        (core.UpstreamTimeout("x"), 500, "Error making request to Ollama API"),
        (core.Unavailable("Busy."), 503, "Busy."),
        (core.GatewayError("x"), 500, "Internal server error"),
    ],
)
def test_each_error_has_its_documented_text_and_status(error, status, text):
    found, body, headers = rendered(error)
    assert (found, body) == (status, {"error": text})
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-request-id"] == b"req_1"
    assert b"www-authenticate" not in headers


def test_a_limit_says_when_to_come_back():
    limits = ((b"x-ratelimit-limit-requests", b"10"),)
    _, _, headers = rendered(core.RateLimited("x", retry_after=2.5, headers=limits))
    assert (headers[b"retry-after"], headers[b"x-ratelimit-limit-requests"]) == (b"3", b"10")
