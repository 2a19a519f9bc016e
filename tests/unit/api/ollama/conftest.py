"""The API with a gateway that only notes what it is given, or lets a test answer."""

import json

import pytest

from stellwerk.api._guard import Routes
from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.ollama.errors import render_error
from stellwerk.core.call import Operation
from stellwerk.core.plan import Model
from stellwerk.core.principal import Principal, Role
from stellwerk.http.router import Router
from stellwerk.routing.catalogue import Alias, Catalogue, Snapshot
from tests.port_fakes import ALICE, RecordedExchange, StillClock

VIEWER = Principal(key_id="key_viewer", name="eve", role=Role.VIEWER)
BOUND = Principal(key_id="key_bound", name="bob", role=Role.USER, models=frozenset({"house/up"}))
MODELS = (
    Model(provider="local", name="tiny", id="tiny", local=True, context_length=2048),
    Model(provider="house", name="up", id="house/up", parameters=("reasoning_effort",)),
    Model(provider="house", name="e", id="house/e", operations=frozenset({Operation.EMBEDDING})),
    Model(provider="ollama", name="qwen3:latest", id="ollama/qwen3:latest", local=True),
    Model(provider="ollama", name="gemma3:4b", id="ollama/gemma3:4b", local=True),
)
CATALOGUE = Catalogue(
    Snapshot(MODELS, aliases={"fast": Alias(targets=("tiny", "house/up"))}, open_providers=("house",))
)


class Keys:
    def authenticate(self, token):
        return {"alice": ALICE, "viewer": VIEWER, "bob": BOUND}[token]


class Watch:
    def refused(self, code): ...


class Site:
    def __init__(self) -> None:
        self.calls, self.replies, self.loaded = [], [], []
        self.answering = None
        self.router = Router()
        api = OllamaAPI(
            self,
            CATALOGUE,
            lambda caller, model: caller.may_use(model.id),
            total_seconds=60.0,
            loaded=lambda: self.loaded,
            clock=StillClock(),
        )
        api.register(Routes(self.router, Keys(), Watch(), render=render_error))

    async def run(self, call, reply):
        self.calls.append(call)
        self.replies.append(reply)
        if self.answering is not None:
            await self.answering(call, reply)
        else:
            reply._exchange.respond(200, (), b"{}")

    async def ask(self, path, body=None, *, method=None, key=b"alice"):
        method = method or ("GET" if body is None else "POST")
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        headers = {b"x-request-id": b"trace-1", **({b"x-api-key": key} if key else {})}
        exchange = RecordedExchange(method=method, path=path, headers=headers, body=data)
        await self.router.find(path)[method](exchange)
        return exchange


@pytest.fixture
def site():
    return Site()
