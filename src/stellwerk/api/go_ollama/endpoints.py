"""The two routes of Go Ollama API: is my key good, and a text for a prompt."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.go_ollama.requests import read_generate
from stellwerk.api.ollama.requests import GenerateBody
from stellwerk.core.clock import Clock
from stellwerk.core.principal import CALLERS, READERS
from stellwerk.http.exchange import Headers

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))

Generate = Callable[[Request, GenerateBody, Mapping[str, msgspec.Raw]], Awaitable[None]]
"""Answers a checked body of Ollama's POST /api/generate; the mapping is what of it an Ollama upstream gets."""


class GoOllamaAPI:
    """Registers its routes; their `Routes` find keys with `find_key` and render errors with `render_error`."""

    def __init__(self, generate: Generate, clock: Clock) -> None:
        self._generate = generate
        self._clock = clock

    def register(self, routes: Routes) -> None:
        routes.add("GET", "/health", READERS, self._show_health)
        routes.add("POST", "/generate", CALLERS, self._answer)

    async def _show_health(self, request: Request) -> None:
        now = f"{datetime.fromtimestamp(int(self._clock.now()), UTC):%Y-%m-%dT%H:%M:%SZ}"
        body = msgspec.json.encode({"status": "API is healthy", "timestamp": now})
        request.exchange.respond(200, ((b"x-request-id", request.id.encode()), *_JSON), body)

    async def _answer(self, request: Request) -> None:
        body, fields = read_generate(request.exchange.body)
        await self._generate(request, body, fields)
