"""The API with a gateway that only notes what it is given, or lets a test answer."""

import json

import pytest

from stellwerk.api._guard import Routes
from stellwerk.api.ollama.endpoints import OllamaAPI
from stellwerk.api.ollama.errors import render_error
from stellwerk.api.ollama.manage import Management
from stellwerk.core.call import Operation
from stellwerk.core.errors import Conflict, NotFound
from stellwerk.core.plan import Model
from stellwerk.core.principal import Principal, Role
from stellwerk.engines.download import Download, DownloadFile
from stellwerk.engines.slot import SlotStatus
from stellwerk.http.router import Router
from stellwerk.routing.catalogue import Alias, Catalogue, Snapshot
from tests.port_fakes import ALICE, RecordedExchange, StillClock

ADMIN = Principal(key_id="key_admin", name="root", role=Role.ADMIN)
VIEWER = Principal(key_id="key_viewer", name="eve", role=Role.VIEWER)
BOUND_ADMIN = Principal(key_id="key_bound_admin", name="ann", role=Role.ADMIN, models=frozenset({"house/up"}))
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
        return {"alice": ALICE, "viewer": VIEWER, "bob": BOUND, "admin": ADMIN, "ann": BOUND_ADMIN}[token]


class Watch:
    def refused(self, code): ...


class Engines:
    """The models of this machine; `done` is what was asked of them."""

    def __init__(self) -> None:
        self.slots, self.done = [], []
        self.files = {"tiny"}
        self.trouble = None

    def status(self):
        return self.slots

    async def load(self, model, *, wait_until=None):
        self.done.append(("load", model, wait_until))
        if self.trouble is not None:
            raise self.trouble
        return SlotStatus(port=1, state="ready", model=model)

    def keep(self, model, seconds):
        self.done.append(("keep", model, seconds))

    async def unload(self, *, model=None):
        self.done.append(("unload", model))
        self.slots = [slot for slot in self.slots if slot.model != model]

    async def remove(self, model):
        if model not in self.files:
            raise NotFound("No such file.", code="model_not_found")
        if any(slot.model == model for slot in self.slots):
            raise Conflict("It is loaded.", code="model_loaded")
        self.done.append(("remove", model))

    async def copy(self, model, name):
        self.done.append(("copy", model, name))


class Source:
    """Fetches what a test has put into `changes`; an error among them is raised."""

    def __init__(self) -> None:
        self.begun, self.changes, self.ids = [], [], {}
        self.refusal = None
        self.followers = 0

    def candidates(self, name):
        return self.ids.get(name, ())

    async def begin(self, name):
        self.begun.append(name)
        if self.refusal is not None:
            raise self.refusal
        return self.changes[0]

    async def follow(self, _download_id):
        self.followers += 1
        try:
            for each in self.changes:
                if isinstance(each, BaseException):
                    raise each
                yield each
        finally:
            self.followers -= 1


class PlayedAnswer:
    event_bytes = 1000
    secrets = ("the-secret-of-it",)

    def __init__(self, pieces) -> None:
        self.pieces = list(pieces)
        self.aborted = False

    async def next(self):
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def read(self):
        return b"".join(self.pieces)

    def abort(self):
        self.aborted = True


class Remote:
    """An Ollama that is asked for changes of its models."""

    def __init__(self) -> None:
        self.asked, self.answers = [], []
        self.pieces = [b'{"status":"success"}\n']
        self.refusal = None

    async def manage(self, method, path, body):
        self.asked.append((method, path, json.loads(body)))
        if self.refusal is not None:
            raise self.refusal
        self.answers.append(PlayedAnswer(self.pieces))
        return self.answers[-1]


def make_download(completed=(0, 0), *, state="running", error=None, sha256="ab" * 32):
    """A model of 100 and its projector of 10 bytes."""
    names = (("m.gguf", 100, "model"), ("mmproj-m.gguf", 10, "mmproj"))
    files = tuple(
        DownloadFile(name=name, size=size, completed=done, sha256=sha256, kind=kind)
        for (name, size, kind), done in zip(names, completed, strict=True)
    )
    return Download(
        id="d1", reference="u/r", repo="u/r", revision="1", files=files, model_id="m", state=state, total=110,
        completed=sum(completed), bytes_per_second=None, eta_seconds=None, error=error, started=1.0, finished=None,
    )  # fmt: skip


class Permit:
    headers = ((b"x-ratelimit-remaining-requests", b"9"),)

    def __init__(self) -> None:
        self.released = []

    def release(self, tokens=None):
        self.released.append(tokens)


class Site:
    def __init__(self, *, engines=True) -> None:
        self.calls, self.replies = [], []
        self.entered, self.permit, self.full = [], Permit(), None
        self.engines, self.source, self.remote, self.refreshed = Engines(), Source(), Remote(), []
        self.answering = None
        self.router = Router()
        api = OllamaAPI(
            self,
            CATALOGUE,
            lambda caller, model: caller.may_use(model.id),
            total_seconds=60.0,
            management=Management(
                self.engines if engines else None,
                self.source if engines else None,
                lambda: {"ollama": self.remote},
                self._refresh,
            ),
            clock=StillClock(),
        )
        api.register(Routes(self.router, Keys(), Watch(), render=render_error))

    async def _refresh(self, provider):
        self.refreshed.append(provider)

    async def run(self, call, reply):
        self.calls.append(call)
        self.replies.append(reply)
        if self.answering is not None:
            await self.answering(call, reply)
        else:
            reply._exchange.respond(200, (), b"{}")

    async def enter(self, call, model):
        if self.full is not None:
            raise self.full
        self.entered.append((call.principal.name, model))
        return self.permit

    async def ask(self, path, body=None, *, method=None, key=b"alice", **more):
        method = method or ("GET" if body is None else "POST")
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        headers = {b"x-request-id": b"trace-1", **({b"x-api-key": key} if key else {})}
        headers |= {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
        exchange = RecordedExchange(method=method, path=path, headers=headers, body=data)
        await self.router.find(path)[method](exchange)
        return exchange

    async def lines(self, path, body=None, **more):
        """The lines of a stream, which has begun well."""
        exchange = await self.ask(path, body, **more)
        assert (exchange.status, exchange.header("content-type")) == (200, "application/x-ndjson")
        assert exchange.finished == 1
        return [json.loads(line) for line in exchange.written.splitlines()]


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def site_without_engines():
    return Site(engines=False)


@pytest.fixture
def download():
    return make_download
