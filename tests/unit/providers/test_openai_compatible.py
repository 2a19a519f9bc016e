import asyncio
import json
import logging
from contextlib import suppress
from email.utils import formatdate

import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import (
    BadRequest,
    Conflict,
    GatewayError,
    NotFound,
    RateLimited,
    TooLarge,
    Unavailable,
    Unprocessable,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from stellwerk.core.plan import Target
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings
from tests.port_fakes import StillClock, make_call
from tests.scripted_upstream import completion

KEY = "sk-proj-Zx81abcdefghijklmn"
TARGET = Target(provider="house", model="up/large")


@pytest.fixture
def connect(pools, upstream):
    """Makes providers: `connect(stream_options=False)`."""

    def make(server=upstream, **settings):
        settings = ProviderSettings(**{"name": "house", "base_url": server.url, "keys": (Secret(KEY),), **settings})
        return OpenAICompatible(settings, pools.pool(parse_base_url(settings.base_url)[0]), StillClock())

    return make


async def send(provider, call=None, wire=None):
    call = call or make_call()
    async with asyncio.timeout(30):
        answer = await provider.send(call, TARGET, wire or call.wire, call.fields)
        return await answer.read()


def answering(body, status=200, headers=(), content_type="application/json"):
    async def script(talk):
        await talk.answer(body, status, headers, content_type)

    return script


async def test_the_body_differs_from_the_clients_only_in_the_models_name(connect, upstream):
    more = {"temperature": 0.5, "x": {"ä": [1.0, None]}, "stream_options": None, "logit_bias": {"1": -100}}
    assert json.loads(await send(connect(), make_call(**more))) == completion(model="up/large")
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert list(request.json) == ["model", "messages", *more]
    assert request.json == {"model": "up/large", "messages": [{"role": "user", "content": "Hi"}], **more}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{upstream.port}"


async def test_values_keep_the_spelling_of_the_client(connect):
    call = make_call(temperature=1.0, seed=10**30, user="ä")
    body = connect().write_body(call, TARGET, call.wire, call.fields)
    assert b'"temperature":1.0,' in body
    assert b'"user":"\\u00e4"' in body
    assert str(10**30).encode() in body


@pytest.mark.parametrize(
    ("given", "wanted", "sent"),
    [
        (None, False, {"include_usage": True}),
        ({}, False, {"include_usage": True}),
        ({"include_usage": False, "x": 1}, False, {"include_usage": True, "x": 1}),
        (
            {"include_usage": True, "include_obfuscation": False},
            True,
            {"include_usage": True, "include_obfuscation": False},
        ),
    ],
)
def test_usage_is_asked_for_in_every_stream(connect, given, wanted, sent):
    for fields in ({"stream_options": given}, {}) if given is None else ({"stream_options": given},):
        call = make_call(stream=True, wants_usage=wanted, **fields)
        assert json.loads(connect().write_body(call, TARGET, call.wire, call.fields))["stream_options"] == sent


@pytest.mark.parametrize("wanted", [True, False])
def test_a_vendor_that_does_not_know_stream_options_gets_none(connect, wanted):
    call = make_call(stream=True, wants_usage=wanted, stream_options={"include_usage": wanted})
    body = json.loads(connect(stream_options=False).write_body(call, TARGET, call.wire, call.fields))
    assert "stream_options" not in body


def test_a_call_that_is_no_stream_asks_for_no_usage(connect):
    call = make_call()
    assert "stream_options" not in json.loads(connect().write_body(call, TARGET, call.wire, call.fields))


@pytest.mark.parametrize(
    ("operation", "path"),
    [(Operation.CHAT, "chat/completions"), (Operation.COMPLETION, "completions"), (Operation.EMBEDDING, "embeddings")],
)
async def test_each_wire_has_its_path_below_the_base_url(connect, upstream, operation, path):
    await send(connect(base_url=f"http://127.0.0.1:{upstream.port}/deep/v1/"), make_call(operation))
    assert upstream.requests[0].path == f"/deep/v1/{path}"


def test_the_wire_follows_from_what_the_vendor_can(connect):
    assert connect().wire(Operation.COMPLETION, Wire.OPENAI_COMPLETION) is Wire.OPENAI_COMPLETION
    assert connect(completions=False).wire(Operation.COMPLETION, Wire.OPENAI_COMPLETION) is Wire.OPENAI_CHAT
    assert connect(embeddings=False).wire(Operation.EMBEDDING, Wire.OPENAI_EMBEDDING) is None
    assert connect(embeddings=False).wire(Operation.RERANK, Wire.RERANK) is None
    assert connect(embeddings=False, rerank="rerank").wire(Operation.RERANK, Wire.RERANK) is Wire.RERANK
    assert connect().wire(Operation.RERANK, Wire.RERANK) is Wire.RERANK
    assert connect().wire(Operation.CHAT, Wire.OPENAI_CHAT) is Wire.OPENAI_CHAT


async def test_key_and_headers_go_to_the_vendor(connect, upstream):
    await send(connect(headers=(("x-team", "ops"),)))
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert upstream.requests[0].headers["x-team"] == "ops"


async def test_without_a_key_no_credential_is_sent(connect, upstream):
    await send(connect(keys=()))
    assert "authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_so_the_key_stays_with_its_origin(connect, upstream, status):
    upstream.script = answering(b"", status, [("location", f"http://localhost:{upstream.port}/v1/stolen")])
    with pytest.raises(UpstreamError, match=f"status {status}") as caught:
        await send(connect())
    assert caught.value.may_fall_back
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind", "code", "falls_back"),
    [
        (400, BadRequest, "bad_thing", False),
        (401, UpstreamRefused, "upstream_credentials_rejected", True),
        (402, UpstreamRefused, "upstream_credits_exhausted", True),
        (403, UpstreamRefused, "upstream_credentials_rejected", True),
        (404, NotFound, "model_not_found", True),
        (408, UpstreamTimeout, "upstream_timeout", True),
        (409, Conflict, "bad_thing", False),
        (413, TooLarge, "request_too_large", False),
        (418, BadRequest, "bad_thing", False),
        (422, Unprocessable, "bad_thing", False),
        (429, RateLimited, "upstream_rate_limited", True),
        (500, UpstreamError, "upstream_error", True),
        (502, UpstreamError, "upstream_error", True),
        (503, Unavailable, "upstream_overloaded", True),
        (504, UpstreamTimeout, "upstream_timeout", True),
        (529, Unavailable, "upstream_overloaded", True),
    ],
)
async def test_each_refusal_means_one_error_of_ours(connect, upstream, status, kind, code, falls_back):
    error = {"message": "It is so.", "type": "t", "param": "messages[0]", "code": "bad_thing"}
    upstream.script = answering({"error": error}, status)
    with pytest.raises(GatewayError) as caught:
        await send(connect())
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.may_fall_back) == (code, falls_back)
    tells = kind in (BadRequest, Conflict, NotFound, TooLarge, Unprocessable, RateLimited)
    assert ("It is so." in caught.value.message) is tells
    assert caught.value.param == {
        BadRequest: "messages[0]",
        Conflict: "messages[0]",
        Unprocessable: "messages[0]",
        NotFound: "model",
    }.get(kind)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 1.0),
        ("7", 7.0),
        ("2.5", 2.5),
        ("0", 1.0),
        ("-1", 1.0),
        ("NaN", 1.0),
        ("inf", 600.0),
        ("1e9", 600.0),
        ("soon", 1.0),
        ("", 1.0),
        (formatdate(1_700_000_030, usegmt=True), 30.0),
        (formatdate(1_600_000_000, usegmt=True), 1.0),
        (formatdate(1_900_000_000, usegmt=True), 600.0),
        ("Mon, 99 Foo 2026 00:00:00 GMT", 1.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_that_an_upstream_asks_for_is_kept_within_bounds(connect, upstream, status, value, seconds):
    upstream.script = answering({}, status, [] if value is None else [("Retry-After", value)])
    with pytest.raises(GatewayError) as caught:
        await send(connect())
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 502])
@pytest.mark.parametrize(
    "body",
    [
        b"<html><h1>nginx at 10.0.0.7</h1></html>",
        b"",
        b"\xff\xfe",
        b'{"error":{"message":"\xff"}}',
        b"[" * 100_000,
        b'{"error":{"message":{"nginx":1}},"detail":[{"nginx":2}]}',
        b"[]",
        b'"nginx"',
    ],
    ids=lambda body: body[:20],
)
async def test_a_page_that_is_no_error_object_is_never_repeated(connect, upstream, status, body):
    upstream.script = answering(body, status, content_type="text/html")
    with pytest.raises(GatewayError) as caught:
        await send(connect())
    assert "nginx" not in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Too long."}},
        [{"error": {"code": 400, "message": "Too long.", "status": "INVALID_ARGUMENT"}}],
        {"error": "Too long."},
        {"object": "error", "message": "Too long.", "type": "BadRequestError", "code": 400},
        {"detail": "Too long."},
    ],
    ids=str,
)
async def test_the_message_is_found_in_every_usual_shape(connect, upstream, body):
    upstream.script = answering(body, 400)
    with pytest.raises(BadRequest) as caught:
        await send(connect())
    assert (caught.value.message, caught.value.code) == ("Too long.", "invalid_value")


async def test_llama_cpps_word_for_a_full_context_becomes_openais(connect, upstream):
    upstream.script = answering({"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}}, 400)
    with pytest.raises(BadRequest) as caught:
        await send(connect())
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("status", [400, 404, 413, 429])
async def test_keys_and_addresses_in_a_refusal_are_not_repeated(connect, upstream, status):
    said = f"Key {KEY} (Bearer {KEY}) is bad, see https://intern.example/keys?k={KEY}"
    upstream.script = answering({"error": {"message": said, "code": KEY, "param": KEY}}, status)
    with pytest.raises(GatewayError) as caught:
        await send(connect())
    told = f"{caught.value.message} {caught.value.code} {caught.value.param} {caught.value!r}"
    assert KEY not in told
    assert "intern.example" not in told
    assert caught.value.message.startswith("Key *** (***) is bad")


async def test_a_refusal_that_breaks_off_still_counts(connect, upstream):
    async def script(talk):
        await talk.send(b"HTTP/1.1 429 No\r\ncontent-length: 100\r\nretry-after: 5\r\n\r\n{")
        talk.cut()

    upstream.script = script
    with pytest.raises(RateLimited) as caught:
        await send(connect())
    assert caught.value.retry_after == 5


async def test_no_upstream_is_an_error_that_another_may_answer(connect, upstream):
    await upstream.stop()
    with pytest.raises(UpstreamError) as caught:
        await send(connect())
    assert (caught.value.code, caught.value.may_fall_back) == ("upstream_unreachable", True)
    assert str(upstream.port) not in caught.value.message
    await upstream.start()


@pytest.mark.parametrize("wait_in_body", [False, True])
async def test_a_client_that_leaves_closes_the_upstreams_connection(connect, upstream, wait_in_body):
    reached, left = asyncio.Event(), asyncio.Event()

    async def script(talk):
        if wait_in_body:
            await talk.send(b"HTTP/1.1 400 No\r\ncontent-length: 100\r\n\r\n{")
        reached.set()
        with suppress(ConnectionError):
            await talk.left.wait()
        left.set()

    upstream.script = script
    going = asyncio.ensure_future(send(connect()))
    async with asyncio.timeout(30):
        await reached.wait()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await left.wait()


MODELS = [
    {"id": "up/a", "object": "model", "created": 1_700_000_000, "owned_by": "them"},
    {"id": "text-embed"},
    {"id": "Re-Rerank"},
]


@pytest.mark.parametrize("body", [{"object": "list", "data": MODELS}, MODELS, {"data": MODELS, "has_more": False}])
async def test_models_are_read_from_every_usual_list(connect, upstream, body):
    upstream.script = answering(body)
    chat, embedding, reranker = await connect(owned_by="house").models()
    assert (upstream.requests[0].method, upstream.requests[0].path) == ("GET", "/v1/models")
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert (chat.provider, chat.name, chat.id, chat.owned_by) == ("house", "up/a", "house/up/a", "them")
    assert (chat.created, embedding.created) == (1_700_000_000, 0)
    assert embedding.owned_by == "house"
    assert embedding.operations == {Operation.EMBEDDING, Operation.RERANK}
    assert reranker.operations == {Operation.RERANK}
    assert Operation.CHAT in chat.operations


@pytest.mark.parametrize("field", ["context_length", "context_window", "max_model_len", "max_context_length"])
async def test_the_context_length_is_found_under_every_name(connect, upstream, field):
    upstream.script = answering({"data": [{"id": "a", field: 8192}]})
    assert (await connect().models())[0].context_length == 8192


@pytest.mark.parametrize("odd", [-1, 0, "8k", 1e300, 10**30, None, [8192], {"max": 1}])
async def test_odd_facts_are_as_good_as_none_and_hide_no_model(connect, upstream, odd):
    row = {"id": "a", "context_length": odd, "max_model_len": 4096, "created": odd, "owned_by": odd}
    upstream.script = answering({"data": [row]})
    (model,) = await connect().models()
    assert (model.context_length, model.created) == (4096, 0)
    assert isinstance(model.owned_by, str)


async def test_rows_without_a_usable_name_are_left_out(connect, upstream):
    rows = [{}, {"id": None}, {"id": ""}, {"id": "x" * 300}, {"id": 5}, "a", None, {"id": "good"}]
    upstream.script = answering({"data": rows})
    assert [model.name for model in await connect().models()] == ["good"]


@pytest.mark.parametrize("body", [{"data": []}, {"object": "list", "data": None}, []])
async def test_an_upstream_may_offer_nothing(connect, upstream, body):
    upstream.script = answering(body)
    assert await connect().models() == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data":5}', b"null", b"[" * 100_000, b'{"data":["\xff"'])
async def test_what_is_no_list_is_the_upstreams_fault(connect, upstream, body):
    upstream.script = answering(body)
    with pytest.raises(UpstreamBroken):
        await connect().models()


async def test_a_list_may_be_refused(connect, upstream):
    upstream.script = answering({}, 401)
    with pytest.raises(UpstreamRefused):
        await connect().models()


async def test_a_prefix_of_the_list_is_taken_off(connect, upstream):
    upstream.script = answering({"data": [{"id": "models/gemini"}, {"id": "other"}]})
    assert [model.id for model in await connect(model_prefix="models/").models()] == ["house/gemini", "house/other"]


async def test_models_that_were_named_are_not_asked_for(connect, upstream):
    assert [model.id for model in await connect(models=("a", "b/c")).models()] == ["house/a", "house/b/c"]
    assert await connect(lists_models=False).models() == []
    assert upstream.requests == []


# --- several keys

KEYS = ("sk-first-Zx81abcdefgh", "sk-second-Zx81abcdefg", "sk-third-Zx81abcdefgh")


@pytest.fixture
def ring(connect):
    """Makes providers with several keys: `ring(2)`."""
    return lambda count=3: connect(keys=tuple(map(Secret, KEYS[:count])))


def by_key(**scripts):
    """Answers by which key is sent: `by_key(first=answering({}, 429))`; all others chat."""

    async def script(talk):
        name = talk.request.headers["authorization"].split("-")[1]
        await scripts.get(name, answering(completion(name)))(talk)

    return script


def used(upstream):
    return [request.headers["authorization"].split("-")[1] for request in upstream.requests]


def content(body):
    return json.loads(body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_the_next_key_answers_the_same_request_when_one_is_refused(ring, upstream, status):
    upstream.script = by_key(first=answering({}, status))
    assert content(await send(ring(2), make_call(user="me"))) == "second"
    first, second = upstream.requests
    assert used(upstream) == ["first", "second"]
    assert first.body == second.body


async def test_the_key_that_answered_is_stayed_with(ring, upstream):
    upstream.script = by_key(first=answering({}, 429))
    provider = ring(2)
    for _ in range(3):
        await send(provider)
    assert used(upstream) == ["first", "second", "second", "second"]


@pytest.mark.parametrize("status", [400, 404, 408, 413, 422, 500, 503])
async def test_what_lies_not_with_the_key_is_not_sent_with_another(ring, upstream, status):
    upstream.script = by_key(first=answering({}, status))
    with pytest.raises(GatewayError):
        await send(ring(2))
    assert used(upstream) == ["first"]


async def test_when_all_keys_are_refused_the_first_that_comes_back_is_told(ring, upstream):
    upstream.script = by_key(
        first=answering({}, 429, [("retry-after", "90")]),
        second=answering({"error": "you have reached your hourly usage limit"}, 429),
        third=answering({}, 429, [("retry-after", "40")]),
    )
    provider = ring()
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            await send(provider)
        assert (caught.value.code, caught.value.retry_after) == ("upstream_rate_limited", 40)
        assert caught.value.may_fall_back
    assert used(upstream) == ["first", "second", "third"]
    provider._clock.seconds += 40
    upstream.script = by_key()
    assert content(await send(provider)) == "third"
    assert [status.state for status in provider.key_status()] == ["cooling", "cooling", "ready"]


async def test_a_key_that_is_not_known_is_parked_and_named_once_by_its_place(ring, upstream, caplog):
    upstream.script = by_key(first=answering({}, 401))
    provider = ring(2)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert content(await send(provider)) == "second"
    assert used(upstream) == ["first", "second", "second", "second"]
    (message,) = caplog.messages
    assert "house does not know the key 1 of 2" in message
    assert "sk-" not in message
    provider.try_all_keys()
    upstream.script = by_key(second=answering({}, 429))
    assert content(await send(provider)) == "first"


async def test_keys_that_are_all_unknown_are_the_gateways_fault(ring, upstream):
    upstream.script = answering({}, 401)
    provider = ring(2)
    for _ in range(2):
        with pytest.raises(UpstreamRefused) as caught:
            await send(provider)
        assert caught.value.may_fall_back
    assert used(upstream) == ["first", "second", "second"]


async def test_a_forbidden_request_is_tried_with_every_key_and_held_against_none(ring, upstream):
    upstream.script = answering({}, 403)
    provider = ring()
    with pytest.raises(UpstreamRefused):
        await send(provider)
    assert used(upstream) == ["first", "second", "third"]
    assert {status.state for status in provider.key_status()} == {"ready"}


async def test_many_calls_at_once_all_find_the_key_that_answers(ring, upstream):
    upstream.script = by_key(
        first=answering({}, 429, [("retry-after", "60")]), second=answering({"error": "weekly limit"}, 429)
    )
    provider = ring()
    answers = await asyncio.gather(*(send(provider) for _ in range(30)))
    assert {content(answer) for answer in answers} == {"third"}
    assert max(used(upstream).count(name) for name in ("first", "second")) <= 30
    upstream.requests.clear()
    await asyncio.gather(*(send(provider) for _ in range(30)))
    assert set(used(upstream)) == {"third"}


async def test_the_limit_of_one_model_leaves_the_key_to_another(ring, upstream):
    upstream.script = by_key(first=answering({}, 429))
    provider = ring(2)
    await send(provider)
    provider._keys.succeeded(0)
    upstream.script = by_key()
    call = make_call()
    async with asyncio.timeout(30):
        other = Target(provider="house", model="other")
        assert content(await (await provider.send(call, other, call.wire, call.fields)).read()) == "first"


async def test_no_key_is_repeated_whichever_was_sent(ring, upstream):
    upstream.script = answering({"error": {"message": f"bad: {' '.join(KEYS)}"}}, 400)
    with pytest.raises(BadRequest) as caught:
        await send(ring())
    assert not any(key in caught.value.message for key in KEYS)


async def test_the_list_of_models_is_asked_for_with_the_next_key_too(ring, upstream):
    upstream.script = by_key(first=answering({}, 401), second=answering({"data": MODELS}))
    assert len(await ring().models()) == len(MODELS)
    assert used(upstream) == ["first", "second"]


async def test_a_single_key_is_asked_with_however_often_it_was_refused(connect, upstream):
    upstream.script = answering({}, 429, [("retry-after", "60")])
    provider = connect()
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            await send(provider)
        assert caught.value.retry_after == 60
    assert len(upstream.requests) == 2
    assert [(status.index, status.state) for status in provider.key_status()] == [(0, "ready")]


async def test_who_has_no_key_has_no_state_of_one(connect):
    assert connect(keys=()).key_status() == []


ELSEWHERE = [
    {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}},
    {"type": "image_url", "image_url": "https://example.com/a.png"},
    {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
    {"type": "input_audio", "input_audio": {"data": "http://127.0.0.1/a.wav", "format": "wav"}},
]


@pytest.mark.parametrize("part", ELSEWHERE)
async def test_a_server_of_the_operators_own_is_not_sent_to_fetch_something(connect, upstream, part):
    messages = [{"role": "user", "content": [{"type": "text", "text": "?"}, part]}]
    with pytest.raises(BadRequest) as caught:
        await send(connect(local=True), make_call(messages=messages))
    assert (caught.value.param, caught.value.code) == ("messages[0].content", "unsupported_value")
    assert upstream.requests == []
    # A vendor fetches it in a network of its own.
    await send(connect(), make_call(messages=messages))


async def test_a_server_of_the_operators_own_takes_pictures_and_sound_as_data(connect, upstream):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    messages = [{"role": "user", "content": [picture, sound]}]
    await send(connect(local=True), make_call(messages=messages))
    assert upstream.requests[0].json["messages"] == messages
