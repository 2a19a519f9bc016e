import json

import pytest

from stellwerk.api._guard import Routes
from stellwerk.api.openai.endpoints import OpenAIAPI
from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import RateLimited
from stellwerk.core.plan import Model
from stellwerk.core.principal import Principal, Priority, Role
from stellwerk.http.router import Router
from tests.port_fakes import ALICE, RecordedExchange

VIEWER = Principal(key_id="key_viewer", name="eve", role=Role.VIEWER)
ODD = Model(provider="house", name="a/b:c é", id="house/a/b:c é")
MODELS = {model.id: model for model in (Model(provider="house", name="up", id="house/up"), ODD)}
BODIES = {
    "chat/completions": {"model": "house/up", "messages": [{"role": "user", "content": "Hi"}]},
    "completions": {"model": "house/up", "prompt": "Hi"},
    "embeddings": {"model": "house/up", "input": "Hi"},
}


class Keys:
    def authenticate(self, token):
        return {"alice": ALICE, "viewer": VIEWER}[token]


class Watch:
    def refused(self, code): ...


class Catalogue:
    get = staticmethod(MODELS.get)

    def models(self):
        return list(MODELS.values())


class Conversations:
    """Notes which session a call belongs to, and passes it on."""

    def __init__(self, site) -> None:
        self.site = site

    async def run(self, call, exchange, session_id):
        self.site.conversations.append(session_id)
        await self.site.run(call, OpenAIReply(call, exchange))


class Site:
    """The API with a gateway that only notes what it is given."""

    def __init__(self) -> None:
        self.calls, self.hidden, self.error, self.router = [], set(), None, Router()
        self.conversations = []
        api = OpenAIAPI(
            self,
            Catalogue(),
            lambda _caller, model: model.id not in self.hidden,
            total_seconds=60.0,
            conversations=Conversations(self),
        )
        routes = Routes(self.router, Keys(), Watch())
        api.register(routes)
        api.register_calls(routes, "/renamed", lambda name: f"house/{name}")

    async def run(self, call, reply):
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        reply._exchange.respond(200, (), b"{}")

    async def ask(self, path, body=None, key=b"alice", **more):
        method = "GET" if body is None else "POST"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {b"x-api-key": key, b"x-request-id": b"trace-1"}
        headers |= {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
        exchange = RecordedExchange(method=method, path=path, headers=headers, body=data)
        await self.router.find(path)[method](exchange)
        return exchange


@pytest.fixture
def site():
    return Site()


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize(
    ("path", "operation", "wire"),
    [
        ("chat/completions", Operation.CHAT, Wire.OPENAI_CHAT),
        ("completions", Operation.COMPLETION, Wire.OPENAI_COMPLETION),
        ("embeddings", Operation.EMBEDDING, Wire.OPENAI_EMBEDDING),
    ],
)
async def test_a_request_becomes_a_call(site, prefix, path, operation, wire):
    await site.ask(f"{prefix}/{path}", BODIES[path] | {"x": 1})
    (call,) = site.calls
    assert (call.operation, call.wire, call.model, call.id) == (operation, wire, "house/up", "trace-1")
    assert (call.principal, call.peer) == (ALICE, "192.0.2.1")
    assert (call.received, call.deadline) == (100.0, 160.0)
    assert (call.stream, call.wants_usage) == (False, False)
    assert list(call.fields) == [*BODIES[path], "x"]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_streams_and_the_wish_for_usage_are_seen(site, path):
    await site.ask(f"/v1/{path}", BODIES[path] | {"stream": True, "stream_options": {"include_usage": True}})
    assert (site.calls[0].stream, site.calls[0].wants_usage) == (True, True)


@pytest.mark.parametrize("path", BODIES)
async def test_a_request_that_cannot_be_understood_never_becomes_a_call(site, path):
    exchange = await site.ask(f"/v1/{path}", {"model": "house/up"})
    assert (exchange.status, exchange.json["error"]["code"]) == (400, "missing_required_parameter")
    assert site.calls == []


@pytest.mark.parametrize("path", BODIES)
async def test_a_viewer_spends_nothing(site, path):
    assert (await site.ask(f"/v1/{path}", BODIES[path], b"viewer")).status == 403
    assert site.calls == []


async def test_what_the_gateway_refuses_is_rendered(site):
    site.error = RateLimited("Too many.", retry_after=3)
    exchange = await site.ask("/v1/chat/completions", BODIES["chat/completions"])
    assert (exchange.status, exchange.header("retry-after")) == (429, "3")
    assert exchange.header("x-request-id") == "trace-1"


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_are_listed_as_far_as_the_caller_may_see_them(site, path):
    listed = (await site.ask(path, key=b"viewer")).json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == list(MODELS)
    site.hidden = {"house/up"}
    assert [model["id"] for model in (await site.ask(path)).json["data"]] == [ODD.id]


@pytest.mark.parametrize("path", ["house/up", "house%2Fup"])
@pytest.mark.parametrize("prefix", ["/v1/models/", "/models/"])
async def test_one_model_is_found_with_and_without_encoded_slashes(site, prefix, path):
    assert (await site.ask(prefix + path)).json["id"] == "house/up"


async def test_a_name_may_hold_anything(site):
    assert (await site.ask("/v1/models/house/a%2Fb%3Ac%20%C3%A9")).json["id"] == ODD.id


@pytest.mark.parametrize("name", ["nobody", "%FF%FE", "house/up/", "models/house/up"])
async def test_an_unknown_model_and_one_that_may_not_be_seen_look_the_same(site, name):
    site.hidden = {"house/up"}
    unknown, hidden = await site.ask(f"/v1/models/{name}"), await site.ask("/v1/models/house/up")
    assert unknown.status == hidden.status == 404
    assert unknown.json == hidden.json
    assert unknown.json["error"]["code"] == "model_not_found"


async def test_a_chat_with_a_session_goes_through_it_and_the_upstream_does_not_see_our_fields(site):
    body = {**BODIES["chat/completions"], "session_id": "my-project", "timeout": 120, "retries": 3, "seed": 7}
    await site.ask("/v1/chat/completions", body)
    (call,) = site.calls
    assert site.conversations == ["my-project"]
    assert set(call.fields) == {*BODIES["chat/completions"], "seed"}
    assert (call.deadline - call.received, call.attempts) == (60.0, 3)


@pytest.mark.parametrize(
    ("wanted", "retries", "seconds", "attempts"),
    [
        (None, None, 60.0, None),
        (0, 0, 60.0, None),
        (20, 1, 20.0, 1),
        (0.1, 99, 1.0, 10),
        (-5, -1, 1.0, 1),
        (1e9, 10**9, 60.0, 10),
    ],
)
async def test_a_clients_timeout_and_retries_are_clamped(site, wanted, retries, seconds, attempts):
    given = {name: value for name, value in (("timeout", wanted), ("retries", retries)) if value is not None}
    await site.ask("/v1/chat/completions", {**BODIES["chat/completions"], **given})
    (call,) = site.calls
    assert (call.deadline - call.received, call.attempts) == (seconds, attempts)
    assert site.conversations == []


@pytest.mark.parametrize("path", BODIES)
async def test_further_models_are_read_and_never_seen_upstream(site, path):
    await site.ask(f"/v1/{path}", BODIES[path] | {"fallbacks": ["a", "b"], "models": ["c"]})
    (call,) = site.calls
    assert call.fallbacks == ("a", "b", "c")
    assert list(call.fields) == list(BODIES[path])


@pytest.mark.parametrize("field", ["fallbacks", "models"])
@pytest.mark.parametrize("value", ["a", [""], [1], ["x" * 257], [f"m{number}" for number in range(9)]])
async def test_further_models_are_eight_names_at_most(site, field, value):
    exchange = await site.ask("/v1/chat/completions", BODIES["chat/completions"] | {field: value})
    assert (exchange.status, site.calls) == (400, [])
    assert exchange.json["error"]["param"].startswith(field)


@pytest.mark.parametrize("field", ["Fallbacks", "MODELS", "Prompt_Cache_Key"])
async def test_no_other_spelling_of_our_fields_goes_upstream(site, field):
    exchange = await site.ask("/v1/chat/completions", BODIES["chat/completions"] | {field: None})
    assert (exchange.status, exchange.json["error"]["code"]) == (400, "invalid_parameter_name")


async def test_a_call_has_the_priority_of_its_header(site):
    body = BODIES["chat/completions"]
    await site.ask("/v1/chat/completions", body, x_stellwerk_priority="low")
    await site.ask("/v1/chat/completions", body)
    assert [call.priority for call in site.calls] == [Priority.LOW, Priority.NORMAL]
    exchange = await site.ask("/v1/chat/completions", body, x_stellwerk_priority="urgent")
    assert (exchange.status, exchange.json["error"]["param"]) == (400, "x-stellwerk-priority")


async def test_the_calls_of_one_session_are_tied_together(site):
    body = BODIES["chat/completions"]
    await site.ask("/v1/chat/completions", body | {"prompt_cache_key": "p"})
    await site.ask("/v1/chat/completions", body | {"prompt_cache_key": "p"}, x_session_id="s")
    await site.ask("/v1/chat/completions", body | {"session_id": "own"}, x_session_id="s")
    assert [call.session for call in site.calls] == ["p", "s", "own"]
    assert "prompt_cache_key" in site.calls[0].fields
    assert site.conversations == ["own"]


async def test_only_chats_are_remembered_though_every_call_may_have_a_session(site):
    await site.ask("/v1/embeddings", BODIES["embeddings"] | {"session_id": "own"})
    assert (site.calls[0].session, site.conversations) == ("own", [])
    assert list(site.calls[0].fields) == list(BODIES["embeddings"])


async def test_further_models_are_renamed_where_the_first_one_is(site):
    body = BODIES["chat/completions"] | {"model": "up", "fallbacks": ["a"], "models": ["b"]}
    await site.ask("/renamed/chat/completions", body)
    (call,) = site.calls
    assert (call.model, call.fallbacks) == ("house/up", ("house/a", "house/b"))
    assert set(call.fields) == set(BODIES["chat/completions"])
