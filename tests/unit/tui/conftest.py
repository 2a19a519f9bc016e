"""A gateway on a real socket that answers what a test wrote down, and the console in front of it."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.secrets import Secret
from stellwerk.tui.application import Console
from stellwerk.tui.choosing import choose_source
from stellwerk.tui.connection import Connection
from stellwerk.tui.language import Words

NOW = 1_795_255_200.0
"""2026-11-21 10:00 UTC."""
KEY = "sk-canary-of-the-console"
LOGIN = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
DEADLINE = 60.0


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeGateway:
    """`answers` maps `METHOD /path` to the JSON of a 200, or to status and JSON."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def __post_init__(self):
        self.hold.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def paths(self, method: str) -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method]

    async def _serve(self, reader, writer) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                method, target, _ = first.split(" ")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                parts = urlsplit(target)
                self.asked.append(
                    Asked(method, parts.path, dict(parse_qsl(parts.query)), headers, json.loads(body) if body else None)
                )
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                await self.hold.wait()
                status, said = self._answer(method, parts.path)
                self.at_once -= 1
                data = json.dumps(said).encode()
                head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
                writer.write(head.encode() + data)
                await writer.drain()
        writer.close()

    def _answer(self, method, path):
        found = self.answers.get(f"{method} {path}")
        if found is None:
            return 404, {"error": {"message": f"There is nothing at {method} {path}.", "code": "unknown_url"}}
        if callable(found):
            found = found()
        return found if isinstance(found, tuple) else (200, found)


class FixedClock(SystemClock):
    """The wall clock stands still, so that what is shown stays the same."""

    def now(self) -> float:
        return NOW


@pytest.fixture
async def gateway():
    gateway = FakeGateway()
    await gateway.start()
    yield gateway
    await gateway.stop()


@pytest.fixture
async def connect(gateway):
    """Connections to the gateway, closed at the end."""
    made = []

    def connect(token=KEY, url=None):
        made.append(Connection(url or gateway.url, lambda: Secret(token), FixedClock()))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def console(connect):
    """The console in front of the gateway; it looks again only when `R` is pressed unless told otherwise."""

    def console(token=KEY, *, language="en", every=600.0, url=None):
        connection = connect(token, url)
        clock = FixedClock()
        return Console(
            "http://gateway:4000",
            lambda: choose_source(connection, clock),
            Words(language),
            leave=connection.close,
            every=every,
        )

    return console


def slot(name, port, **more):
    return {
        "port": port, "status": "running", "model_name": name, "model_type": "text", "ram_mb": 812.4, "error": None,
        "loaded_at": "2026-11-21T08:55:00.000Z", **more,
    }  # fmt: skip


@pytest.fixture
def administration(gateway):
    """The gateway as its administration shows it."""
    answers = {
        "GET /admin/api/slots": [
            slot("gemma-3-4b-it", 8000, ram_mb=4210.0),
            slot("qwen3-8b", 8001, status="loading", loaded_at=None, ram_mb=0),
            slot("llama-3.2-1b", 8002, status="crashed", error="it was ended by SIGSEGV"),
            slot(None, 8003, status="empty"),
        ],
        "GET /health/details": {
            "version": "0.6.0",
            "in_flight": 3,
            "gates": [{"name": "gemma-3-4b-it", "running": 8, "waiting": 1, "max_concurrent": 10, "max_waiting": 100}],
        },
        "GET /admin/api/models/local": [
            {"name": "gemma-3-4b-it", "detected_type": "text"},
            {"name": "phi-4-mini", "detected_type": "text"},
            {"name": "mmproj-gemma", "detected_type": "mmproj"},
        ],
        "GET /admin/api/auto-switch": {
            "model": "phi-4-mini", "replaces": "llama-3.2-1b", "requests": 64, "share": 0.8, "act": False,
            "reasons": ["phi-4-mini had 64 of 80 requests (80%)."],
        },
        "GET /admin/api/system": {"models": {"capacity_mb": 12800.0, "reserved_mb": 5100.0}},
        "GET /admin/api/queues": [
            {"name": "gemma-3-4b-it", "model": "gemma-3-4b-it", "processing": 5, "waiting": 40, "max_concurrent": None,
             "max_waiting": 10000, "paused": False, "dead": 1, "total_processed": 1234, "total_failed": 12,
             "total_timeout": 3, "total_cancelled": 2},
            {"name": "ocr", "model": "ocr", "processing": 1, "waiting": 0, "max_concurrent": 1, "max_waiting": 10000,
             "paused": True, "dead": 0, "total_processed": 20, "total_failed": 0, "total_timeout": 0,
             "total_cancelled": 0},
        ],
        "GET /api/requests": {"object": "list", "data": [
            {"id": "550e8400-e29b-41d4-a716-446655440000", "status": "queued", "kind": "call", "model": "gemma-3-4b-it",
             "client_id": "my_app", "created_at": "2026-11-21T09:59:18.000Z", "attempts": 0, "position": 3},
            {"id": "650e8400-e29b-41d4-a716-446655440001", "status": "running", "kind": "ocr", "model": "ocr",
             "client_id": "scanner", "created_at": "2026-11-21T09:58:00.000Z", "attempts": 1,
             "progress": {"done": 7, "total": 20, "unit": "pages"}},
            {"id": "750e8400-e29b-41d4-a716-446655440002", "status": "dead", "kind": "call", "model": "gemma-3-4b-it",
             "client_id": "my_app", "created_at": "2026-11-21T09:00:00.000Z", "attempts": 3,
             "error": {"code": "engine_crashed", "message": "The engine ended while it answered."}},
        ], "has_more": False, "last_id": None},
        "GET /admin/api/calls": [
            {"id": "req_7fed35c0ffee00000000002a", "model": "gemma-3-4b-it", "key_id": "k7d3m2q5xa",
             "provider": "local", "seconds": 3.2, "job": False},
            {"id": "job_650e8400_1", "model": "ocr", "key_id": "k7d3m2q5xa", "provider": "ocr", "seconds": 90.0,
             "job": True},
        ],
        "GET /admin/api/crashes": [
            {"at": "2026-11-21T09:30:00.000Z", "model": "llama-3.2-1b", "reason": "it was ended by SIGSEGV",
             "last_lines": ["llama_decode: batch of 512", "\x1b[31mggml: assertion failed\x1b[0m", "Aborted"]},
            {"at": "2026-11-20T22:11:05.000Z", "model": "qwen3-8b", "reason": "it did not answer for 30 s",
             "last_lines": []},
        ],
    }  # fmt: skip
    gateway.answers.update(answers)
    return gateway


@pytest.fixture
def documented(gateway):
    """The gateway as AI Gateway documents it."""
    queue = {
        "processing": 5, "waiting": 3, "max_concurrent": 10, "max_waiting": 10, "total_processed": 1234,
        "total_failed": 12, "total_timeout": 3, "utilization": 0.5,
    }  # fmt: skip
    model = {"started_at": "2026-01-15T16:00:00.000000", "uptime_seconds": 3600, "is_healthy": True}
    gateway.answers.update({
        "GET /admin/models": {
            "gemma": {**model, "name": "gemma", "status": "running", "port": 8000, "resolution": None},
            "deepseek": {**model, "name": "deepseek", "status": "stopped", "port": 8001, "resolution": "large",
                         "is_healthy": False},
        },
        "GET /admin/queue/gemma": {"model": "gemma", **queue},
        "GET /admin/queue/deepseek": {"model": "deepseek", **queue, "processing": 0, "utilization": 0.0},
        "GET /admin/crashes": [{"timestamp": "2026-01-15T16:30:00.000000", "error": "Connection timeout",
                                "model": "gemma", "request_id": "550e8400", "stack_trace": "first\nsecond"}],
    })  # fmt: skip
    return gateway


def screen_text(app) -> str:
    """What the screen shows, line by line, without blanks at the ends."""
    height = app.size.height
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in lines[:height])


@pytest.fixture
def text_of():
    return screen_text


@pytest.fixture
def shows():
    """Waits until the screen shows a text."""

    async def shows(pilot, *wanted):
        try:
            async with asyncio.timeout(DEADLINE):
                while not all(text in screen_text(pilot.app) for text in wanted):
                    await pilot.pause(0.01)
        except TimeoutError:
            raise AssertionError(f"{wanted} is not in\n{screen_text(pilot.app)}") from None
        return screen_text(pilot.app)

    return shows
