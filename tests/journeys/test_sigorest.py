"""The tools of a person on the same machine, as they were written for sigoREST: the listener without TLS."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stellwerk.sessions.history import MOST_MESSAGES
from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway, wait_until
from tests.openai_client import new_key
from tests.raw_http import Answer, Exchange, begin, get, hello, post, send, write_request
from tests.scripted_upstream import AskedUpstream, ScriptedUpstream, Talk, chat, chunk, completion
from tests.sigorest_process import (
    CHAT_LINE,
    HEALTH_LINE,
    HTTP,
    MEMORY_LINE,
    MODEL_FACTS_LINE,
    MODELS_LINE,
    NEW_MEMORY_LINE,
    OLLAMA_CHAT_LINE,
    OLLAMA_MODELS_LINE,
    ScriptedOllama,
    asked_of,
    history_of,
    lead_curl,
    listeners_of,
    models_at,
    port_of,
    run_line,
    wait_for_models,
)
from tests.upstream_scripts import failing, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = ("first-canary-key-5f0c", "second-canary-key-77a1")
FAILURES, REST = 3, 3.0
CLAUDE, HAIKU = "claude-h", "claude-3-5-haiku-20241022"
NO_MEMORY = {"content": "", "cache": False}
STREAMS = 100


# --- the gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ScriptedUpstream]:
    upstream = AskedUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ollama() -> AsyncIterator[ScriptedOllama]:
    made = ScriptedOllama(["gemma3:4b", "qwen3:latest", "qwen3:32b", "llama3.2-vision:latest"])
    await made.upstream.start()
    yield made
    await made.upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, server, ollama) -> AsyncIterator[GatewayProcess]:
    config = {
        "compat": ["sigorest"],
        "sigorest": {"http_port": 0},
        "discovery": {"environment": True, "ollama": True, "ollama_url": ollama.url},
        "upstream": {"breaker_failures": FAILURES, "breaker_seconds": REST},
        "models": {"plain": {"targets": ["mammouth/up"]}},
    }
    environment = {
        "MAMMOUTH_BASE_URL": server.url,
        "MAMMOUTH_API_KEY_0": KEYS[0],
        "MAMMOUTH_API_KEY_1": KEYS[1],
        "MOONSHOT_BASE_URL": server.url,
        "MOONSHOT_API_KEY": "moonshot-canary-key-41b7",
    }
    async with running_gateway(tmp_path_factory.mktemp("sigorest"), config, environment=environment) as running:
        await wait_for_models(await port_of(running, HTTP), "ollama-gemma3-4b")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(gateway) -> int:
    return await port_of(gateway, HTTP)


@pytest.fixture(scope="module")
def home(gateway, port) -> Path:
    folder = gateway.folder / "person"
    lead_curl(folder, {"9080": port})
    return folder


@pytest.fixture
def upstream(server) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


@pytest.fixture(scope="module")
def run(gateway, home) -> Callable[[str], Any]:
    async def in_data_folder(line: str) -> str:
        finished = await run_line(line, gateway.data, home)
        assert finished.code == 0, finished.errors
        return finished.output

    return in_data_folder


@pytest_asyncio.fixture(loop_scope="module")
async def memory(port) -> AsyncIterator[Callable[..., Any]]:
    """Sets the memory block; it is empty again afterwards."""

    async def replace(content: str, cache: bool = False) -> None:
        assert (await put_memory(port, {"content": content, "cache": cache})).status == 200

    yield replace
    await replace("")


async def put_memory(port: int, body: Any) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await (await send(port, write_request("PUT", "/api/memory", content, {}))).read()


async def ask(port: int, model: str = CLAUDE, **more: Any) -> Answer:
    return await post(port, None, hello(model, **more))


async def tell(port: int, text: str, session: str, model: str = CLAUDE, **more: Any) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "session_id": session, **more}
    return await post(port, None, body)


def session_file(gateway: GatewayProcess, name: str) -> Path:
    return gateway.data / ".sessions" / f"{name}.json"


# --- what people have in their scripts


async def test_the_chat_line_is_answered_and_leaves_a_session_that_cat_shows_and_rm_ends(run, upstream, gateway):
    answer = json.loads(await run(CHAT_LINE))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert (answer["object"], answer["model"]) == ("chat.completion", CLAUDE)
    assert answer["usage"]["total_tokens"] == 7
    question, said = {"role": "user", "content": "Hallo"}, {"role": "assistant", "content": "Hello"}
    shown = json.loads(await run("cat .sessions/claude-h-mein-projekt.json"))
    assert shown == {"history": [question, said]}
    await run(CHAT_LINE)
    await run("rm .sessions/claude-h-mein-projekt.json")
    await run(CHAT_LINE)
    first, second, third = asked_of(upstream)
    assert first == {"model": HAIKU, "messages": [question], "temperature": 0.7, "max_tokens": 1024}
    assert second == {**first, "messages": [question, said, question]}
    assert third == first


async def test_the_line_for_models_lists_ids_and_shortcodes(run, gateway):
    listed = json.loads(await run(MODELS_LINE))
    names = [model["id"] for model in listed["data"]]
    assert listed["object"] == "list"
    assert {model["object"] for model in listed["data"]} == {"model"}
    assert {model["owned_by"] for model in listed["data"]} == {"sigorest"}
    assert {CLAUDE, HAIKU, "gpt41", "gpt-4.1", "gemini-p", "deepseek-r1", "kimi", "kimi-k2.5", "grok3m"} <= set(names)
    assert len(names) == len(set(names))
    # Nobody has set ZAI_API_KEY, and what else a vendor lists is not on the list of this listener.
    assert not {"glm-4.6", "up", "mammouth/up"} & set(names)


async def test_the_line_for_facts_shows_prices_limits_and_temperatures(run):
    rows = json.loads(await run(MODEL_FACTS_LINE))
    assert [row for row in rows if row["shortcode"] == CLAUDE] == [
        {
            "id": HAIKU,
            "shortcode": CLAUDE,
            "endpoint": "https://api.mammouth.ai/v1/chat/completions",
            "apikey": "MAMMOUTH_API_KEY",
            "max_input_tokens": 200000,
            "max_output_tokens": 8192,
            "input_cost": 0.8,
            "output_cost": 4.0,
            "min_temperature": 0.0,
            "max_temperature": 1.0,
            "requires_completion_tokens": False,
        }
    ]
    prices = {row["shortcode"]: (row["input_cost"], row["output_cost"]) for row in rows}
    documented = {"gpt41": (2, 8), "gemini-p": (2.5, 15), "deepseek-r1": (3, 8), "kimi": (0.6, 3), "grok3m": (0.3, 0.5)}
    assert documented.items() <= prices.items()
    gemma = [row for row in rows if row["shortcode"] == "ollama-gemma3-4b"]
    assert [(row["id"], row["input_cost"], row["max_temperature"]) for row in gemma] == [("ollama-gemma3-4b", 0, 2)]
    assert not any(key in json.dumps(rows) for key in KEYS)


async def test_the_line_for_health_shows_the_state(run):
    health = json.loads(await run(HEALTH_LINE))
    assert health.keys() == {"status", "timestamp", "available_models", "circuit_breakers", "memory_set"}
    assert (health["status"], health["memory_set"]) == ("ok", False)
    assert health["available_models"] > 50


async def test_the_lines_for_the_memory_change_what_every_chat_begins_with(run, upstream, gateway, memory):
    assert json.loads(await run(MEMORY_LINE)) == NO_MEMORY
    block = {"content": "Neuer Kontext", "cache": True}
    assert json.loads(await run(NEW_MEMORY_LINE)) == block
    assert json.loads(await run(MEMORY_LINE)) == block
    assert (gateway.data / "memory.json").read_text() == '{\n  "content": "Neuer Kontext",\n  "cache": true\n}\n'
    (record,) = json.loads((await gateway.run("audit", "--limit", "1", "--json")).output)
    assert (record["action"], record["subject"], record["actor"]) == ("memory.replace", "memory", "local")
    assert "Neuer Kontext" not in json.dumps(record)
    assert json.loads(await run(HEALTH_LINE))["memory_set"] is True
    await run(CHAT_LINE.replace("mein-projekt", "with-memory"))
    part = {"type": "text", "text": "Neuer Kontext", "cache_control": {"type": "ephemeral"}}
    assert asked_of(upstream)[0]["messages"] == [
        {"role": "system", "content": [part]},
        {"role": "user", "content": "Hallo"},
    ]


async def test_the_lines_for_ollama_find_its_models_and_reach_them_by_their_real_tags(run, ollama):
    names = (await run(OLLAMA_MODELS_LINE)).split()
    assert sorted(names) == ["ollama-gemma3-4b", "ollama-llama3.2-vision", "ollama-qwen3", "ollama-qwen3-32b"]
    answer = json.loads(await run(OLLAMA_CHAT_LINE))
    assert answer["choices"][0]["message"]["content"] == "Hallo aus Ollama"
    assert answer["model"] == "ollama-gemma3-4b"
    assert ollama.asked[-1] == "gemma3:4b"


async def test_what_is_pulled_while_it_runs_is_there_without_a_restart(port, ollama):
    ollama.tags.append("llama3.3:latest")
    await wait_for_models(port, "ollama-llama3.3")
    assert (await ask(port, "Ollama-Llama3.3")).status == 200
    assert ollama.asked[-1] == "llama3.3:latest"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ping", b"pong"),
        ("/api/version", None),
        ("/api/usage", None),
        ("/api/shortcodes", None),
    ],
)
async def test_the_later_routes_answer(port, path, expected):
    answer = await get(port, None, path)
    assert answer.status == 200
    if expected is not None:
        assert (answer.body, answer.headers["content-type"].partition(";")[0]) == (expected, "text/plain")
    elif path == "/api/shortcodes":
        assert answer.json[HAIKU] == CLAUDE
    elif path == "/api/version":
        assert answer.json.keys() == {"version", "component"}
    else:
        assert answer.json.keys() == {"by_model", "by_channel", "total"}


# --- many at once


async def test_a_hundred_streams_of_one_model_run_side_by_side_and_none_gets_the_words_of_another(port, upstream):
    begun = 0
    all_here = asyncio.Event()

    async def echo(talk: Talk) -> None:
        nonlocal begun
        name = talk.request.json["messages"][-1]["content"]
        await talk.start_stream()
        await talk.event(chunk(f"{name}:"))
        begun += 1
        if begun == STREAMS:
            all_here.set()
        # None goes on before each of them has begun: they cannot have been answered one after the other.
        await all_here.wait()
        for number in range(5):
            await talk.event(chunk(f" {name}-{number}"))
        await talk.event(chunk(finish="stop"))
        await talk.finish_stream()

    upstream.script = echo

    async def stream(name: str) -> Answer:
        body = {"model": CLAUDE, "messages": [{"role": "user", "content": name}], "stream": True}
        return await post(port, None, body)

    names = [f"reader{number}" for number in range(STREAMS)]
    answers = await asyncio.gather(*map(stream, names))
    for name, answer in zip(names, answers, strict=True):
        *events, last = answer.events
        words = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
        assert "".join(words) == f"{name}:" + "".join(f" {name}-{number}" for number in range(5))
        assert last == "[DONE]"
    # Health is not held up by running streams either, and nobody is left behind.
    assert (await get(port, None, "/api/health")).json["status"] == "ok"


# --- names and what models want


@pytest.mark.parametrize("name", [CLAUDE, "CLAUDE-H", HAIKU, HAIKU.upper(), "Claude-3-5-Haiku-20241022"])
async def test_shortcodes_and_full_ids_lead_to_the_model_in_any_case(port, upstream, name):
    answer = await ask(port, name)
    assert (answer.status, answer.json["model"]) == (200, name)
    assert asked_of(upstream)[0]["model"] == HAIKU


async def test_each_vendor_gets_its_own_models_and_its_own_key(port, upstream):
    assert (await ask(port, "kimi")).status == 200
    (request,) = upstream.requests
    assert request.json["model"] == "kimi-k2.5"
    assert request.headers["authorization"] == "Bearer moonshot-canary-key-41b7"


@pytest.mark.parametrize(
    ("model", "given", "sent"),
    [
        (CLAUDE, {}, {"temperature": 0.5, "max_tokens": 8192}),
        ("gpt41", {}, {"temperature": 1, "max_tokens": 8192}),
        ("deepseek-r1", {}, {"temperature": 0.75, "max_tokens": 8192}),
        (CLAUDE, {"temperature": 0}, {"temperature": 0, "max_tokens": 8192}),
        (CLAUDE, {"temperature": 1.7, "max_tokens": 0}, {"temperature": 1, "max_tokens": 8192}),
        ("gpt41", {"temperature": 3.5, "max_tokens": 9}, {"temperature": 2, "max_tokens": 9}),
        ("gpt41", {"temperature": -1}, {"temperature": 0, "max_tokens": 8192}),
        ("gpt5m", {}, {"temperature": 1, "max_completion_tokens": 4096}),
        ("gpt5m", {"max_tokens": 77}, {"temperature": 1, "max_completion_tokens": 77}),
        ("ollama-gemma3-4b", {}, {}),
        ("plain", {}, {}),
    ],
)
async def test_a_model_gets_what_it_wants(port, upstream, ollama, model, given, sent):
    assert (await ask(port, model, **given)).status == 200
    server = ollama.upstream if model.startswith("ollama-") else upstream
    body = asked_of(server)[-1]
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == sent


async def test_standard_fields_pass_and_fields_of_this_listener_do_not(port, upstream):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hallo"}, image]}]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    fields = {"tools": tools, "tool_choice": "auto", "top_p": 0.5, "seed": 7, "user": "u", "anything": {"else": [1]}}
    own = {"session_id": "fields", "timeout": 60, "retries": 2}
    body = {"MODEL": "gpt41", "Messages": messages, "Session_ID": "", **fields, **own}
    assert (await post(port, None, body)).status == 200
    (sent,) = asked_of(upstream)
    assert sent["messages"] == messages
    assert fields.items() <= sent.items()
    assert not {name.lower() for name in sent} & own.keys()


@pytest.mark.parametrize("name", ["claude-x", "up", "mammouth/up", "mammouth/anything", "../claude-h", "glm-4.6"])
async def test_a_model_that_is_not_on_the_list_is_refused_before_anybody_is_asked(port, upstream, name):
    answer = await ask(port, name)
    assert answer.status == 400
    assert (answer.error["type"], answer.error["code"]) == ("model_not_found", "model_not_found")
    assert name in answer.error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model":"claude-h"}', b'{"model":"claude-h","messages":"Hallo"}', b'{"messages":[]}'],
)
async def test_a_body_that_is_none_is_an_invalid_request(port, upstream, body):
    answer = await post(port, None, body)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (400, "invalid_request", "invalid_request")
    assert upstream.requests == []


# --- the memory block


async def test_the_memory_stands_first_and_only_claude_is_told_to_keep_it(port, upstream, memory):
    await memory("Du sprichst mit Gerhard.", cache=True)
    part = {"type": "text", "text": "Du sprichst mit Gerhard.", "cache_control": {"type": "ephemeral"}}
    rules = {"role": "system", "content": "Reime."}
    for model in (CLAUDE, "gpt41", "kimi"):
        messages = [rules, {"role": "user", "content": "Hallo"}]
        await post(port, None, {"model": model, "messages": messages})
    claude, gpt, kimi = (body["messages"] for body in asked_of(upstream))
    assert claude == [{"role": "system", "content": [part]}, *messages]
    assert gpt == kimi == [{"role": "system", "content": part["text"]}, *messages]
    await memory("Du sprichst mit Gerhard.", cache=False)
    await ask(port)
    assert asked_of(upstream)[-1]["messages"][0] == gpt[0]


async def test_what_the_memory_was_is_kept_and_a_change_by_hand_counts(port, upstream, gateway, memory):
    for text in ("eins", "zwei", "drei"):
        await memory(text)
    kept = sorted((gateway.data / "memory.versions").iterdir())
    assert [json.loads(file.read_text())["content"] for file in kept][-2:] == ["eins", "zwei"]
    assert (gateway.data / "memory.json").stat().st_mode & 0o777 == 0o600
    (gateway.data / "memory.json").write_text('{"content": "von Hand"}')

    async def taken() -> bool:
        return (await get(port, None, "/api/memory")).json == {"content": "von Hand", "cache": False}

    await wait_until(taken)


async def test_absent_fields_empty_the_memory_and_bad_ones_change_nothing(port, memory):
    await memory("bleibt", cache=True)
    for bad in (b"{", b"[]", {"content": 7}, {"content": "x" * 70_000}):
        answer = await put_memory(port, bad)
        assert answer.status in (400, 413)
        assert answer.error["type"] == "invalid_request"
    assert (await get(port, None, "/api/memory")).json == {"content": "bleibt", "cache": True}
    assert (await put_memory(port, {})).json == NO_MEMORY
    assert (await get(port, None, "/api/memory", "DELETE")).status == 405


async def test_the_memory_is_no_part_of_other_listeners_calls_without_a_session(gateway, upstream, memory):
    await memory("nur hier")
    for more in ({}, {"session_id": "main"}):
        assert (await post(gateway.port, ADMIN_KEY, hello(CLAUDE, **more))).status == 200
    plain, with_session = (body["messages"] for body in asked_of(upstream))
    assert plain == [{"role": "user", "content": "Hello"}]
    assert with_session[0] == {"role": "system", "content": "nur hier"}


# --- sessions


async def test_a_session_keeps_the_newest_twenty_messages(port, upstream, gateway):
    for number in range(12):
        assert (await tell(port, f"Frage {number}", "long")).status == 200
    history = history_of(session_file(gateway, "claude-h-long"))
    assert len(history) == MOST_MESSAGES == 20
    assert history[0] == ("user", "Frage 2")
    assert history[-2:] == [("user", "Frage 11"), ("assistant", "Hello")]
    last = asked_of(upstream)[-1]["messages"]
    assert [message["content"] for message in last if message["role"] == "user"] == [
        f"Frage {number}" for number in range(1, 12)
    ]


async def test_a_streamed_answer_is_kept_too(port, upstream, gateway):
    answer = await tell(port, "Hallo", "streamed", stream=True)
    assert answer.events[-1] == "[DONE]"
    assert history_of(session_file(gateway, "claude-h-streamed")) == [("user", "Hallo"), ("assistant", "Hello!")]
    await tell(port, "Und?", "streamed")
    assert [message["content"] for message in asked_of(upstream)[-1]["messages"]] == ["Hallo", "Hello!", "Und?"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_failed_is_not_kept(port, upstream, gateway, stream):
    session = f"failed-{stream}"
    await tell(port, "gut", session)
    upstream.script = streaming(chunk("halb"), done=False) if stream else failing(400)
    answer = await tell(port, "schlecht", session, stream=stream)
    assert answer.status == (200 if stream else 400)
    assert history_of(session_file(gateway, f"claude-h-{session}")) == [("user", "gut"), ("assistant", "Hello")]


async def test_calls_of_one_session_wait_for_each_other(port, upstream, gateway):
    go_on = asyncio.Event()

    async def first_slowly(talk: Talk) -> None:
        if len(upstream.requests) == 1:
            await go_on.wait()
        await talk.answer(completion(f"Antwort {len(upstream.requests)}"))

    upstream.script = first_slowly
    first = asyncio.ensure_future(tell(port, "erste", "queue"))
    await wait_until(lambda: len(upstream.requests) == 1)
    second = asyncio.ensure_future(tell(port, "zweite", "queue"))
    # One of another session shows that the second could have been there by now.
    assert (await tell(port, "andere", "no-queue")).status == 200
    assert len(upstream.requests) == 2
    go_on.set()
    assert [(await call).status for call in (first, second)] == [200, 200]
    history = history_of(session_file(gateway, "claude-h-queue"))
    assert [text for role, text in history if role == "user"] == ["erste", "zweite"]
    assert len(asked_of(upstream)[-1]["messages"]) == 3


async def test_a_shortcode_and_its_id_are_different_sessions(port, upstream, gateway):
    await tell(port, "kurz", "names")
    await tell(port, "lang", "names", model=HAIKU)
    assert len(history_of(session_file(gateway, "claude-h-names"))) == 2
    assert history_of(session_file(gateway, f"{HAIKU}-names"))[0] == ("user", "lang")


BAD_SESSIONS = (
    "../up",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "/etc/passwd",
    "a\x00b",
    "%2e%2e%2fup",
    "a..b",
    "nul",
    "COM1.json",
    "a b",
    "ä",
    "x" * 65,
    "~root",
    "$HOME",
    "a\n",
)


async def test_a_session_id_cannot_lead_out_of_the_folder(port, upstream, gateway):
    def files() -> set[str]:
        return {str(path) for path in gateway.folder.rglob("*.json")}

    before = files()
    for session in BAD_SESSIONS:
        answer = await tell(port, "Hallo", session)
        assert (answer.status, answer.error["type"], answer.error["param"]) == (400, "invalid_request", "session_id")
        assert gateway.data.as_posix() not in answer.body.decode()
    for wrong in (7, ["a"], {"a": 1}):
        assert (await ask(port, session_id=wrong)).status == 400
    assert (upstream.requests, files()) == ([], before)


async def test_a_folder_and_its_files_are_for_their_owner_alone(port, upstream, gateway):
    await tell(port, "Hallo", "private")
    assert (gateway.data / ".sessions").stat().st_mode & 0o777 == 0o700
    assert session_file(gateway, "claude-h-private").stat().st_mode & 0o777 == 0o600


async def test_a_session_behind_a_key_is_that_of_its_user(port, upstream, gateway):
    assert (await gateway.run("users", "create", "anna@example.org", "--tier", "sub")).code == 0
    shown = json.loads((await gateway.run("users", "show", "anna@example.org", "--json")).output)
    user = shown.get("id") or shown["user"]["id"]
    key = await new_key(gateway, "--user", "anna@example.org")
    await tell(port, "von allen", "shared")
    body = {"model": CLAUDE, "messages": [{"role": "user", "content": "von Anna"}], "session_id": "shared"}
    for number in (gateway.port, port):
        assert (await post(number, key, body)).status == 200
    anna = gateway.data / ".sessions" / str(user) / "claude-h-shared.json"
    assert [text for role, text in history_of(anna) if role == "user"] == ["von Anna", "von Anna"]
    assert len(history_of(session_file(gateway, "claude-h-shared"))) == 2
    assert [len(body["messages"]) for body in asked_of(upstream)] == [1, 1, 3]


# --- upstreams that fail


async def test_the_time_that_a_call_gets_is_all_that_it_takes(port, upstream):
    async def never(talk: Talk) -> None:
        await talk.left.wait()

    upstream.script = never
    answer = await ask(port, "codestral", timeout=3, retries=10)
    assert (answer.status, answer.error["type"]) == (504, "timeout")
    await wait_until(lambda: upstream.requests)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("seconds", [0, -5, 10**9, 0.001, None])
@pytest.mark.parametrize("retries", [0, -1, 10**9, None])
async def test_odd_times_and_numbers_of_attempts_are_brought_into_their_range(port, upstream, seconds, retries):
    assert (await ask(port, timeout=seconds, retries=retries)).status == 200


@pytest.mark.parametrize(("retries", "attempts"), [(1, 1), (2, 2), (-1, 1)])
async def test_a_call_is_tried_as_often_as_it_says(port, upstream, retries, attempts):
    upstream.script = failing(500)
    model = {1: "gemini-f", 2: "grok3", -1: "llama-mav"}[retries]
    answer = await ask(port, model, retries=retries)
    assert (answer.status, answer.error["type"]) == (502, "api_error")
    assert len(upstream.requests) == attempts


async def test_an_attempt_that_succeeds_is_the_answer_and_is_kept(port, upstream, gateway):
    async def stumble(talk: Talk) -> None:
        await (failing(503) if len(upstream.requests) == 1 else chat)(talk)

    upstream.script = stumble
    assert (await tell(port, "Hallo", "stumbled", model="gpt41n")).status == 200
    assert len(history_of(session_file(gateway, "gpt41n-stumbled"))) == 2


async def breaker(port: int, model: str) -> dict[str, Any] | None:
    shown = (await get(port, None, "/api/health")).json["circuit_breakers"]
    return next((each for each in shown if each["model"] == model), None)


async def test_failures_in_a_row_open_the_breaker_that_health_shows(port, upstream):
    upstream.script = failing(500)
    for _ in range(FAILURES):
        assert (await ask(port, "grok3m", retries=1)).status == 502
    assert await breaker(port, "mammouth/grok-3-mini") == {
        "model": "mammouth/grok-3-mini",
        "open": True,
        "failures": FAILURES,
    }
    upstream.requests.clear()
    upstream.script = chat
    answer = await ask(port, "grok3m", retries=1)
    if answer.status != 200:
        assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "circuit_open", "circuit_open")
        assert upstream.requests == []
        assert int(answer.headers["retry-after"]) >= 1

    async def closed() -> bool:
        return (await ask(port, "grok3m", retries=1)).status == 200

    await wait_until(closed)
    assert await breaker(port, "mammouth/grok-3-mini") is None


async def test_what_clients_do_wrong_opens_no_breaker(port, upstream):
    upstream.script = failing(400)
    for _ in range(2 * FAILURES):
        assert (await ask(port, "grok4")).status == 400
    assert len(upstream.requests) == 2 * FAILURES
    assert await breaker(port, "mammouth/grok-4-0709") is None


async def test_an_upstreams_words_are_not_passed_on_with_its_address_or_a_key(port, upstream):
    async def chatty(talk: Talk) -> None:
        words = f"{talk.request.headers['authorization']} at {upstream.url} is broken"
        await talk.answer({"error": {"message": words}}, status=500)

    upstream.script = chatty
    answer = await ask(port, "gpt41m", retries=1)
    assert answer.status == 502
    assert not any(text in answer.body.decode() for text in (*KEYS, upstream.url, str(upstream.port)))


async def test_when_the_first_key_has_reached_its_limit_the_second_answers(port, upstream):
    async def by_key(talk: Talk) -> None:
        first = talk.request.headers["authorization"] == f"Bearer {KEYS[0]}"
        await (failing(429, retry_after="300") if first else chat)(talk)

    upstream.script = by_key
    for _ in range(2):
        assert (await ask(port, "gpt4o")).status == 200
    used = [request.headers["authorization"].removeprefix("Bearer ") for request in upstream.requests]
    assert used == [KEYS[0], KEYS[1], KEYS[1]]


# --- who is let in


async def ask_at(host: str, port: int, path: str, body: Any = None, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    content = None if body is None else json.dumps(body).encode()
    data = write_request("GET" if body is None else "POST", path, content, fields)
    return await (await send(port, data, host)).read()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
async def test_localhost_may_mean_either_address(port, upstream):
    for host in ("127.0.0.1", "::1", "localhost"):
        assert (await ask_at(host, port, "/ping")).body == b"pong"


async def test_every_address_of_loopback_is_this_machine(port, upstream):
    exchange = await send(port, write_request("GET", "/ping", None, {}), local_addr=("127.3.2.1", 0))
    assert (await exchange.read()).body == b"pong"


async def test_the_listener_stands_on_loopback_only(gateway, port):
    listeners = await listeners_of(gateway)
    assert list(listeners) == ["main", HTTP]
    shown = listeners[HTTP]
    assert {address.rpartition(":")[0] for address in shown["addresses"]} <= {"127.0.0.1", "[::1]"}
    assert set(shown["peers"]) == {"127.0.0.0/8", "::1/128"}


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"])
async def test_no_header_says_where_somebody_is(port, upstream, name):
    value = "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"
    exchange = await send(port, write_request("GET", "/api/health", None, {name: value}))
    assert (await exchange.read()).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_the_page_of_another_site_cannot_spend_what_this_machine_may(port, upstream, headers):
    # What a browser sends for any page without asking first: no header that would need permission.
    answer = await ask_at(
        "127.0.0.1", port, "/v1/chat/completions", hello(CLAUDE), Content_Type="text/plain", **headers
    )
    assert (answer.status, answer.error["type"]) == (403, "forbidden")
    assert upstream.requests == []
    own = await ask_at("127.0.0.1", port, "/ping", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")
    assert own.status == 200


async def test_a_name_that_leads_here_by_a_trick_is_refused(port):
    answer = await ask_at("127.0.0.1", port, "/api/memory", Host="evil.example")
    assert (answer.status, answer.error["type"]) == (400, "invalid_request")


@pytest.mark.parametrize("key", [None, "dummy", "sk-anything", ADMIN_KEY, ""])
async def test_whatever_else_a_client_shows_it_is_the_local_user_and_never_an_admin(port, gateway, upstream, key):
    request_id = f"local-{key}"
    answer = await post(port, key, hello(CLAUDE), x_request_id=request_id)
    assert answer.status == 200
    row = await gateway.call(request_id)
    assert (row["user_id"], row["key_id"]) == (2, "trusted-peer")
    assert (await get(port, key, "/admin/api/users")).status == 404


# --- what the local user may


async def test_the_use_of_this_machine_is_metered(port, gateway, upstream):
    async def calls() -> int:
        shown = json.loads((await gateway.run("usage", "--user", "local", "--by", "model", "--json")).output)
        return sum(row["calls"] for row in shown["rows"] if row["model"] == "gpt4o")

    before = await calls()
    await post(port, None, hello("gpt4o"), x_request_id="metered")
    row = await gateway.call("metered")
    assert (row["input_tokens"], row["output_tokens"]) == (5, 2)
    assert await calls() == before + 1
    tokens = (await get(port, None, "/api/usage")).json
    assert tokens["by_model"]["gpt4o"]["total_tokens"] >= 7
    assert tokens["total"]["requests"] >= tokens["by_model"]["gpt4o"]["requests"] >= 1


async def test_the_use_of_this_machine_is_limited_like_that_of_any_user(port, gateway, upstream):
    assert (await gateway.run("users", "update", "local", "--requests-per-minute", "1")).code == 0

    async def limited() -> Answer | None:
        answer = await ask(port)
        return answer if answer.status == 429 else None

    refusal = await wait_until(limited)
    assert refusal.error["type"] == "rate_limit"
    assert int(refusal.headers["retry-after"]) >= 1
    assert (await gateway.run("users", "update", "local", "--requests-per-minute", "none")).code == 0

    async def free() -> bool:
        return (await ask(port)).status == 200

    await wait_until(free)


async def test_when_the_local_user_is_disabled_running_streams_end_and_others_go_on(port, gateway, upstream):
    key = await new_key(gateway, "--user", "anna@example.org")
    going = asyncio.Event()

    async def endless(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("eins"))
        going.set()
        await talk.left.wait()

    upstream.script = endless
    exchange: Exchange = await begin(port, None, hello(CLAUDE, stream=True))
    assert await exchange.read_head() == 200
    await going.wait()
    assert (await gateway.run("users", "disable", "local")).code == 0
    try:
        with pytest.raises(asyncio.IncompleteReadError):
            await exchange.read()
        upstream.script = chat
        refusal = await ask(port)
        assert (refusal.status, refusal.error["type"]) == (403, "forbidden")
        assert (await get(port, None, "/v1/models")).status == 403
        # People with keys of their own, and their sessions, do not need that account.
        for number in (gateway.port, port):
            answer = await post(number, key, hello(CLAUDE, session_id="without-local"))
            assert answer.status == 200, answer.body
    finally:
        assert (await gateway.run("users", "enable", "local")).code == 0

    async def back() -> bool:
        return (await ask(port)).status == 200

    await wait_until(back)


# --- the list of models


def warnings_of(gateway: GatewayProcess) -> list[str]:
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line["message"] for line in lines if line["level"].lower() == "warning" and "models.csv" in line["message"]]


ROW = "own-model-1;own;{url}/chat/completions;OWN_KEY;1000;500;1;2;0.2;0.6;true"


@pytest.mark.parametrize("form", ["whitelist", "table"])
async def test_a_file_of_ones_own_says_which_models_there_are(tmp_path, server, upstream, form):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    whitelist = "claude-h,gpt41,gemini-p,\r\nnosuch,DEEPSEEK-R1, kimi\n"
    table = f"# eigene\n{ROW.format(url=server.url)}\nzu;wenig\n"
    (data / "models.csv").write_text(whitelist if form == "whitelist" else table)
    environment = {"MAMMOUTH_BASE_URL": server.url, "MAMMOUTH_API_KEY": "x-canary", "OWN_KEY": "own-canary"}
    config = {"compat": ["sigorest"], "sigorest": {"http_port": 0}, "discovery": {"environment": True}}
    async with running_gateway(tmp_path, config, environment=environment) as running:
        port = await port_of(running, HTTP)
        listed = await models_at(port)
        warnings = await wait_until(lambda: warnings_of(running))
        if form == "whitelist":
            assert {CLAUDE, "gpt41", "gemini-p", "deepseek-r1"} < set(listed)
            assert len(listed) == 8
            assert any("nosuch" in text for text in warnings)
            assert (await ask(port, "grok3m")).error["code"] == "model_not_found"
            assert (await ask(port, "gpt41")).status == 200
        else:
            assert listed == ["own-model-1", "own"]
            assert any("line 3" in text for text in warnings)
            assert (await ask(port, CLAUDE)).error["code"] == "model_not_found"
            assert (await ask(port, "OWN")).status == 200
            (sent,) = [request for request in upstream.requests if request.method == "POST"]
            assert sent.headers["authorization"] == "Bearer own-canary"
            assert (sent.json["temperature"], sent.json["max_completion_tokens"]) == (0.4, 500)
        assert len(warnings) == 1
        await running.stop()
    assert "Traceback" not in running.log


async def test_without_compat_there_is_no_such_listener(tmp_path):
    async with running_gateway(tmp_path, {}) as running:
        assert list(await listeners_of(running)) == ["main"]
