import asyncio

import pytest
from standardwebhooks import Webhook

from stellwerk.core.errors import UpstreamTimeout
from stellwerk.http.egress import Egress
from stellwerk.webhooks.attempt import Receiver, attempt
from stellwerk.webhooks.signing import new_secret

SECRET = new_secret()
BODY = b'{"type":"key.parked","timestamp":"2026-11-21T00:00:00Z","data":{}}'


@pytest.fixture
def post(upstream, clock):
    async def run(script=None, *, send=None, seconds=60.0, allowed=True):
        if script is not None:
            upstream.script = script
        egress = Egress(lambda: [f"http://127.0.0.1:{upstream.port}"] if allowed else [])
        receiver = Receiver(url=f"http://127.0.0.1:{upstream.port}/hook", secrets=(SECRET,))
        return await attempt(send or egress.send, receiver, "msg_1", BODY, clock=clock, seconds=seconds)

    return run


def answering(status, **more):
    async def script(talk):
        await talk.answer(b"what the receiver says", status=status, **more)

    return script


async def test_a_message_arrives_signed(post, upstream):
    result = await post(answering(204))
    assert result.delivered
    [request] = upstream.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook", BODY)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Stellwerk/")
    assert request.headers["webhook-id"] == "msg_1"
    assert Webhook(SECRET.reveal()).verify(request.body, request.headers)["type"] == "key.parked"


async def test_a_redirect_is_not_followed(post, upstream):
    result = await post(answering(307, headers=[("location", f"http://127.0.0.1:{upstream.port}/other")]))
    assert result.status == 307
    assert result.error == "The receiver redirects, and redirects are not followed."
    assert len(upstream.requests) == 1


async def test_a_failure_names_the_status_and_repeats_nothing(post):
    result = await post(answering(500))
    assert (result.status, result.error) == (500, "The receiver answered 500.")


async def test_the_receiver_says_when_to_come_again(post):
    assert (await post(answering(503, headers=[("Retry-After", "77")]))).retry_after == 77


async def test_a_receiver_that_hangs_is_given_up(post):
    async def hang(talk):
        await talk.left.wait()

    result = await post(hang, seconds=0.05)
    assert result.status is None
    assert "in time" in result.error


async def test_a_receiver_that_breaks_off_has_not_taken_the_message(post):
    async def cut(talk):
        talk.cut()

    result = await post(cut)
    assert result.status is None
    assert result.error


async def test_an_address_that_is_not_allowed_gets_no_connection(post, upstream):
    result = await post(answering(200), allowed=False)
    assert result.status is None
    assert "public" in result.error
    assert "127.0.0.1" not in result.error
    assert upstream.connections == 0


async def test_an_endless_answer_is_not_read_to_its_end(post):
    async def pour(talk):
        await talk.start_stream()
        while not talk.left.is_set():
            try:
                await talk.chunk(bytes(65536))
            except ConnectionError:
                return

    result = await post(pour)
    assert not result.delivered


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (UpstreamTimeout("The URL did not answer in time."), "The URL did not answer in time."),
        (TimeoutError(), "The receiver did not answer in time."),
        (ConnectionRefusedError("10.1.2.3"), "The receiver cannot be reached."),
        (ZeroDivisionError("secret"), "The delivery failed inside the gateway."),
    ],
)
async def test_whatever_goes_wrong_is_a_result_without_addresses(post, failure, said, caplog):
    caplog.set_level("CRITICAL", "stellwerk.webhooks.attempt")

    async def send(*arguments, **named):
        raise failure

    assert (await post(send=send)).error == said


async def test_who_is_cancelled_is_cancelled(post):
    started = asyncio.Event()

    async def hang(talk):
        started.set()
        await talk.left.wait()

    task = asyncio.create_task(post(hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
