"""Pages of other sites before every listener: who may read answers, and that nobody else's page makes a call."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.openai_client import new_key
from tests.raw_http import Answer, get, hello, send, write_request
from tests.scripted_upstream import ScriptedUpstream, Talk, chat
from tests.sigorest_process import listeners_of, printed_authority, trusting
from tests.upstream_scripts import failing

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP, OTHER_APP = "https://app.example.org", "http://localhost:3000"
EXTENSION = "chrome-extension://jfgfiigpkhlkbnfnbobbkinehhfdhndo"
EVIL = "https://evil.example"
KEY = {"Authorization": f"Bearer {ADMIN_KEY}"}
OPENAI_HEADERS = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout,openai-organization"
)
"""What OpenAI's JavaScript client sends beside what needs no leave."""


@dataclass(frozen=True)
class Site:
    """A listener, and a call that it serves."""

    path: str
    body: dict[str, Any]
    keyless: bool = False
    headers: dict[str, str] = field(default_factory=lambda: KEY)


GENERATE = {"model": "llama3", "prompt": "Hello", "stream": False}
SITES = {
    "main": Site("/v1/chat/completions", hello()),
    "sigorest http": Site("/v1/chat/completions", hello("plain"), keyless=True, headers={}),
    "sigorest https": Site("/v1/chat/completions", hello("plain"), keyless=True, headers={}),
    "ollama-cloud-proxy": Site("/api/generate", GENERATE, keyless=True, headers={}),
    "go-ollama-api": Site("/generate", {**GENERATE, "model": "up/up", "apikey": ADMIN_KEY}, headers={}),
    "ai-gateway": Site("/api/chat", {**hello("plain"), "stream": False}),
}
KEYLESS = [name for name, site in SITES.items() if site.keyless]


async def speak(talk: Talk) -> None:
    path = talk.request.path
    if path == "/api/tags":
        await talk.answer({"models": [{"name": "llama3", "model": "llama3", "digest": "llama3"}]})
    elif path == "/api/show":
        await talk.answer({"capabilities": ["completion"], "model_info": {}})
    elif path == "/api/generate":
        await talk.answer({"model": "llama3", "response": "Hello", "done": True, "prompt_eval_count": 1})
    else:
        await chat(talk)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    made = ScriptedUpstream(speak)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def upstream(server) -> Iterator[ScriptedUpstream]:
    server.requests.clear()
    yield server
    server.script = speak


def calls(server: ScriptedUpstream) -> list[str]:
    """What reached the upstream but for discovery."""
    return [each.path for each in server.requests if each.method == "POST" and each.path != "/api/show"]


def settings_for(server: ScriptedUpstream, *origins: str) -> dict[str, Any]:
    return {
        # Whatever a Host says is let through to the APIs, as a reverse proxy is said to have looked at it.
        "listen": {"cors_origins": list(origins), "behind_proxy": True},
        "compat": ["sigorest", "go-ollama-api", "ollama-cloud-proxy", "ai-gateway"],
        "sigorest": {"http_port": 0, "https_port": 0, "lan_trust": True, "lan_networks": ["127.0.0.0/8"]},
        "go_ollama": {"ports": [0]},
        "ollama_cloud_proxy": {
            "port": 0,
            "base_url": server.url.removesuffix("/v1"),
            "allow_unauthenticated": True,
        },
        "ai_gateway": {"port": 0, "demo_login": True},
        "discovery": {"refresh_seconds": 3600},
        "models": {"plain": {"targets": ["up/up"]}},
        "providers": {"up": {"base_url": server.url, "models": ["up"], "api_key": ""}},
        "limits": {"tiers": {"payg": {"requests_per_minute": 0}, "sub": {"requests_per_minute": 0}}},
    }


@dataclass
class Gateway:
    process: GatewayProcess
    ports: dict[str, int]
    """By the names of SITES."""

    async def ask(
        self, name: str, method: str, path: str, body: Any = None, *, plain: bool = False, **headers: str
    ) -> Answer:
        """`plain` sends what a page may send without asking first. Underscores in names of headers become hyphens."""
        tls = {}
        if name == "sigorest https":
            tls = {"ssl": trusting(printed_authority(self.process)), "server_hostname": "localhost"}
        fields = {key.replace("_", "-"): value for key, value in headers.items()}
        if plain:
            fields["Content-Type"] = "text/plain"
        content = None if body is None else json.dumps(body).encode()
        return await (await send(self.ports[name], write_request(method, path, content, fields), **tls)).read()

    async def call(self, name: str, **headers: str) -> Answer:
        site = SITES[name]
        return await self.ask(name, "POST", site.path, site.body, **{**site.headers, **headers})


async def opened(process: GatewayProcess) -> Gateway:
    ports = {}
    for listener, facts in (await listeners_of(process)).items():
        name = next(name for name in SITES if listener in (name, f"{name} {listener.rpartition(' ')[2]}"))
        assert facts["state"] == "open", facts
        ports[name] = int(facts["addresses"][0].rpartition(":")[2])
    assert ports.keys() == SITES.keys()

    async def discovered() -> bool:
        models = (await get(process.port, ADMIN_KEY, "/v1/models")).json["data"]
        return {"plain", "ollama-cloud/llama3"} <= {model["id"] for model in models}

    await wait_until(discovered)
    return Gateway(process, ports)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server) -> AsyncIterator[Gateway]:
    environment = {"OLLAMA_API_KEYS": "canary-cloud-key-1f0a", "OLLAMA_ORIGINS": "chrome-extension://*, example.org"}
    folder = tmp_path_factory.mktemp("browsers")
    async with running_gateway(folder, settings_for(server, APP, OTHER_APP), environment=environment) as process:
        yield await opened(process)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def public(tmp_path_factory, server) -> AsyncIterator[Gateway]:
    """One whose answers every page may read."""
    environment = {"OLLAMA_API_KEYS": "canary-cloud-key-1f0a"}
    folder = tmp_path_factory.mktemp("public")
    async with running_gateway(folder, settings_for(server, "*"), environment=environment) as process:
        yield await opened(process)


def told(answer: Answer) -> dict[str, str]:
    """What a browser is told of pages."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def preflight(method: str = "POST", fields: str = OPENAI_HEADERS) -> dict[str, str]:
    return {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": fields}


# --- named pages


@pytest.mark.parametrize("name", SITES)
async def test_a_named_page_is_answered_on_every_listener(gateway, upstream, name):
    path = SITES[name].path
    asked = await gateway.ask(name, "OPTIONS", path, Origin=APP, **preflight())
    assert (asked.status, asked.body, calls(upstream)) == (204, b"", [])
    assert asked.headers["access-control-allow-origin"] == APP
    assert asked.headers["access-control-allow-headers"].replace(" ", "") == OPENAI_HEADERS
    answer = await gateway.call(name, Origin=APP, Sec_Fetch_Site="cross-site")
    assert answer.status == 200, answer.body
    assert answer.headers["access-control-allow-origin"] == APP
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    # Clients of AI Gateway are answered before their call is made.
    await wait_until(lambda: calls(upstream))
    for each in (asked, answer):
        assert each.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in each.headers


@pytest.mark.parametrize("name", SITES)
async def test_other_pages_are_told_nothing(gateway, upstream, name):
    asked = await gateway.ask(name, "OPTIONS", SITES[name].path, Origin=EVIL, **preflight())
    assert (asked.status, told(asked)) == (405, {})
    made = 0
    for origin in (EVIL, "null", f"{APP}.evil.example", "http://app.example.org"):
        answer = await gateway.call(name, Origin=origin)
        assert (answer.status, told(answer)) == (403 if SITES[name].keyless else 200, {})
        made += answer.status == 200
    # Whoever shows a key is no page that a browser has to hold back: the calls are made as always.
    await wait_until(lambda: len(calls(upstream)) == made)


async def test_refusals_can_be_read_too(gateway, upstream):
    limited = await new_key(gateway.process, "--requests-per-minute", "1")
    for status, path, body, headers in (
        (401, "/v1/chat/completions", hello(), {}),
        (401, "/v1/chat/completions", hello(), {"Authorization": "Bearer sk-sw-wrong"}),
        (404, "/v1/chat/completions", hello("nobody"), KEY),
        (404, "/v1/nowhere", {}, KEY),
        (400, "/v1/chat/completions", {}, KEY),
        (200, "/v1/chat/completions", hello(), {"Authorization": f"Bearer {limited}"}),
        (429, "/v1/chat/completions", hello(), {"Authorization": f"Bearer {limited}"}),
    ):
        answer = await gateway.ask("main", "POST", path, body, Origin=APP, **headers)
        assert (answer.status, answer.headers.get("access-control-allow-origin")) == (status, APP)
    upstream.script = failing(503)
    broken = await gateway.ask("main", "POST", "/v1/chat/completions", hello(), Origin=APP, **KEY)
    assert broken.status >= 500
    assert broken.headers["access-control-allow-origin"] == APP
    assert "retry-after" in answer.headers
    assert "retry-after" in answer.headers["access-control-expose-headers"]


async def test_streams_can_be_read(gateway, upstream):
    for path, body in (
        ("/v1/chat/completions", hello(stream=True)),
        ("/api/chat", hello(stream=True)),
        ("/api/generate", {"model": "up/up", "prompt": "Hello"}),
    ):
        answer = await gateway.ask("main", "POST", path, body, Origin=OTHER_APP, **KEY)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, OTHER_APP)
        assert answer.headers["transfer-encoding"] == "chunked"
        assert b"Hel" in answer.body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/api/users"),
        ("POST", "/admin/api/users"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/health/details"),
        ("DELETE", "/api/delete"),
        ("POST", "/auth/token"),
        ("POST", "/user/api/keys"),
    ],
)
async def test_logins_and_administration_stay_with_pages_of_the_same_origin(gateway, public, method, path):
    for each in (gateway, public):
        asked = await each.ask("main", "OPTIONS", path, Origin=APP, **preflight(method))
        assert (asked.status, told(asked)) == (405, {})
        answer = await each.ask("main", method, path, None if method == "GET" else {}, Origin=APP, **KEY)
        assert told(answer) == {}


# --- OLLAMA_ORIGINS


async def test_what_is_set_for_ollama_counts_where_its_api_is_spoken(gateway, upstream):
    for name, site in SITES.items():
        asked = await gateway.ask(name, "OPTIONS", site.path, Origin=EXTENSION, **preflight())
        there = name in ("main", "ollama-cloud-proxy")
        assert told(asked).get("access-control-allow-origin") == (EXTENSION if there else None)
    answer = await gateway.ask("main", "POST", "/api/chat", {**hello(), "stream": False}, Origin=EXTENSION, **KEY)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, EXTENSION)
    assert (await gateway.call("ollama-cloud-proxy", Origin=EXTENSION)).status == 200
    assert "'example.org' in OLLAMA_ORIGINS is left out" in gateway.process.log


# --- pages that have no key


@pytest.mark.parametrize("name", KEYLESS)
@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1"])
async def test_no_other_page_makes_a_call_where_no_key_is_needed(gateway, public, upstream, name, origin):
    site = SITES[name]
    for each in (gateway, public):
        answer = await each.ask(name, "POST", site.path, site.body, plain=True, Origin=origin)
        assert answer.status == 403
        hidden = await each.ask(name, "POST", site.path, site.body, plain=True, Sec_Fetch_Site="cross-site")
        assert hidden.status == 403
    assert calls(upstream) == []


@pytest.mark.parametrize("name", KEYLESS)
async def test_programs_need_no_key_as_before(public, upstream, name):
    assert (await public.call(name)).status == 200
    assert calls(upstream)


async def test_every_page_that_shows_a_key_may_read_where_all_may(public, upstream):
    shown = {"Authorization": f"Bearer {await new_key(public.process)}"}
    for name in KEYLESS:
        answer = await public.call(name, Origin=EVIL, Sec_Fetch_Site="cross-site", **shown)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*"), name
        assert answer.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("name", KEYLESS)
async def test_a_page_whose_own_name_leads_here_makes_no_call(gateway, upstream, name):
    site = SITES[name]
    rebound = {"Host": "evil.example", "Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"}
    answer = await gateway.ask(name, "POST", site.path, site.body, plain=True, **rebound)
    assert answer.status in (400, 401)
    assert calls(upstream) == []
    if name == "ollama-cloud-proxy":
        assert (await gateway.ask(name, "GET", "/stats", **rebound)).status == 401
        assert (await gateway.ask(name, "GET", "/stats", Origin=EVIL)).status == 403
        assert (await gateway.ask(name, "GET", "/stats")).status == 200


async def test_no_page_logs_in_as_the_demo_admin(gateway, public):
    login = {"username": "admin", "password": "admin"}
    for origin, status in ((APP, 403), (EVIL, 403), (None, 200)):
        headers = {} if origin is None else {"Origin": origin}
        for each in (gateway, public):
            assert (await each.ask("ai-gateway", "POST", "/auth/token", login, **headers)).status == status
    rebound = {"Host": "evil.example", "Origin": "http://evil.example", "Sec_Fetch_Site": "same-origin"}
    assert (await gateway.ask("ai-gateway", "POST", "/auth/token", login, **rebound)).status == 401
