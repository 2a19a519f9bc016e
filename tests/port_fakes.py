"""The seams filled with plain objects: an exchange that records, an answer that is played, a meter that counts."""

import asyncio
import json
from dataclasses import dataclass, field

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.principal import Principal, Role

ALICE = Principal(key_id="key_alice", name="alice", role=Role.USER)
WIRES = {
    Operation.CHAT: Wire.OPENAI_CHAT,
    Operation.COMPLETION: Wire.OPENAI_COMPLETION,
    Operation.EMBEDDING: Wire.OPENAI_EMBEDDING,
    Operation.RERANK: Wire.RERANK,
    Operation.OCR: Wire.OCR,
}
MESSAGES = [{"role": "user", "content": "Hi"}]
QUESTIONS = {
    Operation.CHAT: {"messages": MESSAGES},
    Operation.COMPLETION: {"prompt": "Hi"},
    Operation.EMBEDDING: {"input": "Hi"},
    Operation.RERANK: {"query": "Hi", "documents": ["Hello", "Goodbye"]},
    Operation.OCR: {"document": "a letter", "pages": [0, 1], "mode": "large", "boxes": False},
}


def make_call(operation=Operation.CHAT, *, model="house/up", stream=False, wants_usage=False, deadline=1e12, **fields):
    body = {"model": model, **QUESTIONS[operation], **({"stream": True} if stream else {}), **fields}
    return Call(
        id="req_1",
        operation=operation,
        wire=WIRES[operation],
        model=model,
        fields={name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()},
        principal=ALICE,
        received=100.0,
        deadline=deadline,
        stream=stream,
        wants_usage=wants_usage,
        peer="192.0.2.1",
    )


@dataclass
class StillClock:
    """Stands still until a test puts it forward."""

    wall: float = 1_700_000_000.0
    seconds: float = 100.0

    def now(self) -> float:
        return self.wall + self.seconds - 100.0

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class CountingMeter:
    begun: int = 0
    counted: list = field(default_factory=list)
    events: int = 0
    size: int = 0

    def begin(self) -> float:
        self.begun += 1
        return 0.25

    def deliver(self, events, size) -> None:
        self.events += events
        self.size += size

    def count(self, usage) -> None:
        self.counted.append(usage)


@dataclass
class RecordedExchange:
    """An exchange that keeps what is written to it."""

    method: str = "POST"
    path: str = "/v1/chat/completions"
    query: bytes = b""
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    peer: str = "192.0.2.1"
    received: float = 100.0
    started: bool = False
    closed: bool = False
    status: int = 0
    sent_headers: tuple = ()
    written: bytes = b""
    pieces: int = 0
    finished: int = 0
    broken: bool = False
    source: object = None

    def respond(self, status, headers, body) -> None:
        self.start(status, headers)
        self.write(body)
        self.finish()

    def start(self, status, headers) -> None:
        assert not self.started, "a second status"
        self.started = True
        self.status, self.sent_headers = status, headers

    def write(self, data) -> None:
        assert self.started, "a body before its head"
        assert not self.finished or not data, "a body after its end"
        self.written += data
        self.pieces += 1

    def finish(self) -> None:
        self.finished += 1

    def break_off(self) -> None:
        self.broken = self.closed = True

    def feed_from(self, source) -> None:
        self.source = source

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.sent_headers if key == name.encode()]
        assert len(found) <= 1, f"{name} stands more than once"
        return found[0].decode() if found else None

    @property
    def json(self):
        return json.loads(self.written)

    @property
    def events(self):
        return events(self.written)


def events(written: bytes) -> list:
    """The data of a client's stream, JSON read."""
    parts = [part.lstrip(b"\n") for part in written.split(b"\n\n")]
    assert parts.pop() == b"", "the last event is not closed"
    texts = [part.removeprefix(b"data: ") for part in parts if part.startswith(b"data:")]
    return [text.decode() if text == b"[DONE]" else json.loads(text) for text in texts]


class Pause:
    """Where a played answer stops until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.go_on.wait()


class PlayedAnswer:
    """Plays pieces of a body: bytes arrive, an exception is raised, a Pause waits."""

    event_bytes = 1024 * 1024
    secrets: tuple[str, ...] = ()
    key: int | None = None

    def __init__(self, *pieces, status=200, headers=None) -> None:
        self.status = status
        self.aborted = 0
        self._headers = headers or {}
        self._pieces = list(pieces)
        self._error = None

    def header(self, name):
        return self._headers.get(name)

    async def read(self) -> bytes:
        body = b""
        while piece := await self.next():
            body += piece
        return body

    async def next(self) -> bytes:
        while self._pieces and self._error is None:
            piece = self._pieces.pop(0)
            if isinstance(piece, Pause):
                await piece.wait()
            elif isinstance(piece, BaseException):
                raise piece
            elif piece:
                return piece
        if self._error is not None:
            raise self._error
        return b""

    async def pour(self, sink) -> None:
        while piece := await self.next():
            sink(piece)

    def fail(self, error) -> None:
        if self._error is None:
            self._error = error

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted += 1


def sse(*bodies) -> bytes:
    """Events as an upstream writes them; a text stands as it is."""
    texts = (body if isinstance(body, str) else json.dumps(body, separators=(",", ":")) for body in bodies)
    return b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
