"""What a request must not be: each is refused in OpenAI's shape, reaches nobody, and leaves no trace of its content."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, GatewayProcess, running_gateway
from tests.raw_http import CHAT, Answer, Exchange, get, hello, post, send, write_request
from tests.scripted_upstream import ScriptedUpstream, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "canary-prompt-71c9"
WRONG_KEY = "sk-canary-wrong-key-3b1f"
PROVIDER_KEY = "sk-canary-provider-key-88d2"
CANARIES = (PROMPT, WRONG_KEY, PROVIDER_KEY, ADMIN_KEY)
POST_HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n".encode()
CHAT_BODY = {"model": "up/up", "messages": [{"role": "user", "content": PROMPT}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstream) -> AsyncIterator[GatewayProcess]:
    provider = {"base_url": upstream.url, "models": ["up", "text-embedding-up"], "api_key": PROVIDER_KEY}
    config = {"providers": {"up": provider}, "guard": {"body_bytes": 8 << 20}}
    async with running_gateway(tmp_path_factory.mktemp("bad"), config) as running:
        yield running


class Bad(NamedTuple):
    """A body that is wrong, and what is said about it."""

    body: Any
    status: int
    code: str
    param: str | None = None
    path: str = CHAT
    headers: Mapping[str, str] = MappingProxyType({})


def chat_with(**more: Any) -> dict[str, Any]:
    return {**CHAT_BODY, **more}


def nested(levels: int) -> bytes:
    return b'{"model":"up/up","messages":' + b"[" * levels + b"]" * levels + b"}"


NAN = json.dumps(chat_with(temperature=float("nan"))).encode()
HUGE_NUMBER = json.dumps(CHAT_BODY)[:-1].encode() + b',"temperature":1e999}'

BAD = {
    "empty": Bad(b"", 400, "json_invalid"),
    "blank": Bad(b"   \r\n", 400, "json_invalid"),
    "not json": Bad(PROMPT.encode(), 400, "json_invalid"),
    "cut off": Bad(json.dumps(CHAT_BODY)[:-2].encode(), 400, "json_invalid"),
    "two objects": Bad(json.dumps(CHAT_BODY).encode() * 2, 400, "json_invalid"),
    "not utf-8": Bad(json.dumps(CHAT_BODY).encode() + b"\xff", 400, "json_invalid"),
    "lone surrogate": Bad(b'{"model":"up/up","messages":[{"role":"user","content":"\\ud800"}]}', 400, "json_invalid"),
    "nan": Bad(NAN, 400, "json_invalid"),
    "infinite": Bad(HUGE_NUMBER, 400, "invalid_value", "temperature"),
    "deep": Bad(nested(100_000), 400, "invalid_type"),
    "deep in an unknown field": Bad(
        json.dumps(CHAT_BODY)[:-1].encode() + b',"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, 400, "json_invalid"
    ),
    "an array": Bad([CHAT_BODY], 400, "invalid_type"),
    "null": Bad(b"null", 400, "invalid_type"),
    "no model": Bad({"messages": CHAT_BODY["messages"]}, 400, "missing_required_parameter", "model"),
    "no messages": Bad({"model": "up/up"}, 400, "missing_required_parameter", "messages"),
    "empty messages": Bad(chat_with(messages=[]), 400, "invalid_value", "messages"),
    "messages as text": Bad(chat_with(messages=PROMPT), 400, "invalid_type", "messages"),
    "model as number": Bad(chat_with(model=5), 400, "invalid_type", "model"),
    "no role": Bad(chat_with(messages=[{"content": PROMPT}]), 400, "missing_required_parameter", "messages[0].role"),
    "unknown role": Bad(
        chat_with(messages=[{"role": "w" * 1_000_000, "content": PROMPT}]), 400, "invalid_value", "messages[0].role"
    ),
    "temperature as text": Bad(chat_with(temperature="hot"), 400, "invalid_type", "temperature"),
    "temperature too high": Bad(chat_with(temperature=2.5), 400, "invalid_value", "temperature"),
    "negative tokens": Bad(chat_with(max_tokens=-1), 400, "invalid_value", "max_tokens"),
    "too many choices": Bad(chat_with(n=1000), 400, "invalid_value", "n"),
    "stream as text": Bad(chat_with(stream="yes"), 400, "invalid_type", "stream"),
    "no prompt": Bad({"model": "up/up"}, 400, "missing_required_parameter", "prompt", "/v1/completions"),
    "no input": Bad({"model": "up/up"}, 400, "missing_required_parameter", "input", "/v1/embeddings"),
    "unknown encoding": Bad(
        {"model": "up/up", "input": PROMPT, "encoding_format": "hex"},
        400,
        "invalid_value",
        "encoding_format",
        "/v1/embeddings",
    ),
    "embedding model for a chat": Bad(chat_with(model="up/text-embedding-up"), 400, "unsupported_operation", "model"),
    "unknown model": Bad(chat_with(model="upp"), 404, "model_not_found", "model"),
    "10 MB": Bad(json.dumps(chat_with(user=PROMPT + "x" * 10_000_000)).encode(), 413, "request_too_large"),
    "xml": Bad(CHAT_BODY, 415, "unsupported_media_type", headers={"Content-Type": "application/xml"}),
    "compressed": Bad(CHAT_BODY, 415, "unsupported_media_type", headers={"Content-Encoding": "gzip"}),
    "large head": Bad(CHAT_BODY, 431, "header_too_large", headers={"X-Long": PROMPT + "y" * 40_000}),
    "many headers": Bad(CHAT_BODY, 431, "header_too_large", headers={f"X-{number}": PROMPT for number in range(100)}),
    "foreign host": Bad(CHAT_BODY, 400, "host_not_allowed", headers={"Host": "evil.example"}),
    "unknown path": Bad(CHAT_BODY, 404, "unknown_url", path="/v1/chat/completion"),
    "suspicious path": Bad(CHAT_BODY, 400, "invalid_path", path="/v1/../admin"),
}


async def ask(gateway: GatewayProcess, bad: Bad, key: str | None = ADMIN_KEY) -> Answer:
    content = bad.body if isinstance(bad.body, bytes) else json.dumps(bad.body).encode()
    headers = dict(bad.headers)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return await (await send(gateway.port, write_request("POST", bad.path, content, headers))).read()


def check_shape(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json) == {"error", "detail"}
    assert answer.json["detail"] == answer.json["error"]["message"]
    assert {"message", "type", "param", "code"} <= set(answer.error)
    assert answer.error["code"] == code
    assert 0 < len(answer.error["message"]) < 1000
    assert not any(canary in answer.body.decode() for canary in CANARIES)


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_is_refused_in_openais_shape_and_forwarded_to_nobody(gateway, upstream, name):
    bad = BAD[name]
    upstream.requests.clear()
    answer = await ask(gateway, bad)
    check_shape(answer, bad.status, bad.code)
    if bad.param is not None:
        assert answer.error["param"] == bad.param
    assert answer.headers.get("x-should-retry", "false") == "false"
    assert upstream.requests == []


@pytest.mark.parametrize("name", ["10 MB", "large head", "many headers"])
async def test_the_rest_of_a_refused_request_does_not_reset_the_answer(gateway, name):
    # A client that writes everything before it reads must still find the reason.
    for _ in range(5):
        assert (await ask(gateway, BAD[name])).status == BAD[name].status


@pytest.mark.parametrize(
    ("key", "code"), [(None, "missing_api_key"), (WRONG_KEY, "invalid_api_key"), ("x" * 5000, "invalid_api_key")]
)
async def test_nobody_gets_in_without_a_key_that_is_known(gateway, upstream, key, code):
    upstream.requests.clear()
    check_shape(await ask(gateway, Bad(CHAT_BODY, 401, code), key), 401, code)
    assert upstream.requests == []


async def test_a_key_in_the_address_does_not_count(gateway, upstream):
    upstream.requests.clear()
    bad = Bad(CHAT_BODY, 401, "missing_api_key", path=f"{CHAT}?api_key={ADMIN_KEY}&key={ADMIN_KEY}")
    check_shape(await ask(gateway, bad, None), 401, "missing_api_key")
    assert upstream.requests == []


async def test_a_model_that_is_nearly_right_is_suggested(gateway):
    answer = await ask(gateway, Bad(chat_with(model="text-embeding-up"), 404, "model_not_found"))
    assert "Did you mean 'up/text-embedding-up'?" in answer.error["message"]


async def test_a_body_without_length_or_chunks_that_never_ends_is_cut_off(gateway, upstream):
    upstream.requests.clear()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
    exchange = await send(gateway.port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    async def pour() -> None:
        while True:
            exchange.writer.write(piece)
            await exchange.writer.drain()
            # `drain` may return without letting anybody read the answer that ends this.
            await asyncio.sleep(0)

    pouring = asyncio.ensure_future(pour())
    try:
        answer = await exchange.read()
    finally:
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    check_shape(answer, 413, "request_too_large")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".encode(),
        POST_HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
        POST_HEAD + b"Content-Length: -5\r\n\r\n",
        POST_HEAD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    ],
    ids=["no host", "no http", "tls", "two hosts", "smuggled", "negative length", "two keys"],
)
async def test_what_is_no_proper_http_gets_a_400(gateway, upstream, data):
    upstream.requests.clear()
    exchange: Exchange = await send(gateway.port, data)
    answer = await exchange.read()
    assert (answer.status, "error" in answer.json) == (400, True)
    assert upstream.requests == []


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("DELETE", "/v1/models"), ("PUT", "/metrics")])
async def test_a_wrong_method_is_a_405_that_names_the_right_one(gateway, method, path):
    answer = await get(gateway.port, ADMIN_KEY, path, method)
    check_shape(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_a_refusal_of_the_upstream_does_not_give_away_the_providers_key(gateway, upstream):
    async def script(talk: Talk) -> None:
        message = f"Incorrect API key provided: {PROVIDER_KEY}."
        await talk.answer({"error": {"message": message, "code": "invalid_api_key"}}, status=401)

    before, upstream.script = upstream.script, script
    try:
        answer = await post(gateway.port, ADMIN_KEY, hello())
    finally:
        upstream.script = before
    check_shape(answer, 502, "upstream_credentials_rejected")


async def test_nothing_of_all_this_stands_in_logs_database_or_metrics(gateway, upstream):
    """Runs last, over everything that the other tests sent, and once over everything by itself."""
    for bad in BAD.values():
        await ask(gateway, bad)
    await ask(gateway, Bad(CHAT_BODY, 401, ""), WRONG_KEY)
    assert (await post(gateway.port, ADMIN_KEY, CHAT_BODY, x_request_id="good")).status == 200
    assert (await post(gateway.port, ADMIN_KEY, chat_with(stream=True), x_request_id="streamed")).status == 200
    assert PROMPT in upstream.requests[-1].body.decode()
    await gateway.call("good")
    await gateway.call("streamed")
    metrics = (await get(gateway.port, ADMIN_KEY, "/metrics")).body.decode()
    assert "stellwerk_refusals_total" in metrics
    await gateway.stop()
    files = {path.name: path.read_bytes() for path in gateway.data.rglob("*") if path.is_file()}
    places = {"log": gateway.log.encode(), "output": gateway.output.encode(), "metrics": metrics.encode(), **files}
    found = [(name, canary) for name, data in places.items() for canary in CANARIES if canary.encode() in data]
    assert found == []
    assert "Traceback" not in gateway.log
