import json

import pytest

from stellwerk.api._errors import error_headers, render_error
from stellwerk.core import errors
from stellwerk.core.errors import GatewayError, RateLimited

EXPECTED = {
    "GatewayError": (500, "server_error", "internal_error", None),
    "BadRequest": (400, "invalid_request_error", "invalid_value", "false"),
    "Unauthenticated": (401, "authentication_error", "invalid_api_key", "false"),
    "InsufficientCredit": (402, "insufficient_quota", "insufficient_credits", "false"),
    "Forbidden": (403, "permission_error", "permission_denied", "false"),
    "NotFound": (404, "invalid_request_error", "not_found", "false"),
    "MethodNotAllowed": (405, "invalid_request_error", "method_not_allowed", "false"),
    "RequestTimeout": (408, "timeout_error", "request_timeout", None),
    "Conflict": (409, "conflict_error", "conflict", None),
    "TooLarge": (413, "invalid_request_error", "request_too_large", "false"),
    "UnsupportedMedia": (415, "invalid_request_error", "unsupported_media_type", "false"),
    "Unprocessable": (422, "invalid_request_error", "invalid_value", "false"),
    "HeaderTooLarge": (431, "invalid_request_error", "header_too_large", "false"),
    "RateLimited": (429, "rate_limit_error", "rate_limit_exceeded", None),
    "ClientLeft": (499, "server_error", "client_closed_request", "false"),
    "Unavailable": (503, "server_error", "overloaded", None),
    "UpstreamError": (502, "upstream_error", "upstream_error", None),
    "UpstreamRefused": (502, "upstream_error", "upstream_refused", None),
    "UpstreamBroken": (502, "upstream_error", "upstream_broken", None),
    "UpstreamTimeout": (504, "timeout_error", "upstream_timeout", None),
}


def tree(kind=GatewayError):
    return [kind, *(one for child in kind.__subclasses__() for one in tree(child))]


KINDS = [kind for kind in tree() if kind.__module__ == errors.__name__]


def test_the_table_names_every_error_of_the_tree():
    assert {kind.__name__ for kind in KINDS} == set(EXPECTED)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_has_its_status_type_code_and_advice(kind):
    status, headers, body = render_error(kind("It went wrong.", param="field"), "/v1/chat/completions")
    fields = dict(headers)
    expected_status, kind_name, code, retry = EXPECTED[kind.__name__]
    assert status == expected_status
    assert json.loads(body) == {
        "error": {"message": "It went wrong.", "type": kind_name, "param": "field", "code": code},
        "detail": "It went wrong.",
    }
    assert fields[b"content-type"] == b"application/json"
    assert fields.get(b"x-should-retry", b"").decode() == (retry or "")
    assert b"retry-after" not in fields


def test_a_code_of_its_own_replaces_that_of_the_class_and_metadata_comes_along():
    error = errors.BadRequest("No.", code="unsupported_parameter", metadata={"provider": "house"})
    assert json.loads(render_error(error, "/")[2])["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": None,
        "code": "unsupported_parameter",
        "metadata": {"provider": "house"},
    }


@pytest.mark.parametrize(
    ("wait", "seconds", "milliseconds"),
    [
        (0.0, "0", "0"),
        (0.0001, "1", "1"),
        (1.0, "1", "1000"),
        (1.2345, "2", "1235"),
        (-3.0, "0", "0"),
        (60, "60", "60000"),
    ],
)
def test_a_wait_is_rounded_up_so_that_nobody_comes_back_too_early(wait, seconds, milliseconds):
    fields = dict(error_headers(RateLimited("Later.", retry_after=wait)))
    assert (fields[b"retry-after"].decode(), fields[b"retry-after-ms"].decode()) == (seconds, milliseconds)
    assert b"x-should-retry" not in fields


def test_headers_of_the_error_itself_are_sent():
    error = errors.Unauthenticated("Who?", headers=((b"www-authenticate", b"Bearer"),))
    assert (b"www-authenticate", b"Bearer") in error_headers(error)
