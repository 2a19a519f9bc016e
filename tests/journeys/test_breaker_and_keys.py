"""An upstream that fails, keys that are refused, and the way back: the whole gateway before scripted upstreams."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.raw_http import Answer, begin, get, hello, post
from tests.scripted_upstream import AskedUpstream, Script, ScriptedUpstream, Talk, chat, chunk
from tests.upstream_scripts import answering, failing

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAILURES, REST = 3, 3.0
KEYS = ("first-canary-key-5f0c", "second-canary-key-77a1", "third-canary-key-90bd")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstreams() -> AsyncIterator[tuple[ScriptedUpstream, ScriptedUpstream]]:
    servers = AskedUpstream(), AskedUpstream()
    for server in servers:
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstreams) -> AsyncIterator[GatewayProcess]:
    first, second = upstreams
    config = {
        "upstream": {"breaker_failures": FAILURES, "breaker_seconds": REST},
        "providers": {
            "up": {"base_url": first.url, "api_key": ""},
            "second": {"base_url": second.url, "api_key": ""},
            "ring": {"vendor": "mammouth", "base_url": first.url, "api_keys": ["${KEY_1}", "${KEY_2}", "${KEY_3}"]},
            "mammouth": {"base_url": first.url},
        },
        "models": {"pair": {"targets": ["up/pair", "second/pair"]}, "ring-first": {"targets": ["ring/x", "second/x"]}},
    }
    environment = {f"KEY_{number}": key for number, key in enumerate(KEYS, 1)}
    environment |= {"MAMMOUTH_API_KEY_0": KEYS[0], "MAMMOUTH_API_KEY_7": KEYS[1]}
    folder = tmp_path_factory.mktemp("breaker")
    async with running_gateway(folder, config, environment=environment) as running:
        yield running


@pytest.fixture
def upstream(upstreams) -> ScriptedUpstream:
    return _as_new(upstreams[0])


@pytest.fixture
def second(upstreams) -> ScriptedUpstream:
    return _as_new(upstreams[1])


def _as_new(server: ScriptedUpstream) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


async def ask(gateway: GatewayProcess, model: str, request_id: str | None = None, **more) -> Answer:
    headers = {} if request_id is None else {"x_request_id": request_id}
    return await post(gateway.port, ADMIN_KEY, hello(model, **more), **headers)


async def details(gateway: GatewayProcess) -> dict:
    return (await get(gateway.port, ADMIN_KEY, "/health/details")).json


async def breaker(gateway: GatewayProcess, model: str) -> dict | None:
    return next((each for each in (await details(gateway))["breakers"] if each["model"] == model), None)


async def count(gateway: GatewayProcess, name: str) -> float:
    text = (await get(gateway.port, ADMIN_KEY, "/metrics")).body.decode()
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


async def open_breaker(gateway: GatewayProcess, upstream: ScriptedUpstream, model: str) -> None:
    """One call of three attempts is enough."""
    upstream.script = failing(500)
    assert (await ask(gateway, f"up/{model}")).status == 502
    assert (await breaker(gateway, model))["state"] == "open"
    upstream.requests.clear()
    upstream.script = chat


# --- retries


async def test_an_upstream_that_stumbles_is_asked_again_and_the_client_sees_nothing_of_it(gateway, upstream):
    async def stumble(talk: Talk) -> None:
        await (failing(500) if len(upstream.requests) < 3 else chat)(talk)

    upstream.script = stumble
    retries = await count(gateway, "stellwerk_retries_total")
    assert (await ask(gateway, "up/stumbles", "stumbled")).status == 200
    assert len(upstream.requests) == 3
    assert await count(gateway, "stellwerk_retries_total") == retries + 2
    row = await gateway.call("stumbled")
    assert (row["status"], row["error"], row["attempts"]) == (200, None, 3)
    assert await breaker(gateway, "stumbles") is None


async def test_an_upstream_is_left_alone_for_as_long_as_it_asks(gateway, upstream):
    times = []

    async def busy_once(talk: Talk) -> None:
        times.append(asyncio.get_running_loop().time())
        await (failing(429, retry_after="2") if len(times) == 1 else chat)(talk)

    upstream.script = busy_once
    assert (await ask(gateway, "up/busy")).status == 200
    assert times[1] - times[0] >= 2


async def test_who_would_have_to_wait_too_long_is_told_at_once(gateway, upstream):
    upstream.script = failing(429, retry_after="50")
    answer = await ask(gateway, "up/full")
    assert (answer.status, answer.error["code"]) == (429, "upstream_rate_limited")
    assert answer.headers["retry-after"] == "50"
    assert len(upstream.requests) == 1


async def test_the_next_target_goes_before_a_second_attempt(gateway, upstream, second):
    upstream.script = failing(503, retry_after="5")
    assert (await ask(gateway, "pair", "paired")).status == 200
    assert (len(upstream.requests), len(second.requests)) == (1, 1)
    assert (await gateway.call("paired"))["attempts"] == 2


async def test_what_broke_after_its_first_byte_is_not_tried_again(gateway, upstream):
    async def break_off(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Hel"))
        talk.cut()

    upstream.script = break_off
    answer = await ask(gateway, "up/breaks", stream=True)
    assert (answer.status, len(upstream.requests)) == (200, 1)


# --- breaker


async def test_failures_in_a_row_open_the_breaker_of_one_target(gateway, upstream):
    await open_breaker(gateway, upstream, "opens")
    answer = await ask(gateway, "up/opens", "refused")
    assert (answer.status, answer.error["code"]) == (503, "circuit_open")
    assert 1 <= int(answer.headers["retry-after"]) <= REST
    assert upstream.requests == []
    status = await breaker(gateway, "opens")
    assert (status["provider"], status["failures"]) == ("up", FAILURES)
    row = await gateway.call("refused")
    assert (row["status"], row["error"], row["attempts"], row["cost"]) == (503, "circuit_open", 0, None)
    assert (await ask(gateway, "up/another")).status == 200


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_clients_do_wrong_opens_nothing(gateway, upstream, status):
    model = f"wrong-{status}"
    upstream.script = failing(status)
    for _ in range(3 * FAILURES):
        assert (await ask(gateway, f"up/{model}")).status == status
    assert len(upstream.requests) == 3 * FAILURES
    assert await breaker(gateway, model) is None


async def test_refused_credentials_and_clients_that_leave_open_nothing(gateway, upstream):
    upstream.script = failing(401)
    for _ in range(2 * FAILURES):
        assert (await ask(gateway, "up/secret")).status == 502

    reached = asyncio.Semaphore(0)

    async def hang(talk: Talk) -> None:
        reached.release()
        await talk.left.wait()

    upstream.script = hang
    for number in range(2 * FAILURES):
        exchange = await begin(gateway.port, ADMIN_KEY, hello("up/secret"), x_request_id=f"left-{number}")
        async with asyncio.timeout(30):
            await reached.acquire()
        exchange.close()
        await gateway.call(f"left-{number}")
    assert await breaker(gateway, "secret") is None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_of_fifty_calls_at_once_one_tries_and_its_answer_lets_all_in(gateway, upstream, stream):
    model = f"half-open-{stream}"
    await open_breaker(gateway, upstream, model)
    refused = asyncio.Event()

    async def wait(talk: Talk) -> None:
        await refused.wait()
        await chat(talk)

    upstream.script = wait
    await wait_until(lambda: _is_half_open(gateway, model))
    calls = [asyncio.ensure_future(ask(gateway, f"up/{model}", stream=stream)) for _ in range(50)]
    await wait_until(lambda: sum(call.done() for call in calls) >= 49)
    assert len(upstream.requests) == 1
    refused.set()
    statuses = [(await call).status for call in calls]
    assert sorted(statuses) == [200, *[503] * 49]
    assert await breaker(gateway, model) is None
    assert {answer.status for answer in await asyncio.gather(*(ask(gateway, f"up/{model}") for _ in range(20)))} == {
        200
    }


async def test_a_probe_that_fails_opens_it_again(gateway, upstream):
    await open_breaker(gateway, upstream, "again")
    upstream.script = failing(500)
    await wait_until(lambda: _is_half_open(gateway, "again"))
    assert (await ask(gateway, "up/again")).status == 502
    assert len(upstream.requests) == 1
    assert (await breaker(gateway, "again"))["state"] == "open"


async def _is_half_open(gateway: GatewayProcess, model: str) -> bool:
    status = await breaker(gateway, model)
    return status is not None and status["state"] == "half_open"


async def test_a_target_that_is_open_is_passed_over_without_an_attempt(gateway, upstream, second):
    await open_breaker(gateway, upstream, "pair")
    assert (await ask(gateway, "pair", "passed-over")).status == 200
    assert (upstream.requests, len(second.requests)) == ([], 1)
    row = await gateway.call("passed-over")
    assert (row["provider"], row["attempts"]) == ("second", 1)


# --- keys


def by_key(*scripts: Script) -> Callable:
    """A script for each key in its order; further keys chat."""

    async def script(talk: Talk) -> None:
        index = KEYS.index(talk.request.headers["authorization"].removeprefix("Bearer "))
        await (scripts[index] if index < len(scripts) else chat)(talk)

    return script


def used(upstream: ScriptedUpstream) -> list[int]:
    return [KEYS.index(each.headers["authorization"].removeprefix("Bearer ")) for each in upstream.requests]


async def key_states(gateway: GatewayProcess, provider: str = "ring") -> list[dict]:
    return (await details(gateway))["keys"][provider]


async def reload(gateway: GatewayProcess) -> None:
    """Brings every key back, as an operator does who has mended something."""

    async def are_ready() -> bool:
        return all(key["state"] == "ready" for key in await key_states(gateway))

    if not await are_ready():
        gateway.signal(signal.SIGHUP)
        await wait_until(are_ready)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_next_key_answers_the_same_request(gateway, upstream, stream):
    await reload(gateway)
    upstream.script = by_key(failing(429, retry_after="300"))
    answer = await ask(gateway, "ring/rate", f"next-key-{stream}", stream=stream)
    assert answer.status == 200
    first, other = upstream.requests
    assert used(upstream) == [0, 1]
    assert first.body == other.body
    # For the client, the ledger and the counters it was one attempt.
    assert (await gateway.call(f"next-key-{stream}"))["attempts"] == 1
    upstream.requests.clear()
    assert (await ask(gateway, "ring/rate")).status == 200
    assert used(upstream) == [1]


async def test_a_key_that_the_upstream_does_not_know_is_parked(gateway, upstream):
    await reload(gateway)
    before = gateway.log.count("does not know the key 2 of 3")
    upstream.script = by_key(failing(429, retry_after="300"), failing(401))
    for _ in range(3):
        assert (await ask(gateway, "ring/parked")).status == 200
    assert used(upstream).count(1) == 1
    assert (await key_states(gateway))[1] == {"index": 1, "state": "parked", "retry_in": None, "reason": "unauthorized"}
    await wait_until(lambda: gateway.log.count("does not know the key 2 of 3") == before + 1)
    await reload(gateway)
    assert (await key_states(gateway))[1]["state"] == "ready"


async def test_when_every_key_is_used_up_the_client_hears_when_the_first_comes_back(gateway, upstream):
    await reload(gateway)
    quota = answering(429, {"error": "you've reached your hourly usage limit, please wait or upgrade to continue"})
    upstream.script = by_key(failing(429, retry_after="400"), quota, failing(429, retry_after="200"))
    for number in range(3):
        answer = await ask(gateway, "ring/empty", f"empty-{number}")
        assert (answer.status, answer.error["code"]) == (429, "upstream_rate_limited")
        assert 190 <= int(answer.headers["retry-after"]) <= 200
    assert sorted(used(upstream)) == [0, 1, 2]
    assert (await gateway.call("empty-2"))["attempts"] == 1
    # An hourly quota is of the account and a rate of one model: the others go on with the keys that are left.
    upstream.script = chat
    assert (await ask(gateway, "ring/other")).status == 200
    states = await key_states(gateway)
    assert (states[1]["state"], states[1]["reason"]) == ("cooling", "hourly_quota")
    assert await breaker(gateway, "empty") is None


async def test_a_key_that_comes_back_soon_is_waited_for(gateway, upstream):
    await reload(gateway)

    async def refuse_each_key_once(talk: Talk) -> None:
        await (failing(429, retry_after="1") if len(upstream.requests) <= 3 else chat)(talk)

    upstream.script = refuse_each_key_once
    assert (await ask(gateway, "ring/soon")).status == 200
    assert sorted(used(upstream)[:3]) == [0, 1, 2]
    assert len(upstream.requests) == 4


async def test_the_next_target_answers_when_all_keys_are_used_up(gateway, upstream, second):
    await reload(gateway)
    upstream.script = failing(429, retry_after="5")
    assert (await ask(gateway, "ring-first")).status == 200
    assert (sorted(used(upstream)), len(second.requests)) == ([0, 1, 2], 1)


async def test_fifty_calls_at_once_all_reach_the_key_that_is_left(gateway, upstream):
    await reload(gateway)
    upstream.script = by_key(failing(429, retry_after="300"), failing(402))
    answers = await asyncio.gather(*(ask(gateway, "ring/many") for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    upstream.requests.clear()
    await asyncio.gather(*(ask(gateway, "ring/many") for _ in range(20)))
    assert set(used(upstream)) == {2}


async def test_numbered_variables_are_keys_of_their_vendor(gateway, upstream):
    upstream.script = by_key(failing(429, retry_after="300"))
    assert (await ask(gateway, "mammouth/numbered")).status == 200
    assert used(upstream) == [0, 1]


async def test_no_key_stands_in_the_log_or_in_health(gateway):
    text = gateway.log + gateway.output + (await get(gateway.port, ADMIN_KEY, "/health/details")).body.decode()
    assert not any(key in text for key in KEYS)
