import asyncio
import json

import msgspec
import pytest

from stellwerk.api.jobs.performer import MOST_PATIENT, CallPerformer, prepare_body
from stellwerk.core.errors import (
    Forbidden,
    GatewayError,
    InsufficientCredit,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.principal import Priority
from stellwerk.jobs.job import Job, Lease, Leased, State
from tests.port_fakes import ALICE, StillClock, sse
from tests.scripted_upstream import chunk, usage_chunk

CHAT = "/v1/chat/completions"
JSON = ((b"content-type", b"application/json"),)
STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"),)


class Heard:
    def __init__(self):
        self.pieces = []

    def piece(self, data):
        self.pieces.append(data)

    def progress(self, done, total=None, unit=""):
        raise AssertionError("calls tell no progress")


def leased(path=CHAT, body=None, priority=Priority.LOW):
    job = Job(
        id="j",
        kind="call",
        queue="up/up",
        path=path,
        key_id="key_alice",
        user_id=7,
        client_id="",
        priority=priority,
        labels={},
        created_at=0.0,
        queued_at=0.0,
        deadline_at=1.0,
        state=State.LEASED,
        attempts=1,
    )
    content = json.dumps(body or {"model": "up/up", "messages": []}).encode()
    return Leased(job=job, body=content, lease=Lease(number=1, job_id="j", owner="o", fence=4), attempt=1)


class Site:
    """A performer whose handler is `handle`, and what both have seen."""

    def __init__(self, handle, *, path=CHAT, most=1 << 20, patience=5.0):
        self.requests, self.pauses, self.sink = [], [], Heard()
        self.refusal = None
        self.complete = True

        async def handler(request):
            self.requests.append(request)
            await handle(request.exchange)

        async def pause(seconds):
            self.pauses.append(seconds)

        self.handler = handler
        self.performer = CallPerformer(
            {("POST", path): handler},
            self.find,
            StillClock(),
            result_bytes=most,
            complete=lambda: self.complete,
            pause=pause,
            patience=patience,
        )

    def find(self, key_id, user_id):
        assert (key_id, user_id) == ("key_alice", 7)
        if self.refusal is not None:
            raise self.refusal
        return ALICE

    async def perform(self, **fields):
        return await self.performer(leased(**fields), self.sink)


def answering(*events):
    async def handle(exchange):
        exchange.start(200, STREAM)
        for event in events:
            exchange.write(sse(event))
        exchange.finish()

    return handle


def raising(*errors):
    left = list(errors)

    async def handle(exchange):
        if left:
            raise left.pop(0)
        exchange.respond(200, JSON, b"{}")

    return handle


async def test_a_chat_is_streamed_to_who_listens_and_kept_as_a_whole():
    site = Site(answering(chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage_chunk(), "[DONE]"))
    performed = await site.perform()
    assert b"".join(site.sink.pieces) == b"Hello"
    assert (performed.status, performed.good) == (200, True)
    assert json.loads(performed.result)["choices"][0]["message"]["content"] == "Hello"
    request = site.requests[0]
    assert json.loads(request.exchange.body)["stream"] is True
    assert (request.id, request.background, request.principal) == ("job_j_4", True, ALICE)
    assert request.exchange.headers[b"x-stellwerk-priority"] == b"low"


async def test_another_call_is_asked_for_as_a_whole():
    async def handle(exchange):
        exchange.respond(200, JSON, b'{"data":[]}')

    site = Site(handle, path="/v1/embeddings")
    performed = await site.perform(path="/v1/embeddings", body={"model": "m", "input": "x", "stream": True})
    assert (performed.status, performed.result, performed.result_type) == (200, b'{"data":[]}', "application/json")
    assert "stream" not in json.loads(site.requests[0].exchange.body)


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("Later.", code="upstream_rate_limited", retry_after=7),
        UpstreamError("No."),
        UpstreamBroken("No."),
        UpstreamTimeout("No."),
        Unavailable("No.", code="model_failed"),
    ],
)
async def test_what_may_pass_is_tried_again(error):
    performed = await Site(raising(error)).perform()
    assert (performed.retry, performed.status, performed.error.code) == (True, error.status, error.code)
    assert performed.retry_after == error.retry_after
    assert json.loads(performed.result)["error"]["code"] == error.code


@pytest.mark.parametrize("error", [Forbidden("No."), InsufficientCredit("No."), GatewayError("No.")])
async def test_what_does_not_pass_is_not_tried_again(error):
    performed = await Site(raising(error)).perform()
    assert (performed.retry, performed.good, performed.status) == (False, False, error.status)


async def test_who_is_shut_out_meanwhile_gets_nothing():
    site = Site(raising())
    site.refusal = Unauthenticated("Gone.", code="revoked_api_key")
    performed = await site.perform()
    assert (performed.status, performed.retry, performed.error.code) == (401, False, "revoked_api_key")
    assert site.requests == []


async def test_a_route_that_is_not_there_any_more_is_404():
    assert (await Site(raising()).perform(path="/v1/gone")).status == 404


async def test_the_callers_own_limit_is_waited_for_without_a_new_attempt():
    limited = RateLimited("Later.", retry_after=2)
    site = Site(raising(limited, limited), path="/v1/embeddings")
    performed = await site.perform(path="/v1/embeddings")
    assert (performed.good, site.pauses, len(site.requests)) == (True, [2, 2], 3)


async def test_a_job_whose_turn_does_not_come_soon_is_put_off():
    site = Site(raising(*[RateLimited("Later.", retry_after=2)] * 9))
    performed = await site.perform()
    assert (performed.postponed, performed.retry_after, site.pauses) == ("key", 2, [2, 2])


@pytest.mark.parametrize("code", ["overloaded", "queue_full", "queue_timeout", "circuit_open"])
async def test_a_model_that_takes_nothing_now_is_not_waited_for_by_a_worker(code):
    site = Site(raising(Unavailable("Busy.", code=code, retry_after=3)))
    performed = await site.perform()
    assert (performed.postponed, performed.retry_after, site.pauses) == ("queue", 3, [])


async def test_a_model_that_its_provider_may_still_tell_of_is_not_missing_yet():
    missing = NotFound("There is no such model.", code="model_not_found")
    site = Site(raising(missing, missing))
    site.complete = False
    performed = await site.perform()
    assert (performed.postponed, site.pauses) == ("queue", [])
    site.complete = True
    assert (await site.perform()).status == 404


async def test_only_a_few_wait_for_their_own_limit():
    site = Site(raising(*[RateLimited("Later.", retry_after=1)] * 9))
    waiting, all_wait, go_on = [], asyncio.Event(), asyncio.Event()

    async def pause(seconds):
        waiting.append(seconds)
        if len(waiting) == MOST_PATIENT:
            all_wait.set()
        await go_on.wait()

    handlers = {("POST", CHAT): site.handler}
    site.performer = CallPerformer(handlers, site.find, StillClock(), result_bytes=99, pause=pause)
    patient = [asyncio.create_task(site.perform()) for _ in range(MOST_PATIENT)]
    await all_wait.wait()
    assert (await site.perform()).postponed == "key"
    for task in patient:
        task.cancel()
    await asyncio.gather(*patient, return_exceptions=True)


async def test_an_error_inside_the_stream_is_the_outcome():
    error = {"message": "The upstream broke off.", "type": "upstream_error", "code": "upstream_broken"}
    performed = await Site(answering(chunk("a"), {"error": error})).perform()
    assert (performed.status, performed.retry, performed.error.code) == (502, True, "upstream_broken")
    refused = await Site(answering({"error": {"message": "x", "type": "invalid_request_error", "code": "c"}})).perform()
    assert (refused.status, refused.retry) == (400, False)


async def test_a_stream_without_an_end_is_broken():
    performed = await Site(answering(chunk("a"))).perform()
    assert (performed.status, performed.retry, performed.error.code) == (502, True, "upstream_broken")


async def test_an_answer_that_is_too_large_is_cut_and_fails():
    cut = asyncio.Event()

    async def handle(exchange):
        exchange.start(200, STREAM)
        exchange.write(sse(chunk("a" * 2000)))
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    performed = await Site(handle, most=1000).perform()
    assert cut.is_set()
    assert (performed.status, performed.retry, performed.error.code) == (413, False, "result_too_large")


async def test_a_whole_answer_that_is_too_large_fails_too():
    async def handle(exchange):
        exchange.respond(200, JSON, b"a" * 2000)

    performed = await Site(handle, path="/v1/embeddings", most=1000).perform(path="/v1/embeddings")
    assert performed.error.code == "result_too_large"


async def test_a_job_that_is_cancelled_cuts_its_call():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(Site(handle).perform())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 30)


def test_options_of_the_stream_are_kept():
    body, streams = prepare_body(CHAT, b'{"model":"m","stream_options":{"include_obfuscation":false}}')
    assert streams
    assert msgspec.json.decode(body)["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize("body", [b'{"modalities":["text","audio"]}', b'{"audio":{"voice":"x"}}', b"{", b"[]"])
def test_sound_and_nonsense_are_not_streamed(body):
    assert prepare_body(CHAT, body) == (body, False)
