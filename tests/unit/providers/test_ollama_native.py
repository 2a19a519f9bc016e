import asyncio
import json

import msgspec
import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import (
    BadRequest,
    GatewayError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
)
from stellwerk.core.plan import Target
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.ollama_native import OllamaNative
from stellwerk.providers.openai_compatible import ProviderSettings
from tests.port_fakes import StillClock, make_call

TARGET = Target(provider="ollama", model="qwen3:4b")
NATIVE = {
    Wire.OLLAMA_CHAT: (Operation.CHAT, "/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    Wire.OLLAMA_GENERATE: (Operation.CHAT, "/api/generate", {"prompt": "Hi"}),
    Wire.OLLAMA_EMBED: (Operation.EMBEDDING, "/api/embed", {"input": ["Hi"]}),
}
LINES = [{"message": {"role": "assistant", "content": word}, "done": False} for word in ("Hel", "lö")]
LAST = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "eval_count": 2}


@pytest.fixture
def connect(pools, upstream):
    def make(**settings):
        settings = ProviderSettings(**{"name": "ollama", "base_url": upstream.url, "local": True, **settings})
        return OllamaNative(settings, pools.pool(parse_base_url(settings.base_url)[0]), StillClock())

    return make


def native_call(wire=Wire.OLLAMA_CHAT, **fields):
    operation, _, question = NATIVE[wire]
    call = make_call(operation, model="ollama/qwen3:4b", stream=True)
    body = {"model": "ollama/qwen3:4b", **question, **fields}
    given = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}
    return msgspec.structs.replace(call, wire=wire, fields=given)


async def ask(provider, call):
    """The answer to a call in the wire that the provider has for it."""
    wire = provider.wire(call.operation, call.wire)
    assert wire is call.wire
    async with asyncio.timeout(30):
        return await provider.send(call, TARGET, wire, call.fields)


async def send(provider, call):
    async with asyncio.timeout(30):
        return await (await ask(provider, call)).read()


def ndjson(*bodies):
    return b"".join(json.dumps(body, separators=(",", ":")).encode() + b"\n" for body in bodies)


def answering(body, status=200, headers=()):
    async def script(talk):
        await talk.answer(body, status, headers)

    return script


async def start_lines(talk):
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETION, Operation.EMBEDDING])
def test_a_client_gets_its_own_wire_and_the_others_openais(connect, operation):
    provider = connect()
    openai = provider.wire(operation, Wire.OPENAI_CHAT)
    assert openai.value == f"openai.{operation.value}"
    own = {wire for wire in NATIVE if provider.wire(operation, wire) is wire}
    embeds = operation is Operation.EMBEDDING
    assert own == ({Wire.OLLAMA_EMBED} if embeds else {Wire.OLLAMA_CHAT, Wire.OLLAMA_GENERATE})
    assert all(provider.wire(operation, wire) is openai for wire in Wire if wire not in own)


def test_reranking_has_one_wire_wherever_it_is_asked_for(connect):
    assert {connect().wire(Operation.RERANK, wire) for wire in (Wire.RERANK, Wire.OPENAI_CHAT)} == {Wire.RERANK}


@pytest.mark.parametrize("wire", list(NATIVE))
@pytest.mark.parametrize("prefix", ["", "/deep"])
async def test_each_wire_has_its_path_beside_v1(connect, upstream, wire, prefix):
    call = native_call(wire, keep_alive="5m", think="high", format={"type": "object"}, options={"seed": 1, "x": 1.0})
    await send(connect(base_url=f"http://127.0.0.1:{upstream.port}{prefix}/v1"), call)
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", prefix + NATIVE[wire][1])
    fields = {name: json.loads(bytes(raw)) for name, raw in call.fields.items()}
    assert request.json == fields | {"model": "qwen3:4b"}
    assert list(request.json) == list(fields)
    assert "authorization" not in request.headers
    assert "stream_options" not in request.json


async def test_openai_clients_are_asked_for_under_v1_as_before(connect, upstream):
    call = make_call(stream=True)
    await send(connect(), call)
    (request,) = upstream.requests
    assert request.path == "/v1/chat/completions"
    assert request.json["stream_options"] == {"include_usage": True}


async def test_the_key_goes_along_and_of_several_the_next_one(connect, upstream):
    async def script(talk):
        first = talk.request.headers["authorization"].endswith("one")
        await talk.answer({"error": "weekly limit"} if first else LAST, 429 if first else 200)

    upstream.script = script
    provider = connect(keys=(Secret("key-one"), Secret("key-two")))
    assert json.loads(await send(provider, native_call())) == LAST
    assert [request.headers["authorization"] for request in upstream.requests] == ["Bearer key-one", "Bearer key-two"]
    assert {request.path for request in upstream.requests} == {"/api/chat"}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"num_ctx": 131072, "temperature": 0.5}, {"temperature": 0.5}),
        ({"num_ctx": 1}, {}),
        (
            {"num_gpu": 0, "num_thread": 1, "num_batch": 1, "main_gpu": 1, "use_mmap": False, "stop": ["x"]},
            {"stop": ["x"]},
        ),
        ({"num_predict": 5, "num_keep": 4}, {"num_predict": 5, "num_keep": 4}),
        (None, None),
        ("num_ctx", "num_ctx"),
        ([], []),
    ],
)
async def test_no_client_loads_a_shared_model_anew(connect, upstream, options, sent):
    await send(connect(), native_call(options=options))
    assert upstream.requests[0].json["options"] == sent


async def test_an_escaped_name_is_the_same_option(connect, upstream):
    call = native_call()
    options = msgspec.Raw(b'{"num\\u005fctx": 5, "top_p": 0.90}')
    call = msgspec.structs.replace(call, fields={**call.fields, "options": options})
    await send(connect(), call)
    assert b'"options":{"top_p":0.90}' in upstream.requests[0].body


@pytest.mark.parametrize("call", [native_call(), make_call()], ids=["native", "openai"])
@pytest.mark.parametrize("name", ["Model", "MODEL", "Options", "\u017ftream", "\u212aeep_alive"])
async def test_no_field_takes_the_place_of_another_by_capital_letters(connect, upstream, call, name):
    call = msgspec.structs.replace(call, fields={**call.fields, name: msgspec.Raw(b'"secret"')})
    await send(connect(), call)
    assert name not in upstream.requests[0].json
    assert upstream.requests[0].json["model"] == "qwen3:4b"


async def test_lines_pass_as_they_come(connect, upstream):
    go_on = asyncio.Event()
    data = ndjson(*LINES, LAST)

    async def script(talk):
        await start_lines(talk)
        # The network owes nobody whole lines.
        cut = data.index(b"\\u00f6") + 3
        await talk.chunk(data[:cut])
        await go_on.wait()
        await talk.chunk(data[cut:])
        await talk.finish_stream(done=False)

    upstream.script = script
    answer = await ask(connect(), native_call())
    assert answer.header(b"content-type") == b"application/x-ndjson"
    async with asyncio.timeout(30):
        begin = await answer.next()
        assert data.startswith(begin)
        assert begin != data
        go_on.set()
        rest = []
        await answer.pour(rest.append)
    assert begin + b"".join(rest) == data


async def test_lines_that_break_off_are_broken(connect, upstream):
    async def script(talk):
        await start_lines(talk)
        await talk.chunk(ndjson(*LINES))
        talk.cut()

    upstream.script = script
    answer = await ask(connect(), native_call())
    with pytest.raises(UpstreamBroken):
        await asyncio.wait_for(answer.pour(lambda data: None), 30)


@pytest.mark.parametrize(
    ("status", "said", "kind", "code", "tells"),
    [
        (400, '"m" does not support thinking', BadRequest, "invalid_value", True),
        (401, "unauthorized", UpstreamRefused, "upstream_credentials_rejected", False),
        (403, "ollama cloud is disabled", UpstreamRefused, "upstream_credentials_rejected", False),
        (404, 'model "m" not found, try pulling it first', NotFound, "model_not_found", True),
        (429, "you have reached your hourly usage limit", RateLimited, "upstream_rate_limited", True),
        (500, "llama runner process has terminated", UpstreamError, "upstream_error", True),
        (502, "cloud not reachable", UpstreamError, "upstream_error", False),
        (503, "server busy, please try again.", Unavailable, "upstream_overloaded", False),
    ],
)
@pytest.mark.parametrize("wire", list(NATIVE))
async def test_ollamas_refusals_are_errors_of_ours(connect, upstream, wire, status, said, kind, code, tells):
    upstream.script = answering({"error": said}, status)
    with pytest.raises(GatewayError) as caught:
        await send(connect(), native_call(wire))
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.may_fall_back) == (code, status != 400)
    assert (said in caught.value.message) is tells


async def test_native_answers_are_not_read_into_events(connect, upstream):
    upstream.script = answering(ndjson(LAST))
    provider = connect()
    answer = await ask(provider, native_call())
    with pytest.raises(UpstreamError):
        _ = [event async for event in provider.events(answer, Wire.OLLAMA_CHAT, stream=True)]
    answer.abort()


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_changes_of_its_models_are_asked_for_beside_v1(connect, upstream, method):
    upstream.script = answering(ndjson({"status": "success"}))
    provider = connect(keys=(Secret("k1"),))
    async with asyncio.timeout(30):
        answer = await provider.manage(method, "/api/pull", b'{"model":"m"}')
        assert json.loads(await answer.read()) == {"status": "success"}
    (request,) = upstream.requests
    assert (request.method, request.path, request.json) == (method, "/api/pull", {"model": "m"})
    assert request.headers["authorization"] == "Bearer k1"


async def test_a_change_that_is_refused_raises(connect, upstream):
    upstream.script = answering({"error": "model 'm' not found"}, 404)
    with pytest.raises(GatewayError) as caught:
        await connect().manage("DELETE", "/api/delete", b'{"model":"m"}')
    assert caught.value.status == 404
    assert "not found" in caught.value.message


def test_only_an_ollama_of_the_operators_is_his(connect):
    assert connect().is_ours
    assert not connect(local=False).is_ours
