import pytest

from stellwerk.api._guard import Routes
from stellwerk.api.health import HealthAPI
from stellwerk.core.principal import Principal, Role
from stellwerk.http.router import Router
from tests.port_fakes import ALICE, RecordedExchange

VIEWER = Principal(key_id="key_viewer", name="eve", role=Role.VIEWER)
OPEN_PATHS = ["/health", "/health/liveness", "/health/liveliness", "/livez", "/healthz", "/health/readiness", "/readyz"]


class Keys:
    def authenticate(self, token):
        return {"viewer": VIEWER, "alice": ALICE}[token]


class Watch:
    def refused(self, code): ...


class Site:
    def __init__(self) -> None:
        self.obstacles, self.router = [], Router()
        api = HealthAPI(
            version="1.2.3",
            obstacles=lambda: self.obstacles,
            details=lambda: {"uptime": 5},
            metrics=lambda: b"up 1\n",
        )
        api.register(Routes(self.router, Keys(), Watch()))

    async def get(self, path, key=None):
        headers = {b"x-api-key": key} if key else {}
        exchange = RecordedExchange(method="GET", path=path, headers=headers)
        await self.router.find(path)["GET"](exchange)
        return exchange


@pytest.fixture
def site():
    return Site()


@pytest.mark.parametrize("path", OPEN_PATHS)
async def test_everybody_may_ask_how_it_is_and_nothing_is_cached(site, path):
    exchange = await site.get(path)
    assert (exchange.status, exchange.header("cache-control")) == (200, "no-store")
    assert exchange.header("x-request-id").startswith("req_")


async def test_health_names_version_and_obstacles(site):
    assert (await site.get("/health")).json == {"status": "ok", "version": "1.2.3", "obstacles": []}
    site.obstacles = ["storage"]
    exchange = await site.get("/health")
    assert (exchange.status, exchange.json["status"], exchange.json["obstacles"]) == (200, "degraded", ["storage"])


@pytest.mark.parametrize("path", ["/health/readiness", "/readyz"])
async def test_a_gateway_with_an_obstacle_is_alive_and_not_ready(site, path):
    site.obstacles = ["draining"]
    exchange = await site.get(path)
    assert (exchange.status, exchange.json) == (503, {"status": "not ready", "obstacles": ["draining"]})
    assert (await site.get("/livez")).status == 200


@pytest.mark.parametrize("path", ["/health/details", "/metrics"])
async def test_what_tells_about_the_machine_is_for_those_who_may_see_everything(site, path):
    assert [(await site.get(path, key)).status for key in (None, b"alice", b"viewer")] == [401, 403, 200]


async def test_details_and_metrics_have_their_formats(site):
    assert (await site.get("/health/details", b"viewer")).json == {"uptime": 5}
    exchange = await site.get("/metrics", b"viewer")
    assert exchange.written == b"up 1\n"
    assert exchange.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
