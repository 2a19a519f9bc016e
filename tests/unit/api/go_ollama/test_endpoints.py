import json

import pytest

from stellwerk.api._guard import Routes
from stellwerk.api.go_ollama.endpoints import GoOllamaAPI
from stellwerk.api.go_ollama.errors import render_error
from stellwerk.api.go_ollama.requests import find_key
from stellwerk.core.errors import Unauthenticated
from stellwerk.core.principal import Principal, Role
from stellwerk.http.router import Router
from tests.port_fakes import ALICE, RecordedExchange, StillClock

VIEWER = Principal(key_id="key_viewer", name="eve", role=Role.VIEWER)


class Keys:
    def authenticate(self, token):
        try:
            return {"alice": ALICE, "viewer": VIEWER}[token]
        except KeyError:
            raise Unauthenticated("Unknown.") from None

    async def authenticate_or_refresh(self, token):
        return self.authenticate(token)


class Watch:
    def refused(self, code): ...


class Site:
    def __init__(self) -> None:
        self.router = Router()
        self.asked = []
        routes = Routes(self.router, Keys(), Watch(), render=render_error, find_key=find_key)
        GoOllamaAPI(self._generate, StillClock()).register(routes)

    async def _generate(self, request, body, fields):
        self.asked.append((request.caller, body, fields))
        request.exchange.respond(200, (), b"{}")

    async def ask(self, method, path, *, query=b"", **fields):
        body = json.dumps(fields).encode()
        exchange = RecordedExchange(method=method, path=path, query=query, body=body)
        await self.router.find(path)[method](exchange)
        return exchange.status, json.loads(exchange.written)


@pytest.fixture
def site():
    return Site()


@pytest.mark.parametrize("key", [b"alice", b"viewer"])
async def test_a_good_key_is_told_that_all_is_well(site, key):
    status, said = await site.ask("GET", "/health", query=b"apikey=" + key)
    assert (status, said) == (200, {"status": "API is healthy", "timestamp": "2023-11-14T22:13:20Z"})


async def test_a_prompt_goes_on_under_the_name_of_the_key(site):
    assert (await site.ask("POST", "/generate", apikey="alice", model="m", prompt="p"))[0] == 200
    [(caller, body, fields)] = site.asked
    assert (caller, body.prompt, "apikey" in fields) == (ALICE, "p", False)


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({}, 400, "API key is required"),
        ({"apikey": "mallory"}, 403, "Invalid API key"),
        ({"apikey": "viewer"}, 403, "The role 'viewer' may not do this."),
        ({"apikey": "alice"}, 400, "model is required"),
        ({"apikey": "alice", "model": "m", "stream": "yes"}, 400, "Invalid request body"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_the_documented_words(site, fields, status, text):
    assert await site.ask("POST", "/generate", **fields) == (status, {"error": text})
    assert site.asked == []
