import json

import pytest

from stellwerk.api._guard import Routes
from stellwerk.api.dialects import render_error
from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.ollama.manage import Management
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import MethodNotAllowed
from stellwerk.http.router import Router


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/api/chat", True),
        ("/api/blobs/sha256:0", True),
        ("/api/nothing", True),
        ("/api/", True),
        ("/api", False),
        ("/api/uptime", False),
        ("/api/models", False),
        ("/v1/chat/completions", False),
        ("/", False),
        ("", False),
    ],
)
def test_the_path_decides_how_an_error_is_said(path, plain):
    status, _, body = render_error(MethodNotAllowed("Use POST."), path)
    said = json.loads(body)
    assert status == 405
    assert (said["error"] == "Use POST.") is plain


def test_every_route_of_ollamas_api_speaks_its_dialect():
    router = Router()
    management = Management(None, None, dict, None)
    api = OllamaAPI(None, None, lambda _caller, _model: True, 1.0, management, SystemClock())
    api.register(Routes(router, None, None))
    paths = {route.path.format(digest="sha256:0") for route in router} - {"/"}
    assert len(paths) > 10
    for path in paths:
        assert json.loads(render_error(MethodNotAllowed("No."), path)[2])["error"] == "No."
