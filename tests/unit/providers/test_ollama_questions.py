"""What is asked of an Ollama beside the calls of models, and for which key an answer comes."""

import asyncio
import json

import pytest

from stellwerk.core.errors import BadRequest, NotFound, RateLimited, Unavailable, UpstreamRefused
from stellwerk.core.plan import Target
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import parse_base_url
from stellwerk.providers.ollama import Ollama
from stellwerk.providers.ollama_native import OllamaNative
from stellwerk.providers.openai_compatible import ProviderSettings
from tests.port_fakes import StillClock, make_call
from tests.upstream_scripts import answering, failing

KEYS = ("first-canary-key", "second-canary-key")
TARGET = Target(provider="ollama-cloud", model="llama3")


@pytest.fixture
def connect(pools, upstream):
    def make(*keys, **settings):
        made = ProviderSettings(
            **{"name": "ollama-cloud", "base_url": upstream.url, "keys": tuple(map(Secret, keys)), **settings}
        )
        return OllamaNative(made, pools.pool(parse_base_url(made.base_url)[0]), StillClock())

    return make


async def ask(provider, method="GET", target="/api/tags", body=b""):
    async with asyncio.timeout(30):
        return await provider.ask(method, target, body, seconds=1e9)


async def test_a_question_goes_below_the_address_with_the_key_and_its_answer_comes_whole(connect, upstream):
    upstream.script = answering(200, {"results": []})
    assert await ask(connect(KEYS[0]), "POST", "/api/web_search?a=b", b'{"query":"x"}') == (
        b"application/json",
        b'{"results":[]}',
    )
    await ask(connect(KEYS[0]))
    first, second = upstream.requests
    assert (first.method, first.path, first.body) == ("POST", "/api/web_search?a=b", b'{"query":"x"}')
    assert (second.method, second.path, second.body) == ("GET", "/api/tags", b"")
    assert {each.headers["authorization"] for each in upstream.requests} == {f"Bearer {KEYS[0]}"}
    assert "content-length" not in second.headers


async def test_a_key_that_is_refused_is_followed_by_the_next(connect, upstream):
    async def refuse_the_first(talk):
        first = talk.request.headers["authorization"].endswith(KEYS[0])
        await talk.answer({"error": "hourly usage limit"} if first else {}, status=429 if first else 200)

    upstream.script = refuse_the_first
    provider = connect(*KEYS)
    for _ in range(2):
        assert (await ask(provider))[1] == b"{}"
    assert [each.headers["authorization"][7:] for each in upstream.requests] == [KEYS[0], KEYS[1], KEYS[1]]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, BadRequest), (401, UpstreamRefused), (404, NotFound), (429, RateLimited), (503, Unavailable)],
)
@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
async def test_an_answer_that_is_none_is_the_same_error_as_for_a_call(connect, upstream, status, error, keys):
    upstream.script = failing(status)
    with pytest.raises(error):
        await ask(connect(*keys))


async def test_an_answer_that_repeats_a_key_does_not_bring_it_on(connect, upstream):
    async def repeat(talk):
        await talk.answer(talk.request.headers)

    upstream.script = repeat
    _, body = await ask(connect(*KEYS, headers=(("x-empty", ""), ("x-short", "a"))))
    assert json.loads(body)["authorization"] == "Bearer ***"
    assert json.loads(body)["accept-encoding"] == "identity"


async def test_a_cloud_is_asked_for_its_models_with_the_key_and_they_are_not_of_this_machine(connect, upstream):
    async def list_models(talk):
        if talk.request.path == "/api/tags":
            await talk.answer({"models": [{"name": "gpt-oss:120b", "digest": "d", "size": 9}]})
        else:
            await talk.answer({"capabilities": ["completion", "tools"], "model_info": {}})

    upstream.script = list_models
    provider = connect(KEYS[0])
    [model] = await Ollama(provider.fetch, address="", name="ollama-cloud", local=False).models()
    assert (model.id, model.local, model.shortcode, model.size_bytes) == (
        "ollama-cloud/gpt-oss:120b",
        False,
        None,
        None,
    )
    assert "tools" in model.parameters
    assert {each.headers["authorization"] for each in upstream.requests} == {f"Bearer {KEYS[0]}"}


@pytest.mark.parametrize(("keys", "expected"), [((), None), (KEYS[:1], 0), (KEYS, 1)])
async def test_an_answer_knows_the_key_that_it_came_for(connect, upstream, keys, expected):
    async def refuse_the_first(talk):
        refused = len(keys) > 1 and talk.request.headers["authorization"].endswith(KEYS[0])
        await talk.answer({}, status=429 if refused else 200)

    upstream.script = refuse_the_first
    provider, call = connect(*keys), make_call()
    async with asyncio.timeout(30):
        answer = await provider.send(call, TARGET, call.wire, call.fields)
    assert answer.key == expected
    answer.abort()
