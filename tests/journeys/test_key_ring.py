"""Twenty keys for one upstream: which of them are used, how often one is turned away from, and that they come back."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.raw_http import Answer, get, hello, post
from tests.scripted_upstream import ScriptedUpstream, Talk, chat
from tests.upstream_scripts import failing

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = [f"canary-of-twenty-{number:02}-e1f7" for number in range(20)]
PAUSE = 8
"""Seconds of a Retry-After: long enough to look at the keys meanwhile."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server) -> AsyncIterator[GatewayProcess]:
    names = ("twenty", "crowd", "late", "parked")
    config = {
        "upstream": {"attempts": 1, "breaker_failures": 0},
        "providers": {
            **{name: {"base_url": server.url, "models": ["m"], "api_keys": KEYS} for name in names},
            "one": {"base_url": server.url, "models": ["m"], "api_key": "canary-of-one-5b1c"},
            "none": {"base_url": server.url, "models": ["m"], "api_key": ""},
        },
    }
    async with running_gateway(tmp_path_factory.mktemp("ring"), config) as running:
        yield running


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


def index_of(talk_or_request) -> int:
    return KEYS.index(talk_or_request.headers["authorization"].removeprefix("Bearer "))


def used(upstream: ScriptedUpstream) -> list[int]:
    return [index_of(request) for request in upstream.requests]


async def ask(gateway: GatewayProcess, provider: str, **more) -> Answer:
    return await post(gateway.port, ADMIN_KEY, hello(f"{provider}/m", **more))


async def states(gateway: GatewayProcess, provider: str) -> list[str]:
    details = (await get(gateway.port, ADMIN_KEY, "/health/details")).json
    return [key["state"] for key in details["keys"][provider]]


async def test_the_twentieth_key_answers_and_the_other_nineteen_come_back_by_themselves(gateway, upstream):
    async def script(talk: Talk) -> None:
        await (chat if index_of(talk.request) == 19 else failing(429, retry_after=str(PAUSE)))(talk)

    upstream.script = script
    assert (await ask(gateway, "twenty")).status == 200
    assert used(upstream) == list(range(20))
    assert await states(gateway, "twenty") == ["cooling"] * 19 + ["ready"]

    upstream.requests.clear()
    assert (await ask(gateway, "twenty")).status == 200
    assert used(upstream) == [19]

    async def all_are_ready() -> bool:
        return await states(gateway, "twenty") == ["ready"] * 20

    await wait_until(all_are_ready)

    async def turn_around(talk: Talk) -> None:
        await (failing(429, retry_after=str(PAUSE)) if index_of(talk.request) == 19 else chat)(talk)

    upstream.script = turn_around
    upstream.requests.clear()
    assert (await ask(gateway, "twenty")).status == 200
    assert used(upstream) == [19, 0]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_fifty_calls_that_are_refused_at_once_all_turn_to_the_same_next_key(gateway, upstream, stream):
    provider = "late" if stream else "crowd"
    arrived = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    async def script(talk: Talk) -> None:
        if index_of(talk.request) == 0:
            arrived.release()
            await go_on.wait()
            await failing(429, retry_after="300")(talk)
        else:
            await chat(talk)

    upstream.script = script
    calls = [asyncio.ensure_future(ask(gateway, provider, stream=stream)) for _ in range(50)]
    async with asyncio.timeout(60):
        for _ in range(50):
            await arrived.acquire()
    go_on.set()
    assert {(await call).status for call in calls} == {200}
    # Each was refused once, and the ring moved on by one key, not by fifty.
    assert Counter(used(upstream)) == {0: 50, 1: 50}

    upstream.requests.clear()
    assert {answer.status for answer in await asyncio.gather(*(ask(gateway, provider) for _ in range(50)))} == {200}
    assert Counter(used(upstream)) == {1: 50}
    assert await states(gateway, provider) == ["cooling"] + ["ready"] * 19
    line = f"{provider} refused the key 1 of 20 for a while: rate"
    await wait_until(lambda: line in gateway.log)
    assert gateway.log.count(line) == 1


async def test_a_single_key_is_listed_and_who_has_none_is_not(gateway):
    details = (await get(gateway.port, ADMIN_KEY, "/health/details")).json
    assert details["keys"]["one"] == [{"index": 0, "state": "ready", "retry_in": None, "reason": None}]
    assert "none" not in details["keys"]


# --- the command


async def test_the_command_shows_each_key_by_its_place(gateway, upstream):
    async def script(talk: Talk) -> None:
        await (failing(401) if index_of(talk.request) == 0 else chat)(talk)

    upstream.script = script
    assert (await ask(gateway, "parked")).status == 200
    done = await gateway.run("upstream-keys", "--url", gateway.url, "--json")
    assert done.code == 0, done.errors
    rows = json.loads(done.output)
    assert [(row["provider"], row["index"], row["state"]) for row in rows if row["provider"] == "one"] == [
        ("one", 0, "ready")
    ]
    (parked,) = [row for row in rows if row["provider"] == "parked" and row["state"] == "parked"]
    assert (parked["index"], parked["reason"], parked["retry_in"]) == (0, "unauthorized", None)

    table = await gateway.run("upstream-keys", "--url", gateway.url, "--provider", "parked")
    lines = [line.split("\t") for line in table.output.splitlines()]
    assert (lines[0][:3], len(lines)) == (["provider", "key", "state"], 21)
    assert lines[1][:5] == ["parked", "0", "parked", "–", "not known to the vendor"]
    assert not any(key in done.output + table.output + table.errors for key in KEYS)


async def test_the_command_speaks_german_and_says_what_is_wrong(gateway):
    german = {"LC_ALL": "de_DE.UTF-8"}
    done = await gateway.run("upstream-keys", "--url", gateway.url, "--provider", "one", more=german)
    assert done.output.splitlines()[1].split("\t")[:3] == ["one", "0", "bereit"]
    nobody = await gateway.run("upstream-keys", "--url", gateway.url, "--provider", "nobody")
    assert (nobody.code, nobody.output) == (1, "")
    assert "crowd, late, one, parked, twenty" in nobody.errors
    wrong = await gateway.run("upstream-keys", "--url", gateway.url, "--key", "no-key-of-anybody")
    assert wrong.code == 1
    assert "admin or a viewer" in wrong.errors
    alone = await gateway.run("upstream-keys", "--url", "http://127.0.0.1:9")
    assert alone.code == 1
    assert "No gateway answers at http://127.0.0.1:9" in alone.errors
