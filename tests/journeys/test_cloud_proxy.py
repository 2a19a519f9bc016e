"""Clients of Ollama Cloud Proxy: each documented line to the letter, keys that take turns, and what stays shut."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ollama
import pytest
import pytest_asyncio

from stellwerk.core.principal import CALLERS as PAYERS
from stellwerk.core.principal import READERS
from tests.authorisation_matrix import METHODS, ROWS, SENDING
from tests.callers import CALLERS, Caller, Cast
from tests.gateway_process import DEADLINE, GatewayProcess, running_gateway, wait_until
from tests.people import People
from tests.raw_http import Answer, begin, get, post, send, write_request
from tests.real_engines import free_ports
from tests.scripted_upstream import ScriptedUpstream, Talk, chat, chunk, usage_chunk
from tests.sigorest_process import lead_curl, listeners_of, port_of, run_line

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPAT = "ollama-cloud-proxy"
TOKEN = "dein_geheimes_passwort_fuer_lokal"
KEYS = ("first-canary-key-5f0c", "second-canary-key-77a1", "third-canary-key-9e42")
GENERATE_LINE = r"""curl http://localhost:11434/api/generate \
  -H "Authorization: Bearer dein_geheimes_passwort_fuer_lokal" \
  -d '{
    "model": "llama3",
    "prompt": "Warum ist der Himmel blau?",
    "stream": false
  }'"""
OPEN_LINE = r"""curl http://localhost:11434/api/generate \
  -d '{
    "model": "llama3",
    "prompt": "Warum ist der Himmel blau?",
    "stream": false
  }'"""
STATS_LINE = "curl http://localhost:11434/stats"
STATE_LINE = "curl http://localhost:11434/"
"""What people have in their scripts and notes: to be run to the letter, by a shell."""

REFUSED = "Unauthorized: Missing or invalid token"
QUOTA = {"error": "you've reached your hourly usage limit, please wait or upgrade to continue"}
WORDS = ("Hel", "lo", "!")
DATE = "2024-02-20T10:00:00.123456789Z"
HELLO = [{"role": "user", "content": "Hello"}]

ASKING: dict[str, Any] = {
    "/generate": {"model": "llama3", "prompt": "Hello", "stream": False},
    "/chat": {"model": "llama3", "messages": HELLO, "stream": False},
    "/embed": {"model": "llama3", "input": "Hello"},
    "/embeddings": {"model": "llama3", "prompt": "Hello"},
    "/show": {"model": "llama3"},
    "/web_search": {"query": "Hello"},
    "/web_fetch": {"url": "https://example.org"},
}
ASKING_OPENAI: dict[str, Any] = {
    "/v1/chat/completions": {"model": "llama3", "messages": HELLO},
    "/v1/completions": {"model": "llama3", "prompt": "Hello"},
    "/v1/embeddings": {"model": "llama3", "input": "Hello"},
}
LISTS = ("/tags", "/ps", "/version")
PREFIXES = ("/api", "", "/api/api")
FREE = ("/show",)
"""What the cloud answers is passed on, and no money of ours is asked for it."""
SEARCHES = ("/api/web_search", "/web_fetch")
ROUTES = {
    **{("POST", f"{prefix}{path}"): PAYERS for prefix in PREFIXES for path in ASKING},
    **{("POST", f"{prefix}/show"): READERS for prefix in PREFIXES},
    **{("POST", path): PAYERS for path in ASKING_OPENAI},
    **{("GET", f"{prefix}{path}"): READERS for prefix in PREFIXES for path in LISTS},
    ("GET", "/v1/models"): READERS,
    ("GET", "/"): READERS,
    ("GET", "/stats"): READERS,
}
"""Who may use what. Of these the last two are for every program on this machine."""
FORBIDDEN = (
    *(f"{prefix}/{name}" for prefix in PREFIXES for name in ("pull", "push", "create", "copy", "delete")),
    "/api/blobs/sha256:0123",
    "/api/me",
    "/api/usage",
    "/api/keys",
    "/api/api/api/generate",
    "/api/api",
    "/api/experimental/web_search",
    "/api",
    "/v1/responses",
    "/v1/messages",
    "/v1/files",
    "/v1/models/llama3",
    "/api/v1/chat/completions",
)


# --- the cloud


def ended(model: str, **said: Any) -> dict[str, Any]:
    counts = {"total_duration": 9, "prompt_eval_count": 5, "eval_count": 2, "eval_duration": 1}
    return {"model": model, "created_at": DATE, **said, "done": True, "done_reason": "stop", **counts}


def said_of(path: str, text: str) -> dict[str, Any]:
    return {"response": text} if path == "/api/generate" else {"message": {"role": "assistant", "content": text}}


def lines_of(path: str, model: str) -> Iterator[bytes]:
    for word in WORDS:
        part = {"model": model, "created_at": DATE, **said_of(path, word), "done": False}
        yield json.dumps(part).encode() + b"\n"
    yield json.dumps(ended(model, **said_of(path, ""))).encode() + b"\n"


async def speak_cloud(talk: Talk) -> None:
    request = talk.request
    path = request.path.partition("?")[0]
    if path == "/api":
        await talk.answer({"error": "path not found"}, status=404)
    elif request.headers.get("authorization", "").removeprefix("Bearer ") not in KEYS:
        await talk.answer({"error": "unauthorized"}, status=401)
    elif path == "/api/tags":
        names = ("llama3", "gpt-oss:120b")
        await talk.answer({"models": [{"name": name, "model": name, "digest": name} for name in names]})
    elif path == "/api/show":
        await talk.answer({"capabilities": ["completion", "embedding"], "model_info": {}})
    elif path == "/v1/models":
        await talk.answer({"object": "list", "data": [{"id": "llama3", "object": "model"}]})
    elif path in ("/api/ps", "/api/version", "/api/web_search", "/api/web_fetch"):
        await talk.answer({"path": path})
    elif path in ("/api/generate", "/api/chat") and request.json["stream"]:
        await talk.start_stream()
        for line in lines_of(path, request.json["model"]):
            await talk.chunk(line)
        await talk.finish_stream(done=False)
    elif path in ("/api/generate", "/api/chat"):
        await talk.answer(ended(request.json["model"], **said_of(path, "Rayleigh")))
    elif path == "/api/embed":
        vectors = {"model": request.json["model"], "embeddings": [[0.5, 0.25]], "prompt_eval_count": 4}
        await talk.answer(vectors)
    elif path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        await talk.answer({"object": "list", "model": request.json["model"], "data": data, "usage": usage})
    elif path == "/v1/completions":
        choice = {"index": 0, "text": "Rayleigh", "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": request.json["model"]}
        await talk.answer({**head, "choices": [choice], "usage": usage})
    else:
        await chat(talk)


@dataclass
class LimitedCloud:
    """Answers as the cloud, but 429 for keys whose quota is used up."""

    used_up: set[str] = field(default_factory=set)
    refusal: dict[str, str] = field(default_factory=lambda: dict(QUOTA))

    async def __call__(self, talk: Talk) -> None:
        if talk.request.headers.get("authorization", "").removeprefix("Bearer ") in self.used_up:
            await talk.answer(self.refusal, status=429)
        else:
            await speak_cloud(talk)


def key_of(request: Any) -> int:
    return KEYS.index(request.headers["authorization"].removeprefix("Bearer "))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    made = ScriptedUpstream(speak_cloud)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def cloud(server) -> Iterator[ScriptedUpstream]:
    server.script = speak_cloud
    server.requests.clear()
    yield server
    server.script = speak_cloud


def asked(cloud: ScriptedUpstream) -> list[str]:
    """What reached the cloud but for discovery, which asks for lists whenever it likes, and the look whether it is
    there."""
    return [each.path for each in cloud.requests if each.path not in ("/api/tags", "/api/show", "/api")]


# --- gateways


def settings_for(server: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    own = {"port": 0, "base_url": server.url.removesuffix("/v1"), **more}
    # Nothing is asked for models again while a test looks at what is asked.
    return {
        "compat": [COMPAT],
        "ollama_cloud_proxy": own,
        "discovery": {"refresh_seconds": 3600},
        "limits": {"tiers": {"payg": {"requests_per_minute": 0}, "sub": {"requests_per_minute": 0}}},
        "money": {"wait_seconds": 0},
    }


async def discovered(running: GatewayProcess, server: ScriptedUpstream) -> None:
    """Waits until the cloud was asked for all that it is asked for, and the gateway has taken the answers in."""

    async def listed() -> bool:
        if [each.path for each in server.requests].count("/api/show") < 2:
            return False
        models = (await get(running.port, running.key, "/v1/models")).json["data"]
        return {"ollama-cloud/llama3", "ollama-cloud/gpt-oss:120b"} <= {model["id"] for model in models}

    await wait_until(listed)


@asynccontextmanager
async def proxy(
    folder: Path, server: ScriptedUpstream, environment: Mapping[str, str], **more: Any
) -> AsyncIterator[tuple[GatewayProcess, int]]:
    config = settings_for(server, **more)
    async with running_gateway(folder, config, environment=environment) as running:
        await discovered(running, server)
        yield running, await port_of(running, COMPAT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cloud-proxy")


@pytest.fixture(scope="module")
def cast(folder) -> Iterator[Cast]:
    people = People(folder / "data")
    yield Cast(people)
    people.close()


@pytest.fixture(scope="module")
def callers(cast) -> dict[str, Caller]:
    return cast.callers()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(folder, server, callers) -> AsyncIterator[tuple[GatewayProcess, int]]:
    environment = {"OLLAMA_API_KEYS": f" {KEYS[0]} ,, {KEYS[1]},{KEYS[2]}", "PROXY_AUTH_TOKEN": TOKEN}
    environment["ALLOW_UNAUTHENTICATED_ACCESS"] = "false"
    async with proxy(folder, server, environment) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(started) -> GatewayProcess:
    return started[0]


@pytest.fixture(scope="module")
def port(started) -> int:
    return started[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_port(tmp_path_factory, server) -> AsyncIterator[int]:
    environment = {"OLLAMA_API_KEY": KEYS[0], "ALLOW_UNAUTHENTICATED_ACCESS": "True"}
    async with proxy(tmp_path_factory.mktemp("open"), server, environment) as (_, number):
        yield number


async def run_documented(line: str, folder: Path, port: int) -> str:
    lead_curl(folder / "person", {"11434": port})
    finished = await run_line(line, folder, folder / "person")
    assert finished.code == 0, finished.errors
    return finished.output


async def stats(port: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await get(port, None, "/stats")).json
    return rows


async def used(port: int, model: str, key: int = 0, *, requests: int = 1) -> tuple[int, int, int]:
    """Requests and tokens that were counted for a model at one key, once there are so many: an answer does not wait for
    that."""

    async def counted() -> tuple[int, int, int] | None:
        rows = [row for row in await stats(port) if row["key_index"] == key and row["model"] == model]
        sums = [sum(row[name] for row in rows) for name in ("requests", "prompt_tokens", "completion_tokens")]
        return (sums[0], sums[1], sums[2]) if sums[0] >= requests else None

    found: tuple[int, int, int] = await wait_until(counted)
    return found


def refusal(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["detail"] == (answer.error["message"] if isinstance(answer.error, dict) else answer.error)
    return answer.status, answer.json["detail"]


# --- what people have in their scripts


async def test_the_line_with_a_token_is_answered_by_the_cloud(port, cloud, tmp_path):
    said = json.loads(await run_documented(GENERATE_LINE, tmp_path, port))
    assert said == ended("llama3", response="Rayleigh")
    [sent] = cloud.requests
    assert (sent.method, sent.path, key_of(sent)) == ("POST", "/api/generate", 0)
    assert sent.json["prompt"] == "Warum ist der Himmel blau?"
    assert TOKEN not in f"{sent.headers} {sent.body!r}"


async def test_the_line_without_a_token_is_answered_where_that_is_allowed(open_port, port, cloud, tmp_path):
    assert json.loads(await run_documented(OPEN_LINE, tmp_path, open_port))["response"] == "Rayleigh"
    assert len(cloud.requests) == 1
    refused = await run_documented(OPEN_LINE, tmp_path, port)
    assert json.loads(refused) == {"error": REFUSED, "detail": REFUSED}
    assert len(cloud.requests) == 1


async def test_the_line_for_statistics_gives_the_documented_rows(port, cloud, tmp_path):
    begun = datetime.now(UTC)
    await post(port, TOKEN, {**ASKING["/generate"], "model": "shown"}, "/generate")
    assert await used(port, "shown") == (1, 5, 2)
    rows = json.loads(await run_documented(STATS_LINE, tmp_path, port))
    names = ["date", "hour", "key_index", "model", "requests", "prompt_tokens", "completion_tokens"]
    assert all(list(row) == names for row in rows)
    hours = {(f"{at:%Y-%m-%d}", f"{at:%H}") for at in (begun, datetime.now(UTC))}
    assert (rows[0]["date"], rows[0]["hour"]) in hours


async def test_the_line_for_the_state_says_whether_the_cloud_is_there_and_what_was_used(port, cloud, tmp_path):
    said = json.loads(await run_documented(STATE_LINE, tmp_path, port))
    assert (said["status"], said["ollama_cloud"]) == ("ok", "reachable")
    assert said["usage_summary"].keys() == {"total_req", "p_tokens", "c_tokens"}
    assert said["usage_summary"]["total_req"] == sum(row["requests"] for row in await stats(port))
    # Whoever asks often does not make the gateway ask as often.
    await asyncio.gather(*(get(port, None, "/") for _ in range(20)))
    assert sum(each.path == "/api" for each in cloud.requests) <= 1


async def test_a_client_that_looks_for_a_server_finds_one(port, cloud):
    asked_for = write_request("HEAD", "/", None, {})
    exchange = await send(port, asked_for)
    assert await exchange.read_head() == 200
    exchange.close()
    assert cloud.requests == []


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ASKING)
async def test_each_path_leads_to_the_clouds_with_and_without_its_prefix(port, cloud, prefix, path):
    answer = await post(port, TOKEN, ASKING[path], prefix + path)
    assert answer.status == 200, answer.body
    [sent] = cloud.requests
    assert sent.path == {"/embeddings": "/api/embed"}.get(path, f"/api{path}")
    assert sent.json.items() >= {name: value for name, value in ASKING[path].items() if name != "prompt"}.items()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", LISTS)
async def test_each_list_is_the_clouds_own(port, cloud, prefix, path):
    answer = await get(port, TOKEN, f"{prefix}{path}?verbose=1")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    [sent] = cloud.requests
    assert (sent.method, sent.path, key_of(sent)) == ("GET", f"/api{path}?verbose=1", 0)


async def test_openais_paths_lead_to_the_clouds(port, cloud):
    for path, body in ASKING_OPENAI.items():
        answer = await post(port, TOKEN, body, path)
        assert (answer.status, answer.json["model"]) == (200, "llama3")
    assert (await get(port, TOKEN, "/v1/models")).json["data"][0]["id"] == "llama3"
    assert [each.path for each in cloud.requests] == [*ASKING_OPENAI, "/v1/models"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream", "text/html", ""])
@pytest.mark.parametrize("path", ["/api/generate", "/show", "/v1/chat/completions"])
async def test_a_body_is_json_whatever_it_is_called(port, cloud, kind, path):
    body = {**ASKING["/generate"], "messages": HELLO}
    fields = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
    answer = await (await send(port, write_request("POST", path, json.dumps(body).encode(), fields))).read()
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("mark", ["-cloud", ":cloud", "-CLOUD"])
async def test_names_of_a_local_ollama_reach_the_cloud_in_its_own_words_and_come_back_as_they_were(port, cloud, mark):
    name = f"gpt-oss:120b{mark}"
    native = await post(port, TOKEN, {**ASKING["/chat"], "model": name}, "/api/chat")
    streamed = await post(port, TOKEN, {"model": name, "prompt": "Hi"}, "/api/generate")
    openai = await post(port, TOKEN, {**ASKING_OPENAI["/v1/chat/completions"], "model": name}, "/v1/chat/completions")
    await post(port, TOKEN, {"model": name}, "/api/show")
    assert [each.json["model"] for each in cloud.requests] == ["gpt-oss:120b"] * 4
    assert {native.json["model"], openai.json["model"]} == {name}
    assert {json.loads(line)["model"] for line in streamed.body.splitlines()} == {name}


async def test_who_says_nothing_of_a_stream_gets_one(port, cloud):
    answer = await post(port, TOKEN, {"model": "llama3", "messages": HELLO}, "/chat")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [line["message"]["content"] for line in lines] == [*WORDS, ""]


def ollama_client(port: int, token: str) -> ollama.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    return ollama.AsyncClient(host=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=DEADLINE)


async def test_ollamas_own_client_works_with_the_cloud_here(port, cloud):
    async with ollama_client(port, TOKEN) as client:
        listed = await client.list()
        assert [model.model for model in listed.models] == ["llama3", "gpt-oss:120b"]
        assert (await client.show("gpt-oss:120b-cloud")).capabilities == ["completion", "embedding"]
        assert (await client.chat("llama3", HELLO)).message.content == "Rayleigh"
        pieces = [piece async for piece in await client.generate("gpt-oss:120b-cloud", "Hi", stream=True)]
        assert "".join(piece.response for piece in pieces) == "".join(WORDS)
        assert {piece.model for piece in pieces} == {"gpt-oss:120b-cloud"}
        assert (await client.embed("llama3", "Hi")).embeddings == [[0.5, 0.25]]
        with pytest.raises(ollama.ResponseError) as caught:
            await client.pull("llama3")
        assert caught.value.status_code == 404


async def test_ollamas_own_client_without_the_token_reads_the_documented_words(port, cloud):
    async with ollama_client(port, "wrong") as client:
        with pytest.raises(ollama.ResponseError, match=REFUSED):
            await client.list()


# --- what is counted


async def test_every_form_of_answer_is_counted(port, cloud):
    chat_body = ASKING_OPENAI["/v1/chat/completions"]
    expected = [
        ("/api/generate", ASKING["/generate"], (1, 5, 2)),
        ("/chat", {**ASKING["/chat"], "stream": True}, (1, 5, 2)),
        ("/v1/chat/completions", chat_body, (1, 5, 2)),
        ("/v1/chat/completions", {**chat_body, "stream": True}, (1, 5, 2)),
        ("/v1/completions", ASKING_OPENAI["/v1/completions"], (1, 5, 2)),
        ("/api/embed", ASKING["/embed"], (1, 4, 0)),
        ("/api/embeddings", ASKING["/embeddings"], (1, 4, 0)),
        ("/v1/embeddings", ASKING_OPENAI["/v1/embeddings"], (1, 4, 0)),
    ]
    for number, (path, body, counts) in enumerate(expected):
        model = f"form-{number}"
        assert (await post(port, TOKEN, {**body, "model": model}, path)).status == 200
        assert await used(port, model) == counts, path


async def test_an_answer_that_comes_in_single_bytes_is_counted(port, cloud):
    async def dribble(talk: Talk) -> None:
        await talk.start_stream()
        for byte in b"".join(lines_of("/api/generate", "llama3")):
            await talk.chunk(bytes((byte,)))
        await talk.finish_stream(done=False)

    cloud.script = dribble
    assert (await post(port, TOKEN, {"model": "dribbled", "prompt": "Hi"}, "/generate")).status == 200
    assert await used(port, "dribbled") == (1, 5, 2)


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions"])
async def test_a_stream_that_the_cloud_cuts_is_counted(port, cloud, path):
    async def cut(talk: Talk) -> None:
        await talk.start_stream()
        if path == "/api/generate":
            await talk.chunk(next(lines_of(path, "llama3")))
        else:
            await talk.event(chunk("Hello", model="llama3"))
        talk.cut()

    cloud.script = cut
    model = f"cut-{len(path)}"
    exchange = await begin(port, TOKEN, {"model": model, "prompt": "Hi", "messages": HELLO, "stream": True}, path)
    assert b"error" in (await exchange.read()).body
    requests, read, written = await used(port, model)
    assert requests == 1
    assert min(read, written) > 0


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions"])
async def test_a_stream_that_its_client_leaves_is_counted_and_ended(port, cloud, path):
    left = asyncio.Event()

    async def say_one_word(talk: Talk) -> None:
        await talk.start_stream()
        if path == "/api/generate":
            await talk.chunk(next(lines_of(path, "llama3")))
        else:
            await talk.event(chunk("Hello", model="llama3"))
        await talk.left.wait()
        left.set()

    cloud.script = say_one_word
    model = f"left-{len(path)}"
    exchange = await begin(port, TOKEN, {"model": model, "prompt": "Hi", "messages": HELLO, "stream": True}, path)
    await exchange.read_head()
    await anext(exchange.pieces())
    exchange.close()
    async with asyncio.timeout(DEADLINE):
        await left.wait()
    requests, read, written = await used(port, model)
    assert requests == 1
    assert min(read, written) > 0


async def test_a_stream_that_is_cut_behind_its_count_keeps_the_count(port, cloud):
    async def cut(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Hello", model="llama3"))
        await talk.event(usage_chunk(model="llama3", prompt=50, output=20))
        talk.cut()

    cloud.script = cut
    body = {"model": "counted", "messages": HELLO, "stream": True}
    await (await begin(port, TOKEN, body, "/v1/chat/completions")).read()
    assert await used(port, "counted") == (1, 50, 20)


async def test_what_the_cloud_refuses_is_no_use_of_a_key(port, cloud):
    async def unknown(talk: Talk) -> None:
        await talk.answer({"error": "model 'nothing' not found"}, status=404)

    cloud.script = unknown
    answer = await post(port, TOKEN, {**ASKING["/generate"], "model": "nothing"}, "/generate")
    assert refusal(answer) == (404, "model 'nothing' not found")
    cloud.script = speak_cloud
    # What came later is counted, so what came before would be too.
    await post(port, TOKEN, {**ASKING["/generate"], "model": "something"}, "/generate")
    await used(port, "something")
    assert "nothing" not in {row["model"] for row in await stats(port)}


# --- who may come in


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", ""])
@pytest.mark.parametrize("path", ["/api/generate", "/generate", "/v1/chat/completions", "/api/web_search"])
async def test_a_token_that_is_missing_or_wrong_is_401_in_the_documented_words(port, cloud, authorization, path):
    fields = {} if authorization is None else {"Authorization": authorization}
    body = json.dumps({**ASKING["/generate"], "messages": HELLO, "query": "x"}).encode()
    answer = await (await send(port, write_request("POST", path, body, fields))).read()
    assert refusal(answer) == (401, REFUSED)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert cloud.requests == []


async def test_a_key_of_the_gateway_is_as_good_and_its_user_is_who_asked(port, gateway, cast, cloud):
    key = cast.first_key.token
    own = await post(port, key, ASKING["/generate"], "/api/generate")
    shared = await post(port, TOKEN, ASKING["/generate"], "/api/generate")
    rows = [await gateway.call(each.headers["x-request-id"]) for each in (own, shared)]
    assert rows[0]["user_id"] == cast.first
    assert rows[1]["key_id"] == "trusted-peer"
    assert rows[1]["user_id"] != cast.first
    assert {row["provider"] for row in rows} == {"ollama-cloud"}


async def test_a_token_in_the_query_counts_for_nothing(port, cloud):
    asked_for = f"/api/generate?token={TOKEN}&api_key={TOKEN}&key={TOKEN}"
    assert refusal(await post(port, None, ASKING["/generate"], asked_for)) == (401, REFUSED)


async def test_the_open_mode_takes_whatever_a_program_shows_here(open_port, cloud):
    for shown in (None, "ollama", "dummy"):
        assert (await post(open_port, shown, ASKING["/generate"], "/generate")).status == 200
    # Who means to be somebody is not let in as somebody else.
    unknown = await post(open_port, "sk-sw-aaaaaaaaaa-" + "x" * 43, ASKING["/generate"], "/generate")
    assert refusal(unknown) == (401, REFUSED)


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=203.0.113.7"},
        {"X-Real-Ip": "203.0.113.7"},
    ],
)
async def test_the_open_mode_is_for_this_machine_and_not_for_what_a_proxy_here_passes_on(
    open_port, port, cloud, fields
):
    body = json.dumps(ASKING["/generate"]).encode()
    answer = await (await send(open_port, write_request("POST", "/api/generate", body, fields))).read()
    assert refusal(answer) == (401, REFUSED)
    for path in ("/", "/stats"):
        shut = await (await send(port, write_request("GET", path, None, fields))).read()
        assert refusal(shut) == (401, REFUSED)
        with_token = {**fields, "Authorization": f"Bearer {TOKEN}"}
        assert (await (await send(port, write_request("GET", path, None, with_token))).read()).status == 200
    assert asked(cloud) == []


@pytest.mark.parametrize("fields", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_the_page_of_another_site_may_not_use_the_open_mode(open_port, cloud, fields):
    body = json.dumps(ASKING["/generate"]).encode()
    answer = await (await send(open_port, write_request("POST", "/api/generate", body, fields))).read()
    assert answer.status == 403
    assert cloud.requests == []


def bare(path: str) -> str:
    return path.removeprefix("/api").removeprefix("/api")


def expected(caller: Caller, method: str, path: str) -> int:
    if caller.refusal is not None:
        return caller.refusal[0]
    if caller.role not in ROUTES[method, path]:
        return 403
    free = method == "GET" or bare(path) in FREE
    return 200 if free or caller.pays else 402


@pytest.mark.parametrize("name", CALLERS)
async def test_each_caller_gets_what_the_table_says(port, cloud, callers, name):
    caller = callers[name]
    for method, path in ROUTES:
        body = {**ASKING, **ASKING_OPENAI}.get(bare(path))
        content = None if method == "GET" else json.dumps(body).encode()
        before = len(asked(cloud))
        sent = write_request(method, f"{path}?{caller.query}", content, caller.headers)
        answer = await (await send(port, sent)).read()
        if path in ("/", "/stats") and not str(caller.headers).count("sk-sw-"):
            assert answer.status == 200
            continue
        assert answer.status == expected(caller, method, path), (method, path, answer.body)
        assert len(asked(cloud)) == before or answer.status == 200


@pytest.mark.parametrize("path", SEARCHES)
async def test_searches_count_among_the_requests_of_a_key(port, gateway, cloud, path):
    made = await gateway.run("keys", "create", f"two-{path[-5:]}", "--requests-per-minute", "2")
    key = made.output.strip()
    statuses = [(await post(port, key, ASKING[bare(path)], path)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert len(asked(cloud)) == 2


@pytest.mark.parametrize("path", SEARCHES)
async def test_a_key_for_certain_models_does_not_search(port, gateway, cloud, path):
    made = await gateway.run("keys", "create", f"one-{path[-5:]}", "--models", "ollama-cloud/llama3")
    answer = await post(port, made.output.strip(), ASKING[bare(path)], path)
    assert refusal(answer) == (403, "This API key is for certain models only.")
    assert asked(cloud) == []


@pytest.mark.parametrize("path", SEARCHES)
async def test_a_search_takes_nothing_from_who_pays(port, gateway, cloud, path):
    address = f"searcher{path[-5:]}@example.org"
    assert (await gateway.run("users", "create", address, "--balance", "0.000001")).code == 0
    key = (await gateway.run("keys", "create", f"paying-{path[-5:]}", "--user", address)).output.strip()
    statuses = [(await post(port, key, ASKING[bare(path)], path)).status for _ in range(2)]
    assert statuses == [200, 200]
    assert len(asked(cloud)) == 2


# --- what stays shut


@pytest.mark.parametrize("path", FORBIDDEN)
async def test_nothing_else_reaches_the_cloud_with_any_method(port, cloud, path):
    for method in {*METHODS, "HEAD"}:
        body = json.dumps({"model": "llama3"}).encode() if method in SENDING else None
        exchange = await send(port, write_request(method, path, body, {"Authorization": f"Bearer {TOKEN}"}))
        assert await exchange.read_head() in (404, 405), (method, path)
        if method != "HEAD":
            assert refusal(await exchange.read())[0] == exchange.status
        exchange.close()
    assert cloud.requests == []


async def test_a_path_takes_its_own_method_and_no_other(port, cloud):
    for path in sorted({path for _, path in ROUTES}):
        taken = {method for method, found in ROUTES if found == path}
        for method in set(METHODS) - taken - ({"HEAD"} if "GET" in taken else set()):
            body = b"{}" if method in SENDING else None
            fields = {"Authorization": f"Bearer {TOKEN}"}
            exchange = await send(port, write_request(method, path, body, fields))
            assert await exchange.read_head() == 405, (method, path)
            exchange.close()
    assert cloud.requests == []


async def test_the_gateways_own_paths_are_not_here(port, gateway, cloud):
    paths = {path for _, path in ROWS if "{" not in path} - {path for _, path in ROUTES}
    for path in sorted(paths):
        assert (await get(port, gateway.key, path)).status == 404, path
    assert cloud.requests == []


@pytest.mark.parametrize("target", ["/api/../api/me", "/api/%2e%2e/me", "//api/generate", "/api/tags/../me"])
async def test_no_way_of_writing_a_path_leads_elsewhere(port, cloud, target):
    answer = await get(port, TOKEN, target)
    assert answer.status in (400, 404)
    assert cloud.requests == []


async def test_a_question_without_a_model_or_without_json_is_named_and_goes_nowhere(port, cloud):
    assert refusal(await post(port, TOKEN, {"prompt": "Hi"}, "/generate")) == (400, "model is required")
    for path in ("/generate", "/show", "/web_search", "/v1/chat/completions"):
        assert refusal(await post(port, TOKEN, b"nonsense", path))[0] == 400
    assert cloud.requests == []


# --- keys that take turns


async def test_a_key_that_is_used_up_is_followed_by_the_next_which_stays(tmp_path, server, cloud):
    cloud.script = limited = LimitedCloud({KEYS[0]})
    environment = {"OLLAMA_API_KEYS": ",".join(KEYS), "PROXY_AUTH_TOKEN": TOKEN}
    async with running_gateway(tmp_path, settings_for(server), environment=environment) as running:
        port = await port_of(running, COMPAT)
        await discovered(running, server)
        cloud.requests.clear()
        answers = await asyncio.gather(*(post(port, TOKEN, ASKING["/generate"], "/generate") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        # Discovery has met the used up key already: who comes later is not sent there again.
        assert {key_of(each) for each in cloud.requests} == {1}
        assert await used(port, "llama3", key=1, requests=20) == (20, 100, 40)
        assert {row["key_index"] for row in await stats(port)} == {1}

        limited.used_up |= {KEYS[1]}
        cloud.requests.clear()
        stream = await post(port, TOKEN, {"model": "llama3", "prompt": "Hi"}, "/generate")
        lists = await get(port, TOKEN, "/api/tags")
        assert (stream.status, lists.status) == (200, 200)
        assert [key_of(each) for each in cloud.requests] == [1, 2, 2]
        assert await used(port, "llama3", key=2) == (1, 5, 2)

        limited.used_up |= {KEYS[2]}
        for path in ("/api/generate", "/v1/chat/completions"):
            refused = await post(port, TOKEN, {**ASKING["/generate"], "messages": HELLO}, path)
            assert refusal(refused) == (429, "All API keys have exceeded quota")
            assert int(refused.headers["retry-after"]) > 60
        assert refusal(await get(port, TOKEN, "/api/tags")) == (429, "All API keys have exceeded quota")
        details = (await get(running.port, running.key, "/health/details")).body
        texts = [running.log.encode(), details, refused.body]
        assert not any(key.encode() in text for key in KEYS for text in texts)


async def test_one_key_alone_passes_the_clouds_own_words_on(open_port, cloud):
    cloud.script = LimitedCloud({KEYS[0]}, {"error": "you (alice) have reached your session usage limit"})
    answer = await post(open_port, None, ASKING["/generate"], "/api/generate", timeout="1")
    assert refusal(answer) == (429, "you (alice) have reached your session usage limit")


# --- where it starts and where it does not


async def test_a_file_of_keys_goes_before_the_environment(tmp_path, server, cloud):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(f'keys:\n  - "{KEYS[2]}"\n  - " "\n')
    async with proxy(tmp_path, server, {"OLLAMA_API_KEYS": KEYS[0], "PROXY_AUTH_TOKEN": TOKEN}) as (_, port):
        assert (await post(port, TOKEN, ASKING["/generate"], "/generate")).status == 200
        assert {key_of(each) for each in cloud.requests} == {2}


async def test_without_token_and_open_mode_every_call_says_what_is_missing(tmp_path, server, cloud):
    async with proxy(tmp_path, server, {"OLLAMA_API_KEYS": KEYS[0]}) as (running, port):
        missing = "Server configuration error: PROXY_AUTH_TOKEN is not set"
        for shown in (None, "anything"):
            for path in ("/api/generate", "/v1/chat/completions"):
                answer = await post(port, shown, {**ASKING["/generate"], "messages": HELLO}, path)
                assert refusal(answer) == (500, missing)
        assert asked(cloud) == []
        assert (await get(port, None, "/")).status == 200
        # Keys of the gateway need no token beside them.
        assert (await post(port, running.key, ASKING["/generate"], "/generate")).status == 200
        await wait_until(lambda: "PROXY_AUTH_TOKEN" in running.log)


async def test_without_keys_the_listener_stays_closed_and_says_why(tmp_path):
    config = {"compat": [COMPAT], "ollama_cloud_proxy": {"port": 0}}
    async with running_gateway(tmp_path, config) as running:
        state = (await listeners_of(running))[COMPAT]
        assert state["state"] == "down"
        assert "OLLAMA_API_KEYS" in state["reason"]
        assert f"One listener for clients of {COMPAT} stays closed." in running.output


async def test_an_ollama_on_the_port_keeps_it_and_is_found_there(tmp_path, server, cloud):
    config = settings_for(server, port=server.port)
    # The same server stands for both: an Ollama on this machine, and a cloud by another name than its port's.
    config["ollama_cloud_proxy"]["base_url"] = "https://ollama.invalid"
    config["discovery"] |= {"ollama": True, "ollama_url": server.url.removesuffix("/v1")}
    environment = {"OLLAMA_API_KEYS": KEYS[0], "PROXY_AUTH_TOKEN": TOKEN}
    async with running_gateway(tmp_path, config, environment=environment) as running:
        state = (await listeners_of(running))[COMPAT]
        assert state["state"] == "down"
        assert re.search(rf"Cannot listen on \S+:{server.port}.*Ollama", state["reason"])
        await wait_until(lambda: any(each.path == "/api/tags" for each in cloud.requests))
        assert "Traceback" not in running.log


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"])
async def test_a_cloud_that_is_the_gateway_itself_is_refused_and_no_ollama_is_looked_for_there(tmp_path, host):
    number = free_ports()
    config = {
        "compat": [COMPAT],
        "ollama_cloud_proxy": {"port": number, "base_url": f"http://{host}:{number}"},
        "discovery": {"ollama": True, "ollama_url": f"http://localhost:{number}"},
    }
    async with running_gateway(tmp_path, config, environment={"OLLAMA_API_KEYS": KEYS[0]}) as running:
        state = (await listeners_of(running))[COMPAT]
        assert (state["state"], state["reason"]) == (
            "down",
            "ollama_cloud_proxy.base_url leads to this gateway itself.",
        )
        await wait_until(lambda: "its address is one of this gateway's own" in running.log)


async def test_the_gateway_looks_for_no_ollama_on_its_own_listener(tmp_path, server, cloud):
    number = free_ports()
    config = settings_for(server, port=number)
    config["discovery"] |= {"ollama": True, "ollama_url": f"http://127.0.0.1:{number}"}
    environment = {"OLLAMA_API_KEYS": KEYS[0], "ALLOW_UNAUTHENTICATED_ACCESS": "true"}
    async with running_gateway(tmp_path, config, environment=environment) as running:
        await discovered(running, server)
        models = (await get(running.port, running.key, "/v1/models")).json["data"]
        assert {model["id"] for model in models} == {"ollama-cloud/llama3", "ollama-cloud/gpt-oss:120b"}
        assert {model["x_stellwerk"]["local"] for model in models} == {False}
        assert "shortcode" not in str(models)


async def test_no_key_and_no_token_stands_in_an_answer_a_log_or_the_data_folder(port, gateway, cloud):
    async def repeat(talk: Talk) -> None:
        shown = talk.request.headers["authorization"]
        await talk.answer({"error": f"bad request with {shown}"}, status=400)

    cloud.script = repeat
    answers = [
        await post(port, TOKEN, ASKING["/generate"], "/generate"),
        await post(port, TOKEN, ASKING_OPENAI["/v1/chat/completions"], "/v1/chat/completions"),
        await get(port, TOKEN, "/api/tags"),
        await get(port, TOKEN, f"/nowhere?{TOKEN}"),
    ]

    async def repeat_in_good(talk: Talk) -> None:
        await talk.answer({"headers": talk.request.headers})

    cloud.script = repeat_in_good
    answers.append(await get(port, TOKEN, "/api/ps"))
    assert [answer.status for answer in answers] == [400, 400, 400, 404, 200]
    texts = [answer.body + str(answer.headers).encode() for answer in answers]
    texts += [gateway.log.encode(), gateway.output.encode()]
    texts += [file.read_bytes() for file in gateway.data.rglob("*") if file.is_file()]
    for secret in (*KEYS, TOKEN):
        assert not any(secret.encode() in text for text in texts)
