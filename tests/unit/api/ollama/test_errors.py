import json

from stellwerk.api.ollama.errors import error_line, render_error, speaks_ollama
from stellwerk.core.errors import RateLimited, Unauthenticated


def test_an_error_is_one_text_under_its_status():
    status, headers, body = render_error(RateLimited("slow down", retry_after=2.0), "/api/chat", "req_9")
    assert (status, json.loads(body)) == (429, {"error": "slow down"})
    assert dict(headers)[b"retry-after"] == b"2"
    assert dict(headers)[b"x-request-id"] == b"req_9"


def test_a_request_without_an_id_gets_one():
    status, headers, _ = render_error(Unauthenticated("who?"), "/")
    assert status == 401
    assert dict(headers)[b"x-request-id"].startswith(b"req_")


def test_in_a_stream_it_is_a_line():
    assert error_line(Unauthenticated("wer da?\n")) == b'{"error":"wer da?\\n"}\n'


async def test_every_route_but_the_greeting_speaks_this_dialect(site):
    paths = {route.path for route in site.router} - {"/"}
    assert len(paths) == 14
    assert all(speaks_ollama(path) for path in paths)
    assert speaks_ollama("/api/tags/x")
    assert not any(map(speaks_ollama, ("/", "/api/models", "/v1/models", "/api")))
