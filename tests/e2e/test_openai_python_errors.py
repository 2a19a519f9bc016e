"""Which error OpenAI's own Python client raises for what goes wrong, and when it comes back by itself."""

import asyncio

import openai
import pytest

from tests.openai_client import HELLO, client_of, new_key, text_of
from tests.scripted_upstream import Talk, chat, chunk
from tests.upstream_scripts import failing

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- errors


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("status", "error", "given"),
    [
        (400, openai.BadRequestError, 400),
        (401, openai.InternalServerError, 502),
        (402, openai.InternalServerError, 502),
        (403, openai.InternalServerError, 502),
        (404, openai.NotFoundError, 404),
        (409, openai.ConflictError, 409),
        (413, openai.APIStatusError, 413),
        (422, openai.UnprocessableEntityError, 422),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 502),
        (502, openai.InternalServerError, 502),
        (503, openai.InternalServerError, 503),
        (504, openai.InternalServerError, 504),
        (529, openai.InternalServerError, 503),
    ],
)
async def test_a_refusal_of_the_upstream_becomes_the_right_error(client, upstream, status, error, given, stream):
    upstream.script = failing(status)
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model="up/up", messages=HELLO, stream=stream)
    assert caught.value.status_code == given
    assert caught.value.request_id is not None
    assert isinstance(caught.value.body, dict)
    assert caught.value.code
    if given in (400, 404, 409, 422, 429):
        assert f"reason {status}" in caught.value.message
    if given in (400, 409, 422):
        assert (caught.value.param, caught.value.code) == ("seed", "why")


async def test_a_wrong_key_is_an_authentication_error(gateway, upstream):
    async with client_of(gateway, "sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="up/up", messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("options", "code"),
    [(("--models", "up/vendor/family:large"), "model_access_denied"), (("--role", "viewer"), "permission_denied")],
)
async def test_a_key_that_may_not_is_a_permission_error(gateway, upstream, options, code):
    async with client_of(gateway, await new_key(gateway, *options)) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await client.chat.completions.create(model="up/up", messages=HELLO)
    assert caught.value.code == code
    assert upstream.requests == []


async def test_a_key_sees_only_the_models_that_it_may_use(gateway):
    async with client_of(gateway, await new_key(gateway, "--models", "up/vendor/family:large")) as client:
        assert [model.id async for model in client.models.list()] == ["up/vendor/family:large"]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("up/up")


async def test_an_unknown_model_is_a_not_found_error(client, upstream):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert upstream.requests == []


async def test_a_wrong_value_is_a_bad_request_error_and_never_a_422(client, upstream):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="up/up", messages=HELLO, temperature=9)
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")
    assert upstream.requests == []


async def test_an_upstream_that_hangs_is_a_504(client, upstream):
    async def hang(talk: Talk) -> None:
        await talk.left.wait()

    upstream.script = hang
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="hasty/silent", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


async def test_a_client_that_gives_up_leaves_a_row(gateway, client, upstream):
    async def begin_and_hang(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        await talk.left.wait()

    upstream.script = begin_and_hang
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=2).chat.completions.create(
            model="up/up", messages=HELLO, extra_headers={"x-request-id": "gave-up"}
        )
    assert (await gateway.call("gave-up"))["status"] == 499


async def test_an_error_in_the_middle_of_a_stream_is_raised_by_the_client(client, upstream):
    async def cut(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Hel"))
        talk.cut()

    upstream.script = cut
    stream = await client.chat.completions.create(model="up/up", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as caught:
        await text_of(stream)
    assert caught.value.code == "upstream_broken"


# --- coming back


async def test_a_client_that_is_told_to_wait_comes_back_when_it_was_told(gateway, upstream):
    key = await new_key(gateway, "--requests-per-minute", "600", "--burst", "10")
    async with client_of(gateway, key) as hasty:
        # At once: one after the other they could be slow enough.
        asking = [hasty.chat.completions.create(model="up/up", messages=HELLO) for _ in range(100)]
        said = await asyncio.gather(*asking, return_exceptions=True)
        refused = [answer for answer in said if isinstance(answer, Exception)]
        assert {type(error) for error in refused} == {openai.RateLimitError}
        for error in refused:
            assert 0 < int(error.response.headers["retry-after-ms"]) <= 100
            assert error.response.headers["retry-after"] == "1"
        asked = len(upstream.requests)
        # Without the header it would wait for about half a second at first, and with it not long enough for less.
        patient = hasty.with_options(max_retries=5)
        for _ in range(5):
            await patient.chat.completions.create(model="up/up", messages=HELLO)
    assert len(upstream.requests) == asked + 5


async def test_an_overloaded_upstream_is_asked_again_by_the_client(client, upstream):
    async def busy_once(talk: Talk) -> None:
        await (failing(503, retry_after="1") if len(upstream.requests) == 1 else chat)(talk)

    upstream.script = busy_once
    answer = await client.with_options(max_retries=1).chat.completions.create(model="up/up", messages=HELLO)
    assert answer.choices[0].message.content == "Hello"
    assert len(upstream.requests) == 2


async def test_a_wrong_request_is_not_sent_again(client, upstream):
    upstream.script = failing(400)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.with_options(max_retries=3).chat.completions.create(model="up/up", messages=HELLO)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1
