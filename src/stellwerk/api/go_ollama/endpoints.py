"""The two routes of Go Ollama API: is my key good, and a text for a prompt."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.go_ollama.requests import find_key, read_generate
from stellwerk.api.ollama.requests import GenerateBody
from stellwerk.core.clock import Clock
from stellwerk.core.errors import RateLimited
from stellwerk.core.principal import CALLERS, READERS
from stellwerk.http.exchange import Headers

UPSTREAM_LIMIT: Final = "upstream_rate_limited"
_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))

Generate = Callable[[Request, GenerateBody, Mapping[str, msgspec.Raw]], Awaitable[None]]
"""Answers a checked body of Ollama's POST /api/generate; the mapping is what of it an Ollama upstream gets."""


Notify = Callable[[Callable[[], Mapping[str, Any]]], None]
"""Tells webhooks of a request; asks for its facts only when somebody wants them, and never waits."""


class GoOllamaAPI:
    """Registers its routes; their `Routes` find keys with `find_key` and render errors with `render_error`."""

    def __init__(self, generate: Generate, clock: Clock, notify: Notify = lambda _facts_of: None) -> None:
        """`notify` hears of every request to generate that its key's limit lets through."""
        self._generate = generate
        self._clock = clock
        self._notify = notify

    def register(self, routes: Routes) -> None:
        routes.add("GET", "/health", READERS, self._show_health)
        routes.add("POST", "/generate", CALLERS, self._answer)

    async def _show_health(self, request: Request) -> None:
        now = f"{datetime.fromtimestamp(int(self._clock.now()), UTC):%Y-%m-%dT%H:%M:%SZ}"
        body = msgspec.json.encode({"status": "API is healthy", "timestamp": now})
        request.exchange.respond(200, ((b"x-request-id", request.id.encode()), *_JSON), body)

    async def _answer(self, request: Request) -> None:
        body, fields = read_generate(request.exchange.body)
        try:
            await self._generate(request, body, fields)
        except RateLimited as error:
            if error.code == UPSTREAM_LIMIT:
                self._tell(request, body)
            raise
        except BaseException:
            # Whatever became of it, and also when the client has left: it was a request.
            self._tell(request, body)
            raise
        self._tell(request, body)

    def _tell(self, request: Request, body: GenerateBody) -> None:
        self._notify(
            lambda: {
                "apikey": find_key(request.exchange),
                "prompt": body.prompt,
                "model": body.model,
                "stream": body.streams,
                "images": body.images or [],
                "raw": bool(body.raw),
            }
        )
