import json

import pytest

from stellwerk.api.cloud_proxy.errors import make_renderer
from stellwerk.core.errors import Forbidden, GatewayError, NotFound, RateLimited, Unauthenticated

MISSING = "Unauthorized: Missing or invalid token"
UNSET = "Server configuration error: PROXY_AUTH_TOKEN is not set"
QUOTA = RateLimited("hourly limit", code="upstream_rate_limited", retry_after=900)


def rendered(error: GatewayError, path="/api/generate", *, configured=True, several_keys=True):
    status, headers, body = make_renderer(configured=configured, several_keys=several_keys)(error, path, "req_1")
    assert dict(headers)[b"x-request-id"] == b"req_1"
    assert dict(headers)[b"content-type"] == b"application/json"
    return status, dict(headers), json.loads(body)


@pytest.mark.parametrize("code", ["missing_api_key", "invalid_api_key", "expired_api_key"])
def test_who_is_not_known_reads_the_documented_words(code):
    status, headers, body = rendered(Unauthenticated("Anything.", code=code))
    assert (status, body) == (401, {"error": MISSING, "detail": MISSING})
    assert headers[b"www-authenticate"] == b"Bearer"


def test_without_a_token_the_fault_is_the_operators():
    status, _, body = rendered(Unauthenticated("Anything."), configured=False)
    assert (status, body) == (500, {"error": UNSET, "detail": UNSET})


def test_openais_clients_find_the_same_words_where_they_look():
    status, _, body = rendered(Unauthenticated("Anything."), "/v1/chat/completions")
    assert (status, body["error"]["message"], body["detail"]) == (401, MISSING, MISSING)


def test_the_limit_of_all_keys_is_said_in_the_documented_words_and_with_its_end():
    status, headers, body = rendered(QUOTA)
    assert (status, body["error"]) == (429, "All API keys have exceeded quota")
    assert headers[b"retry-after"] == b"900"


def test_the_limit_of_a_single_key_is_said_in_the_clouds_words():
    assert rendered(QUOTA, several_keys=False)[2]["error"] == "hourly limit"


def test_a_limit_of_the_gateway_itself_keeps_its_words():
    assert rendered(RateLimited("Slower."))[2]["error"] == "Slower."


@pytest.mark.parametrize("error", [Forbidden("No."), NotFound("Nothing."), GatewayError("Failed.")])
def test_other_errors_are_said_as_they_are(error):
    status, _, body = rendered(error)
    assert (status, body) == (error.status, {"error": error.message, "detail": error.message})
