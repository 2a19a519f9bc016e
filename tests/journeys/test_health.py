"""What monitoring sees of a running gateway."""

import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from stellwerk import __version__
from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.raw_http import get, hello, post, send, write_request
from tests.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
