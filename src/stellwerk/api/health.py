"""Is it alive, is it ready, what does it count. None of these routes calls an upstream: they are free and quick."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.core.principal import OBSERVERS, OPEN
from stellwerk.http.exchange import Headers

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
_TEXT: Headers = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), (b"cache-control", b"no-store"))


class HealthAPI:
    """Liveness, readiness, details and metrics.

    `obstacles` returns code words for what keeps the gateway from working, none when it is ready; they say nothing
    about the machine, so everybody may read them. `details` and `metrics` are for viewers and administrators.
    """

    def __init__(
        self,
        *,
        version: str,
        obstacles: Callable[[], list[str]],
        details: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], bytes],
    ) -> None:
        self._version = version
        self._obstacles = obstacles
        self._details = details
        self._metrics = metrics

    def register(self, routes: Routes) -> None:
        routes.add("GET", "/health", OPEN, self._health)
        # `liveliness` is how another gateway spells it, and so do many people's manifests.
        for path in ("/health/liveness", "/health/liveliness", "/livez", "/healthz"):
            routes.add("GET", path, OPEN, self._liveness)
        for path in ("/health/readiness", "/readyz"):
            routes.add("GET", path, OPEN, self._readiness)
        routes.add("GET", "/health/details", OBSERVERS, self._show_details)
        routes.add("GET", "/metrics", OBSERVERS, self._show_metrics)

    async def _health(self, request: Request) -> None:
        obstacles = self._obstacles()
        body = {"status": "degraded" if obstacles else "ok", "version": self._version, "obstacles": obstacles}
        self._respond(request, 200, body)

    async def _liveness(self, request: Request) -> None:
        self._respond(request, 200, {"status": "alive"})

    async def _readiness(self, request: Request) -> None:
        obstacles = self._obstacles()
        status = 503 if obstacles else 200
        self._respond(request, status, {"status": "not ready" if obstacles else "ready", "obstacles": obstacles})

    async def _show_details(self, request: Request) -> None:
        self._respond(request, 200, dict(self._details()))

    async def _show_metrics(self, request: Request) -> None:
        headers = ((b"x-request-id", request.id.encode()), *_TEXT)
        request.exchange.respond(200, headers, self._metrics())

    def _respond(self, request: Request, status: int, body: dict[str, Any]) -> None:
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        request.exchange.respond(status, headers, msgspec.json.encode(body))
