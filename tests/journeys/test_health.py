"""What monitoring sees of a running gateway, and who may see it."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from stellwerk import __version__
from stellwerk.app.application import Application
from stellwerk.app.store import Store
from stellwerk.config.settings import Config, Discovery, Engines, Listen
from stellwerk.core.principal import CALLERS, OBSERVERS, OPEN, READERS, Access, Role
from stellwerk.telemetry.logs import LogSettings, start_logs
from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.raw_http import Answer, get, hello, post, send, write_request
from tests.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = ("chat/completions", "completions", "embeddings")
ROUTES: dict[tuple[str, str], Access] = {
    **{("POST", f"{prefix}/{path}"): CALLERS for prefix in ("/v1", "") for path in CALLS},
    **{("GET", f"{prefix}/{path}"): READERS for prefix in ("/v1", "") for path in ("models", "models/{rest}")},
    **{
        ("GET", path): OPEN
        for path in (
            "/health",
            "/health/liveness",
            "/health/liveliness",
            "/health/readiness",
            "/livez",
            "/healthz",
            "/readyz",
        )
    },
    ("GET", "/health/details"): OBSERVERS,
    ("GET", "/metrics"): OBSERVERS,
}
"""Who may use what: a route that is missing here, or is open to others than these, fails."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstream) -> AsyncIterator[GatewayProcess]:
    provider = {"base_url": upstream.url, "models": ["up"], "api_key": ""}
    async with running_gateway(tmp_path_factory.mktemp("health"), {"providers": {"up": provider}}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys(gateway) -> dict[Role | None, str | None]:
    """A key of every role, and none."""
    made: dict[Role | None, str | None] = {None: None, Role.ADMIN: ADMIN_KEY}
    for role in (Role.USER, Role.VIEWER):
        created = await gateway.run("keys", "create", role, "--role", role)
        made[role] = created.output.strip()
    return made


async def ask(gateway: GatewayProcess, method: str, path: str, key: str | None) -> Answer:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = b"{}" if method == "POST" else None
    request = write_request(method, path.replace("{rest}", "no-such-model"), body, headers)
    return await (await send(gateway.port, request)).read()


# --- who may see what


async def test_the_table_of_routes_has_a_row_for_each_route_and_no_other(tmp_path):
    config = Config(
        listen=Listen(port=0), engines=Engines(enabled=False), discovery=Discovery(environment=False, ollama=False)
    )
    data, registered = tmp_path / "data", {}
    store = Store(data, keep_admin_key_in=tmp_path / "admin.key", admin_key=None)
    with (tmp_path / "log").open("w") as log:
        logs = start_logs(LogSettings(), log)
        application = Application(config, store=store, data=data, config_file=None, environ={}, logs=logs)

        def look_and_stop(_host: str, _port: int) -> None:
            registered.update({(route.method, route.path): route.access for route in application._listener.router})
            application._server.stop()

        try:
            await application.run(look_and_stop)
        finally:
            logs.stop()
            store.close()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                asyncio.get_running_loop().remove_signal_handler(number)
    assert registered == ROUTES


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_a_route_answers_those_who_may_use_it_and_nobody_else(gateway, upstream, keys, route):
    method, path = route
    upstream.requests.clear()
    seen = {role: await ask(gateway, method, path, key) for role, key in keys.items()}
    access = ROUTES[route]
    for role, answer in seen.items():
        if not access or role in access:
            assert answer.status not in (401, 403), role
        else:
            assert answer.status == (401 if role is None else 403), role
            assert answer.error["code"] == ("missing_api_key" if role is None else "permission_denied")
    assert upstream.requests == []


# --- health


async def test_health_tells_its_version_and_that_all_is_well(gateway):
    answer = await get(gateway.port, None, "/health")
    assert answer.status == 200
    assert answer.json == {"status": "ok", "version": __version__, "obstacles": []}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/health/liveness", "/health/readiness", "/livez", "/readyz"])
async def test_probes_are_200_and_tell_nothing_of_the_machine(gateway, path):
    answer = await get(gateway.port, None, path)
    assert answer.status == 200
    assert set(answer.json) <= {"status", "obstacles"}


async def test_a_probe_by_head_has_no_body(gateway):
    exchange = await send(gateway.port, write_request("HEAD", "/health/readiness", None, {}))
    assert await exchange.read_head() == 200
    exchange.close()


async def test_details_show_providers_and_ledger(gateway):
    details = (await get(gateway.port, ADMIN_KEY, "/health/details")).json
    assert details["version"] == __version__
    assert details["models"] == 1
    assert [provider["name"] for provider in details["providers"]] == ["up"]
    assert details["ledger"]["dropped"] == 0


async def test_a_gateway_that_stops_is_not_ready_for_new_connections(tmp_path):
    async with running_gateway(tmp_path) as stopping:
        assert (await get(stopping.port, None, "/health/readiness")).status == 200
        stopping.signal(signal.SIGTERM)
        assert await stopping.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            await get(stopping.port, None, "/health/readiness")


# --- metrics


async def read_metrics(gateway: GatewayProcess) -> dict[str, float]:
    """Every sample by its name and labels as they are written."""
    answer = await get(gateway.port, ADMIN_KEY, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_metrics_count_calls_tokens_and_refusals(gateway):
    labels = "model=up operation=chat provider=up"
    before = await read_metrics(gateway)
    for number in range(3):
        assert (await post(gateway.port, ADMIN_KEY, hello(stream=number == 0))).status == 200
    assert (await post(gateway.port, "sk-wrong", hello())).status == 401
    assert (await post(gateway.port, ADMIN_KEY, hello("unknown"))).status == 404

    async def counted() -> dict[str, float]:
        # A streamed call is counted a moment after its last byte.
        now = await read_metrics(gateway)
        rise = {name: value - before.get(name, 0) for name, value in now.items()}
        return rise if rise.get(f"stellwerk_requests_total {labels} status=200") == 3 else {}

    rise = await wait_until(counted)
    assert rise[f"stellwerk_tokens_total {labels} type=input"] == 15
    assert rise[f"stellwerk_tokens_total {labels} type=output"] == 6
    assert rise[f"stellwerk_request_duration_seconds_count {labels}"] == 3
    assert rise[f"stellwerk_time_to_first_token_seconds_count {labels}"] == 1
    assert rise["stellwerk_refusals_total code=invalid_api_key"] == 1
    assert rise["stellwerk_refusals_total code=model_not_found"] == 1


async def test_metrics_show_the_process_and_what_runs(gateway):
    metrics = await read_metrics(gateway)
    assert metrics[f"stellwerk_build_info version={__version__}"] == 1
    assert metrics["stellwerk_in_flight"] == 0
    assert metrics["stellwerk_connections_open"] >= 1
    assert metrics["stellwerk_ledger_rows_dropped_total"] == 0
    assert metrics["stellwerk_process_rss_bytes"] > 10 << 20
