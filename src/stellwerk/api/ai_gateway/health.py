"""`GET /health` of AI Gateway, which needs nothing and hides nothing."""

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.ai_gateway.models import naive
from stellwerk.core.clock import Clock
from stellwerk.core.principal import OPEN
from stellwerk.http.exchange import Headers

_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class HealthAPI:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def register(self, routes: Routes) -> None:
        routes.add("GET", "/health", OPEN, self._show)

    async def _show(self, request: Request) -> None:
        body = {"status": "healthy", "timestamp": naive(self._clock.now())}
        headers = ((b"x-request-id", request.id.encode()), *_JSON)
        request.exchange.respond(200, headers, msgspec.json.encode(body))
