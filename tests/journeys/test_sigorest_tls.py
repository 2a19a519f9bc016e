"""The listener for trusted networks: TLS with a certificate of its own, and who is let in.

All peers of a test are on this machine: `TRUSTED` stands for the networks of the config, `FOREIGN` for all others.
"""

import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stellwerk.http.certificates import ensure_certificate
from stellwerk.http.interfaces import machine_addresses, machine_names
from tests.gateway_process import ADMIN_KEY, Finished, GatewayProcess, running_gateway
from tests.openai_client import new_key
from tests.raw_http import Answer, get, hello, post, send, write_request
from tests.scripted_upstream import AskedUpstream, ScriptedUpstream, chat
from tests.sigorest_process import (
    CHAT_LINE,
    HEALTH_LINE,
    HTTP,
    HTTPS,
    MEMORY_LINE,
    MODEL_FACTS_LINE,
    MODELS_LINE,
    NEW_MEMORY_LINE,
    OLLAMA_CHAT_LINE,
    OLLAMA_MODELS_LINE,
    ScriptedOllama,
    asked_of,
    history_of,
    is_free,
    lead_curl,
    listeners_of,
    over_tls,
    port_of,
    printed_authority,
    run_line,
    trusting,
    wait_for_models,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRUSTED, FOREIGN = "127.0.0.1", "127.200.0.1"
NETWORKS = ["127.0.0.0/9"]
LINES = {
    "chat": CHAT_LINE,
    "models": MODELS_LINE,
    "facts": MODEL_FACTS_LINE,
    "health": HEALTH_LINE,
    "memory": MEMORY_LINE,
    "ollama models": OLLAMA_MODELS_LINE,
    "ollama chat": OLLAMA_CHAT_LINE,
}
LONG_AGO = timedelta(days=390)
"""When a certificate was made that has to be renewed now, by an authority that is still good."""


# --- the gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = AskedUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ollama() -> AsyncIterator[ScriptedOllama]:
    made = ScriptedOllama(["gemma3:4b"])
    await made.upstream.start()
    yield made
    await made.upstream.stop()


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


def options_for(server: ScriptedUpstream, ollama: ScriptedOllama, **sigorest: Any) -> dict[str, Any]:
    """How a gateway is started; `sigorest` is that section of its config."""
    config = {
        "compat": ["sigorest"],
        "sigorest": {"lan_trust": True, "lan_networks": NETWORKS, **sigorest},
        "discovery": {"environment": True, "ollama": True, "ollama_url": ollama.url},
    }
    return {"config": config, "environment": {"MAMMOUTH_BASE_URL": server.url, "MAMMOUTH_API_KEY": "x-canary"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sigorest-tls")


@pytest.fixture(scope="module")
def former(folder) -> dict[str, bytes]:
    """The certificates of a gateway that ran here long ago, as clients know them."""
    (folder / "data").mkdir(mode=0o700)
    made = ensure_certificate(
        folder / "data" / "certs",
        names=machine_names(),
        addresses=machine_addresses(),
        now=datetime.now(UTC) - LONG_AGO,
    )
    assert made.authority is not None
    return {"authority": made.authority.read_bytes(), "certificate": made.certificate.read_bytes()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder, former, server, ollama) -> AsyncIterator[GatewayProcess]:
    async with running_gateway(folder, **options_for(server, ollama, http_port=0, https_port=0)) as running:
        await wait_for_models(await port_of(running, HTTP), "ollama-gemma3-4b", "claude-h")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(gateway) -> int:
    return await port_of(gateway, HTTPS)


@pytest.fixture(scope="module")
def authority(gateway) -> Path:
    return printed_authority(gateway)


@pytest.fixture(scope="module")
def home(gateway, port) -> Path:
    folder = gateway.folder / "person"
    lead_curl(folder, {"9443": port})
    return folder


async def ask(port: int, authority: Path, path: str, body: Any = None, *, source: str = TRUSTED, **more: Any) -> Answer:
    """Asks from one of the addresses of this machine; `method`, `key` and `headers` may be given."""
    headers = dict(more.get("headers", {}))
    if more.get("key") is not None:
        headers["Authorization"] = f"Bearer {more['key']}"
    content = None if body is None else json.dumps(body).encode()
    data = write_request(more.get("method") or ("GET" if body is None else "POST"), path, content, headers)
    exchange = await send(port, data, ssl=trusting(authority), server_hostname="localhost", local_addr=(source, 0))
    return await exchange.read()


# --- what people have in their scripts


@pytest.mark.parametrize("name", LINES)
async def test_each_line_works_over_tls_with_the_printed_authority(gateway, authority, home, upstream, name):
    finished = await run_line(over_tls(LINES[name], authority), gateway.data, home)
    assert (finished.code, finished.errors) == (0, "")
    if name == "ollama models":
        assert finished.output.split() == ["ollama-gemma3-4b"]
        return
    shown = json.loads(finished.output)
    if "chat" in name:
        assert shown["choices"][0]["message"]["content"] in ("Hello", "Hallo aus Ollama")
    elif name == "models":
        assert "claude-h" in [model["id"] for model in shown["data"]]
    elif name == "facts":
        assert "claude-h" in [model["shortcode"] for model in shown]
    elif name == "health":
        assert shown["status"] == "ok"
    else:
        assert shown == {"content": "", "cache": False}


async def test_a_session_goes_on_from_one_listener_to_the_other(gateway, port, authority, upstream):
    body = {**hello("claude-h"), "session_id": "both", "stream": True}
    assert (await post(await port_of(gateway, HTTP), None, body)).events[-1] == "[DONE]"
    assert (await ask(port, authority, "/v1/chat/completions", body)).events[-1] == "[DONE]"
    assert [len(each["messages"]) for each in asked_of(upstream)] == [1, 3]
    assert len(history_of(gateway.data / ".sessions" / "claude-h-both.json")) == 4


async def documented_lines(run: Any) -> None:
    assert json.loads(await run(CHAT_LINE))["choices"][0]["message"]["content"] == "Hello"
    assert json.loads(await run("cat .sessions/claude-h-mein-projekt.json")).keys() == {"history"}
    assert await run("rm .sessions/claude-h-mein-projekt.json") == ""
    assert "kimi" not in await run(MODELS_LINE)
    assert len(json.loads(await run(MODEL_FACTS_LINE))) > 50
    assert json.loads(await run(HEALTH_LINE))["status"] == "ok"
    assert json.loads(await run(NEW_MEMORY_LINE)) == {"content": "Neuer Kontext", "cache": True}
    assert json.loads(await run(MEMORY_LINE))["content"] == "Neuer Kontext"
    assert await run(OLLAMA_MODELS_LINE) == "ollama-gemma3-4b\n"
    assert json.loads(await run(OLLAMA_CHAT_LINE))["choices"][0]["message"]["content"] == "Hallo aus Ollama"


@pytest.mark.skipif(not (is_free(9080) and is_free(9443)), reason="another program has port 9080 or 9443")
async def test_every_line_works_to_the_letter_on_the_documented_ports(tmp_path, server, ollama, upstream):
    options = options_for(server, ollama, lan_may_change_memory=True)
    async with running_gateway(tmp_path, **options) as running:
        listeners = await listeners_of(running)
        if any(listeners[name]["state"] != "open" for name in (HTTP, HTTPS)):
            pytest.skip("another program has taken port 9080 or 9443 meanwhile")
        await wait_for_models(9080, "ollama-gemma3-4b", "claude-h")
        authority = printed_authority(running)

        async def run(line: str, *, tls: bool) -> str:
            wanted = over_tls(line, authority) if tls and "curl" in line else line
            finished = await run_line(wanted, running.data, tmp_path)
            assert finished.code == 0, (wanted, finished.errors)
            return finished.output

        await documented_lines(lambda line: run(line, tls=False))
        await documented_lines(lambda line: run(line, tls=True))


# --- the certificate


async def curl(*arguments: str, home: Path) -> Finished:
    quoted = " ".join(f"'{argument}'" for argument in arguments)
    return await run_line(f"curl -sS {quoted}", home, home)


async def test_the_certificate_was_renewed_and_who_trusted_the_authority_still_does(
    gateway, former, authority, tmp_path, port
):
    certificates = gateway.data / "certs"
    assert authority == certificates / "authority.crt"
    assert authority.read_bytes() == former["authority"]
    assert (certificates / "server.crt").read_bytes() != former["certificate"]
    installed = tmp_path / "installed.crt"
    installed.write_bytes(former["authority"])
    for name in ("localhost", "127.0.0.1"):
        done = await curl("--cacert", str(installed), f"https://{name}:{port}/ping", home=tmp_path)
        assert (done.output, done.errors) == ("pong", "")


async def test_keys_are_for_their_owner_alone(gateway):
    certificates = gateway.data / "certs"
    assert certificates.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in certificates.glob("*.key")} == {
        "authority.key": 0o600,
        "server.key": 0o600,
    }


async def test_a_name_that_the_certificate_does_not_carry_fails(authority, tmp_path, port):
    there = ("--resolve", f"evil.example:{port}:127.0.0.1", f"https://evil.example:{port}/ping")
    done = await curl("--cacert", str(authority), *there, home=tmp_path)
    assert (done.code, done.output) == (60, "")


async def test_who_does_not_trust_the_authority_does_not_connect(tmp_path, port):
    done = await curl(f"https://localhost:{port}/ping", home=tmp_path)
    assert (done.code, done.output) == (60, "")


async def test_this_machines_other_addresses_and_names_are_in_the_certificate(authority, tmp_path, port):
    addresses = [address for address in machine_addresses() if address.version == 4]
    for host in (*machine_names(), *map(str, addresses)):
        context = trusting(authority)

        def shake_hands(host: str = host, context: ssl.SSLContext = context) -> str | None:
            with (
                socket.create_connection((TRUSTED, port), 10) as connection,
                context.wrap_socket(connection, server_hostname=host) as secured,
            ):
                return secured.version()

        assert shake_hands() in ("TLSv1.2", "TLSv1.3"), host


async def test_the_fingerprint_that_is_printed_is_that_of_the_authority(gateway, authority):
    shown = await run_line(f"openssl x509 -in '{authority}' -noout -fingerprint -sha256", gateway.data, gateway.data)
    assert shown.code == 0
    assert shown.output.strip().rpartition("=")[2] in gateway.output


async def test_without_tls_nothing_is_answered(port, upstream):
    exchange = await send(port, write_request("GET", "/ping", None, {}))
    assert not (await exchange.reader.read()).startswith(b"HTTP/")
    exchange.close()


# --- who is let in

SAYING_OTHERWISE = {
    "X-Forwarded-For": TRUSTED,
    "X-Real-IP": "192.168.0.7",
    "Forwarded": "for=10.0.0.1",
    "X-Forwarded-Host": "localhost",
}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("PUT", "/api/memory"),
        ("GET", "/ping"),
        ("GET", "/nothing"),
        ("OPTIONS", "/ping"),
    ],
)
@pytest.mark.parametrize("headers", [{}, SAYING_OTHERWISE], ids=["plainly", "with headers that say otherwise"])
async def test_a_foreign_peer_is_forbidden_whatever_it_says(port, authority, upstream, method, path, headers):
    body = hello("claude-h") if method in ("POST", "PUT") else None
    answer = await ask(port, authority, path, body, method=method, source=FOREIGN, headers=headers)
    assert (answer.status, answer.body) == (403, b"Forbidden\n")
    assert answer.headers["content-type"].partition(";")[0] == "text/plain"
    assert upstream.requests == []


async def test_a_key_opens_nothing_to_a_foreign_peer(gateway, port, authority, upstream):
    key = await new_key(gateway)
    body = hello("claude-h")
    for shown in (key, ADMIN_KEY):
        answer = await ask(port, authority, "/v1/chat/completions", body, source=FOREIGN, key=shown)
        assert (answer.status, answer.body) == (403, b"Forbidden\n")
    assert (await ask(port, authority, "/v1/chat/completions", body, key=key)).status == 200


async def test_curl_from_a_foreign_address_reads_forbidden(authority, tmp_path, port):
    there = ("--interface", FOREIGN, "-H", f"X-Forwarded-For: {TRUSTED}", f"https://localhost:{port}/api/health")
    done = await curl("-w", "%{http_code} %{content_type}", "--cacert", str(authority), *there, home=tmp_path)
    assert done.output.startswith("Forbidden\n403 text/plain")


async def test_a_trusted_peer_stays_one_whatever_its_headers_say(port, authority, upstream):
    foreign = {name: value.replace(TRUSTED, "203.0.113.9") for name, value in SAYING_OTHERWISE.items()}
    assert (await ask(port, authority, "/ping", headers=foreign)).status == 200


async def test_the_use_of_the_network_is_that_of_the_local_user(gateway, port, authority, upstream):
    answer = await ask(port, authority, "/v1/chat/completions", hello("claude-h"), key="dummy")
    row = await gateway.call(answer.headers["x-request-id"])
    assert (row["user_id"], row["key_id"]) == (2, "trusted-peer")


async def test_the_network_reads_the_memory_and_may_not_change_it(gateway, port, authority, upstream):
    block = {"content": "Neuer Kontext", "cache": True}
    answer = await ask(port, authority, "/api/memory", block, method="PUT")
    assert (answer.status, answer.error["type"]) == (403, "forbidden")
    for key in (await new_key(gateway), await new_key(gateway, "--role", "admin")):
        assert (await ask(port, authority, "/api/memory", block, method="PUT", key=key)).status == 403
    assert (await ask(port, authority, "/api/memory")).json == {"content": "", "cache": False}
    assert not (gateway.data / "memory.json").exists()


async def test_health_says_who_may_come(gateway):
    shown = (await listeners_of(gateway))[HTTPS]
    assert (shown["state"], shown["tls"], shown["peers"]) == ("open", True, NETWORKS)


# --- a listener that cannot be opened


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.mark.parametrize(("closed", "open_one"), [(HTTP, HTTPS), (HTTPS, HTTP)])
async def test_a_taken_port_closes_one_listener_and_no_other(tmp_path, server, ollama, closed, open_one):
    with taken_port() as number:
        ports = {"http_port": 0, "https_port": 0, "http_port" if closed == HTTP else "https_port": number}
        async with running_gateway(tmp_path, **options_for(server, ollama, **ports)) as running:
            shown = await listeners_of(running)
            assert {name: each["state"] for name, each in shown.items()} == {
                "main": "open",
                open_one: "open",
                closed: "down",
            }
            assert "another program listens there" in shown[closed]["reason"]
            assert str(number) in shown[closed]["reason"]
            assert str(number) in running.output
            assert (await get(running.port, None, "/health")).status == 200
            port = await port_of(running, open_one)
            if open_one == HTTPS:
                answer = await ask(port, printed_authority(running), "/ping")
            else:
                answer = await get(port, None, "/ping")
            assert answer.body == b"pong"
            await running.stop()


async def test_a_certificate_that_cannot_be_used_closes_its_listener_and_no_other(tmp_path, server, ollama):
    (tmp_path / "empty.pem").write_text("")
    own = {"certificate": str(tmp_path / "empty.pem"), "certificate_key": str(tmp_path / "empty.pem")}
    options = options_for(server, ollama, http_port=0, https_port=0, **own)
    async with running_gateway(tmp_path, **options) as running:
        shown = await listeners_of(running)
        assert (shown[HTTP]["state"], shown[HTTPS]["state"]) == ("open", "down")
        assert "empty.pem" in shown[HTTPS]["reason"]
        assert (await get(await port_of(running, HTTP), None, "/ping")).body == b"pong"
