"""Clients of Go Ollama API: each documented line to the letter, the documented refusals, and who may do what."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from stellwerk.api._guard import Routes
from stellwerk.api.go_ollama.endpoints import GoOllamaAPI
from stellwerk.core.clock import SystemClock
from stellwerk.core.principal import CALLERS as PAYERS
from stellwerk.core.principal import READERS, Access
from stellwerk.http.router import Router
from tests.authorisation_matrix import METHODS, ROWS, SENDING
from tests.callers import CALLERS, Caller, Cast
from tests.gateway_process import DEADLINE, GatewayProcess, running_gateway, wait_until
from tests.openai_client import new_key
from tests.people import People
from tests.raw_http import Answer, begin, get, post, send, write_request
from tests.scripted_upstream import Received, ScriptedUpstream, Talk, chat
from tests.sigorest_process import lead_curl, listeners_of, run_line

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEALTH_LINE = 'curl "http://localhost:8081/health?apikey=your-api-key"'
GENERATE_LINE = r"""curl -X POST http://localhost:8081/generate \
  -H "Content-Type: application/json" \
  -d '{
    "apikey": "your-api-key",
    "model": "llama2",
    "prompt": "Hello, how are you?",
    "stream": false,
    "images": [],
    "raw": false
  }'"""
IMAGES_LINE = r"""curl -X POST http://localhost:8081/generate \
  -H "Content-Type: application/json" \
  -d '{
    "apikey": "your-api-key",
    "model": "llava:34b",
    "prompt": "What do you see in this image?",
    "stream": false,
    "images": ["base64-encoded-image-data"],
    "raw": false
  }'"""
STREAM_LINE = r"""curl -X POST http://localhost:8081/generate \
  -H "Content-Type: application/json" \
  -d '{
    "apikey": "your-api-key",
    "model": "llama2",
    "prompt": "Write a long story about a space adventure",
    "stream": true,
    "images": [],
    "raw": false
  }'"""
"""What people have in their scripts and notes: to be run to the letter but for the key, by a shell."""
SERVICE_LINE = HEALTH_LINE.replace("8081", "8080")

ROUTES: dict[tuple[str, str], Access] = {("GET", "/health"): READERS, ("POST", "/generate"): PAYERS}
"""Who may use what. A route that is missing here fails."""
PRICED = {"model": "up/up", "prompt": "Hello"}
WORDS = ("Hel", "lo", "!")
PLAIN = {"Content-Type": "application/x-www-form-urlencoded"}
DATE = "2024-02-20T10:00:00.123456789Z"


# --- the gateway


async def speak_ollama(talk: Talk) -> None:
    path = talk.request.path
    if path == "/api/tags":
        await talk.answer({"models": [{"name": tag, "digest": tag} for tag in ("llama2:latest", "llava:34b")]})
    elif path == "/api/show":
        await talk.answer({"capabilities": ["completion", "vision"], "model_info": {}})
    elif path == "/api/generate" and talk.request.json["stream"]:
        await talk.start_stream()
        for line in lines_of(talk.request.json["model"]):
            await talk.chunk(line)
        await talk.finish_stream(done=False)
    elif path == "/api/generate":
        await talk.answer(ended(talk.request.json["model"], "I'm doing well, thank you for asking!"))
    else:
        await chat(talk)


def ended(model: str, text: str) -> dict[str, Any]:
    counts = {"total_duration": 9, "prompt_eval_count": 5, "eval_count": 2, "eval_duration": 1}
    return {"model": model, "created_at": DATE, "response": text, "done": True, "done_reason": "stop", **counts}


def lines_of(model: str) -> Iterator[bytes]:
    for word in WORDS:
        part = {"model": model, "created_at": DATE, "response": word, "done": False}
        yield json.dumps(part).encode() + b"\n"
    yield json.dumps(ended(model, "")).encode() + b"\n"


def asked_of(upstream: ScriptedUpstream) -> list[Received]:
    """What it was sent, but for the looks at its list of models, which come by themselves."""
    return [each for each in upstream.requests if each.path not in ("/api/tags", "/api/show")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(speak_ollama)
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
def upstream(server) -> Iterator[ScriptedUpstream]:
    server.requests.clear()
    yield server
    server.script = speak_ollama


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("go-ollama")


@pytest.fixture(scope="module")
def cast(folder) -> Iterator[Cast]:
    people = People(folder / "data")
    yield Cast(people)
    people.close()


@pytest.fixture(scope="module")
def callers(cast) -> dict[str, Caller]:
    return cast.callers()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder, server, callers) -> AsyncIterator[GatewayProcess]:
    config = {
        "compat": ["go-ollama-api"],
        "go_ollama": {"ports": [0, 0]},
        "discovery": {"ollama": True},
        "providers": {"up": {"base_url": server.url, "models": ["up"], "api_key": ""}},
        "limits": {"tiers": {"payg": {"requests_per_minute": 0}, "sub": {"requests_per_minute": 0}}},
        "money": {"wait_seconds": 0},
    }
    environment = {"OLLAMA_URL": server.url.removesuffix("/v1")}
    async with running_gateway(folder, config, environment=environment) as running:

        async def discovered() -> bool:
            return b"llava:34b" in (await get(running.port, running.key, "/api/tags")).body

        await wait_until(discovered)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ports(gateway) -> list[int]:
    found = await listeners_of(gateway)
    return [int(name.rpartition(" ")[2]) for name in found if name != "main"]


@pytest.fixture(scope="module")
def port(ports) -> int:
    return ports[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(gateway) -> str:
    return await new_key(gateway)


@pytest.fixture(scope="module")
def home(folder, ports) -> Path:
    lead_curl(folder / "person", dict(zip(("8080", "8081"), ports, strict=True)))
    return folder / "person"


@pytest.fixture
def run(home, key, tmp_path):
    async def with_key(line: str) -> str:
        finished = await run_line(line.replace("your-api-key", key), tmp_path, home)
        assert finished.code == 0, finished.errors
        return finished.output

    return with_key


def prompts(upstream: ScriptedUpstream) -> list[dict[str, Any]]:
    return [each.json for each in upstream.requests if each.path == "/api/generate"]


async def look(port: int, key: str) -> Answer:
    return await get(port, None, f"/health?apikey={quote(key)}")


async def generate(port: int, key: str | None, body: Any = PRICED) -> Answer:
    return await post(port, None, body if key is None else {**body, "apikey": key}, "/generate")


def refusal(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    return answer.status, answer.error


# --- what people have in their scripts


@pytest.mark.parametrize("line", [HEALTH_LINE, SERVICE_LINE])
async def test_the_line_for_health_is_answered_on_both_ports(run, line):
    said = json.loads(await run(line))
    assert said.keys() == {"status", "timestamp"}
    assert said["status"] == "API is healthy"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", said["timestamp"])


async def test_the_line_for_a_text_is_answered_as_ollama_answers(run, key, upstream):
    assert json.loads(await run(GENERATE_LINE)) == ended("llama2", "I'm doing well, thank you for asking!")
    asked = {"model": "llama2:latest", "prompt": "Hello, how are you?", "stream": False, "raw": False}
    assert prompts(upstream) == [{**asked, "truncate": False}]
    [sent] = asked_of(upstream)
    assert key not in f"{sent.headers} {sent.body!r}"


async def test_the_line_for_images_brings_them_to_the_model(run, upstream):
    assert json.loads(await run(IMAGES_LINE))["model"] == "llava:34b"
    assert prompts(upstream)[0]["images"] == ["base64-encoded-image-data"]


async def test_the_line_for_a_stream_gives_a_line_for_each_piece(run, upstream):
    lines = [json.loads(line) for line in (await run(STREAM_LINE)).splitlines()]
    assert [line["response"] for line in lines] == [*WORDS, ""]
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert prompts(upstream)[0]["stream"] is True


async def test_pieces_come_as_they_are_made_and_who_leaves_ends_the_call(port, key, upstream):
    left = asyncio.Event()

    async def say_one_word(talk: Talk) -> None:
        await talk.start_stream()
        await talk.chunk(next(lines_of("llama2:latest")))
        await talk.left.wait()
        left.set()

    upstream.script = say_one_word
    body = {"apikey": key, "model": "llama2", "prompt": "Hi", "stream": True}
    exchange = await begin(port, None, body, "/generate")
    assert await exchange.read_head() == 200
    assert exchange.headers["content-type"] == "application/x-ndjson"
    assert json.loads(await anext(exchange.pieces()))["response"] == WORDS[0]
    exchange.close()
    async with asyncio.timeout(DEADLINE):
        await left.wait()


async def test_a_model_of_another_provider_answers_in_the_same_form(port, key, upstream):
    answer = await generate(port, key)
    assert (answer.status, answer.json["response"], answer.json["done"]) == (200, "Hello", True)
    assert upstream.requests[-1].path == "/v1/chat/completions"


async def test_names_count_in_any_case_and_the_content_type_does_not(port, key, upstream):
    body = json.dumps({"ApiKey": key, "MODEL": "llama2", "Prompt": "Hi", "options": {"num_ctx": 9}}).encode()
    answer = await (await send(port, write_request("POST", "/generate", body, PLAIN))).read()
    assert answer.status == 200, answer.body
    assert prompts(upstream) == [{"model": "llama2:latest", "prompt": "Hi", "stream": False, "truncate": False}]


# --- refusals


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (PRICED, (400, "API key is required")),
        ({**PRICED, "apikey": ""}, (400, "API key is required")),
        (b"nonsense", (400, "Invalid request body")),
        (b"", (400, "Invalid request body")),
        ({**PRICED, "apikey": 7}, (400, "Invalid request body")),
        ({**PRICED, "apikey": "abc123"}, (403, "Invalid API key")),
        ({**PRICED, "apikey": "0123456789" * 4}, (403, "Invalid API key")),
    ],
)
async def test_a_request_without_a_good_key_is_refused_in_the_documented_words(port, upstream, body, expected):
    assert refusal(await post(port, None, body, "/generate")) == expected
    assert asked_of(upstream) == []


async def test_health_refuses_in_the_documented_words(port, gateway, cast, callers):
    assert refusal(await get(port, None, "/health")) == (400, "API key is required")
    assert refusal(await look(port, "abc123")) == (403, "Invalid API key")
    revoked = callers["a revoked key"].headers["Authorization"].removeprefix("Bearer ")
    assert refusal(await look(port, revoked)) == (403, "API key is deactivated")


async def test_an_unknown_model_and_a_wrong_value_are_named(port, key, upstream):
    unknown = await generate(port, key, {"model": "nonexistent-model", "prompt": "Hi"})
    assert refusal(unknown) == (404, "model 'nonexistent-model' not found")
    assert refusal(await generate(port, key, {**PRICED, "stream": "yes"})) == (400, "Invalid request body")
    assert asked_of(upstream) == []


async def test_an_upstream_that_fails_is_500_in_the_documented_words(port, key, upstream):
    async def fail(talk: Talk) -> None:
        await talk.answer({"error": "canary detail"}, status=500)

    upstream.script = fail
    assert refusal(await generate(port, key)) == (500, "Error making request to Ollama API")


async def test_the_eleventh_request_of_a_minute_is_refused_and_says_when_to_come_back(ports, gateway, upstream):
    limited, other = await new_key(gateway, "--requests-per-minute", "10"), await new_key(gateway)
    answers = [await generate(ports[number % 2], limited) for number in range(12)]
    assert [answer.status for answer in answers] == [200] * 10 + [429] * 2
    assert refusal(answers[-1]) == (429, "Rate limit exceeded. Try again later.")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    # A look is no request of the limit, and other keys have limits of their own.
    assert (await look(ports[0], limited)).status == 200
    assert (await generate(ports[0], other)).status == 200


# --- who may do what


async def test_the_table_has_each_route_and_no_other():
    class Nobody:
        """Never asked: the routes are only listed."""

    router = Router()
    GoOllamaAPI(Nobody(), SystemClock()).register(Routes(router, Nobody(), Nobody()))
    assert {(route.method, route.path): route.access for route in router} == ROUTES


def expected(caller: Caller, access: Access, *, paid: bool) -> int:
    if caller.refusal is not None or caller.role not in access:
        return 403
    return 402 if paid and not caller.pays else 200


@pytest.mark.parametrize("name", CALLERS)
async def test_each_caller_gets_what_the_table_says_by_the_documented_place_of_the_key_alone(
    port, upstream, callers, name
):
    caller = callers[name]
    headers = {field.replace("-", "_"): value for field, value in caller.headers.items()}
    in_headers = await begin(port, None, PRICED, f"/generate?{caller.query}&apikey=x", **headers)
    assert refusal(await in_headers.read()) == (400, "API key is required")
    asked = write_request("GET", f"/health?{caller.query}", None, caller.headers)
    assert refusal(await (await send(port, asked)).read()) == (400, "API key is required")
    assert asked_of(upstream) == []
    shown = caller.headers.get("Authorization", "").removeprefix("Bearer ") or caller.headers.get("X-Api-Key", "")
    if not shown or name == "another scheme":
        return
    assert (await look(port, shown)).status == expected(caller, ROUTES["GET", "/health"], paid=False)
    answer = await generate(port, shown)
    assert answer.status == expected(caller, ROUTES["POST", "/generate"], paid=True)
    assert len(asked_of(upstream)) == (answer.status == 200)


async def test_nothing_else_is_there_for_anybody(port, gateway, upstream):
    paths = {path for _, path in ROWS if "{" not in path} - {"/health"}
    for path in sorted(paths):
        answer = await get(port, gateway.key, f"{path}?apikey={gateway.key}")
        assert answer.status == 404, path
    for path in ("/health", "/generate"):
        for method in {*METHODS, "HEAD"} - {verb for verb, found in ROUTES if found == path} - {"HEAD"}:
            body = json.dumps({**PRICED, "apikey": gateway.key}).encode() if method in SENDING else None
            asked = write_request(method, f"{path}?apikey={gateway.key}", body, {})
            assert (await (await send(port, asked)).read()).status == 405, (method, path)
    assert asked_of(upstream) == []


async def test_a_key_in_the_query_counts_nowhere_else(gateway):
    assert (await get(gateway.port, None, f"/v1/models?apikey={gateway.key}")).status == 401


async def test_no_key_stands_in_a_log_or_in_the_data_folder(gateway, port, upstream):
    secret, unknown = await new_key(gateway), "0123456789abcdef" * 2 + "deadbeef"
    for shown in (secret, unknown):
        await look(port, shown)
        await generate(port, shown)
        await generate(port, shown, {"model": "nothing", "prompt": "Hi"})
        await get(port, None, f"/nowhere?apikey={shown}")
        await post(port, None, f'{{"apikey":"{shown}",'.encode(), "/generate")
    last = await generate(port, secret)
    await gateway.call(last.headers["x-request-id"])
    texts = [gateway.log.encode(), gateway.output.encode()]
    texts += [file.read_bytes() for file in gateway.data.rglob("*") if file.is_file()]
    texts += [each.body + str(each.headers).encode() for each in upstream.requests]
    for shown in (secret, unknown):
        assert not any(shown.encode() in text for text in texts)


# --- the listeners


async def test_a_port_that_is_taken_closes_only_its_own_listener(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        config = {"compat": ["go-ollama-api"], "go_ollama": {"ports": [number, 0]}}
        async with running_gateway(tmp_path, config) as running:
            states = {name: each["state"] for name, each in (await listeners_of(running)).items()}
            assert states.pop(f"go-ollama-api {number}") == "down"
            assert sorted(states.values()) == ["open", "open"]
            assert "One listener for clients of go-ollama-api stays closed." in running.output
            assert "For clients of go-ollama-api, with a key: http://127.0.0.1:" in running.output
            await running.stop()
        assert "Traceback" not in running.log
