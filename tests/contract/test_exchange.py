"""What every handler may rely on, whichever way its exchange was made."""

import asyncio
import json

import pytest
import pytest_asyncio

from stellwerk.http.guard import GuardSettings
from tests.http_answers import split_answers
from tests.running_listener import listening

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = GuardSettings(body_bytes=100_000)


@pytest_asyncio.fixture(params=["own protocol", "uvicorn's protocol"], scope="module", loop_scope="module")
async def listener(request):
    async with listening(SETTINGS, plain=request.param != "own protocol") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def running(listener):
    yield listener
    await listener.disconnect()


def request(method=b"GET", target=b"/echo", body=b"", extra=b"connection: close\r\n") -> bytes:
    length = b"content-length: %d\r\n" % len(body) if body or method == b"POST" else b""
    return b"%b %b HTTP/1.1\r\nhost: localhost\r\n%b%b\r\n%b" % (method, target, length, extra, body)


async def ask(running, data, **more):
    [answer] = split_answers(await running.exchange(data), **more)
    return answer


async def test_a_handler_sees_the_request_as_it_came(running):
    fields = b"X-One: 1\r\nAccept: a\r\naccept: b\r\nconnection: close\r\n"
    answer = await ask(running, request(b"POST", b"/echo?a=1&b=%20", b"b\xf6dy", fields))
    seen = json.loads(answer.body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert {name: seen[name] for name in ("method", "path", "query", "body")} == {
        "method": "POST",
        "path": "/echo",
        "query": "a=1&b=%20",
        "body": "b\xf6dy",
    }
    assert seen["headers"]["x-one"] == "1"
    assert seen["headers"]["accept"] == "a, b"


async def test_a_path_stays_encoded(running):
    answer = await ask(running, request(target=b"/things/a%2Fb%20c"))
    assert json.loads(answer.body)["path"] == "/things/a%2Fb%20c"


async def test_the_peer_is_the_other_end_of_the_socket_whatever_a_header_says(running):
    async def tell(exchange):
        exchange.respond(200, (), exchange.peer.encode())

    running.add("GET", "/peer", tell)
    answer = await ask(running, request(target=b"/peer", extra=b"x-forwarded-for: 9.9.9.9\r\nconnection: close\r\n"))
    assert answer.body == b"127.0.0.1"


async def test_a_chunked_body_arrives_whole(running):
    data = b"POST /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await ask(running, data + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    assert json.loads(answer.body)["body"] == "abcdefg"


async def test_requests_share_a_connection(running):
    data = request(b"POST", body=b"one", extra=b"") + request(b"POST", body=b"two", extra=b"") + request()
    answers = split_answers(await running.exchange(data))
    assert [json.loads(answer.body)["body"] for answer in answers] == ["one", "two", ""]


@pytest.mark.parametrize("status", [200, 201, 404, 429, 529])
async def test_any_status_can_be_answered(running, status):
    async def answer_with(exchange):
        exchange.respond(status, ((b"retry-after", b"1"),), b"body")

    running.add("GET", f"/status/{status}", answer_with)
    answer = await ask(running, request(target=b"/status/%d" % status))
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, b"body", "1")


async def test_a_stream_is_sent_as_it_is_written(running):
    go = asyncio.Event()

    async def stream(exchange):
        exchange.start(200, ((b"content-type", b"text/event-stream"),))
        exchange.write(b"first")
        exchange.write(b"")
        assert exchange.started
        await go.wait()
        exchange.write(b"second")
        exchange.finish()

    running.add("GET", "/stream", stream)
    reader, writer = await running.connect()
    writer.write(request(target=b"/stream"))
    async with asyncio.timeout(30):
        got = await reader.readuntil(b"first")
        go.set()
        got += await reader.read()
    [answer] = split_answers(got)
    assert (answer.status, answer.body, answer.whole) == (200, b"firstsecond", True)
    assert answer.headers["transfer-encoding"] == "chunked"


async def test_a_connection_serves_on_after_a_stream(running):
    async def stream(exchange):
        exchange.start(200, ())
        exchange.write(b"streamed")
        exchange.finish()

    running.add("GET", "/short-stream", stream)
    answers = split_answers(await running.exchange(request(target=b"/short-stream", extra=b"") + request()))
    assert [answer.status for answer in answers] == [200, 200]


async def test_a_body_that_is_broken_off_is_seen_as_cut_short(running):
    async def break_off(exchange):
        exchange.start(200, ())
        exchange.write(b"half")
        await asyncio.sleep(0)
        exchange.break_off()
        assert exchange.closed
        exchange.write(b"more")
        exchange.finish()

    running.add("GET", "/broken", break_off)
    got = await running.exchange(request(target=b"/broken", extra=b""))
    assert all(not answer.whole for answer in split_answers(got))
    assert b"more" not in got


async def test_a_handler_is_cancelled_when_its_client_leaves(running):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(exchange):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert exchange.closed
            exchange.respond(200, (), b"nobody reads this")
            cancelled.set()
            raise

    running.add("GET", "/wait", wait)
    _, writer = await running.connect()
    writer.write(request(target=b"/wait"))
    async with asyncio.timeout(30):
        await begun.wait()
        writer.transport.abort()
        await cancelled.wait()


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_handler_does_after_its_answer_is_not_cut_short(running, streamed):
    client_left, settled = asyncio.Event(), asyncio.Event()

    async def answer_and_settle(exchange):
        if streamed:
            exchange.start(200, ())
            exchange.write(b"done")
            exchange.finish()
        else:
            exchange.respond(200, (), b"done")
        await client_left.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        settled.set()

    path = f"/settle/{streamed}"
    running.add("GET", path, answer_and_settle)
    answer = await ask(running, request(target=path.encode()))
    assert answer.body == b"done"
    await running.disconnect()
    client_left.set()
    async with asyncio.timeout(30):
        await settled.wait()


async def test_a_source_is_held_back_while_the_client_does_not_read_and_let_go_when_it_does(running):
    size = 64 * 1024
    held, let_go = asyncio.Event(), asyncio.Event()
    written = 0

    class Source:
        def pause_reading(self):
            held.set()

        def resume_reading(self):
            if held.is_set():
                let_go.set()

    async def flood(exchange):
        nonlocal written
        exchange.start(200, ())
        exchange.feed_from(Source())
        while not held.is_set():
            exchange.write(b"x" * size)
            written += size
            await asyncio.sleep(0)
        await let_go.wait()
        exchange.feed_from(None)
        exchange.finish()

    running.add("GET", "/flood", flood)
    reader, writer = await running.connect()
    writer.write(request(target=b"/flood"))
    async with asyncio.timeout(30):
        await held.wait()
        assert written < 100_000_000
        [answer] = split_answers(await reader.read())
    assert (len(answer.body), answer.whole) == (written, True)


async def test_head_is_answered_like_get_without_a_body(running):
    answer = await ask(running, request(b"HEAD"), head=True)
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0


async def test_an_unknown_path_is_404(running):
    answer = await ask(running, request(target=b"/nowhere"))
    assert (answer.status, json.loads(answer.body)["code"]) == (404, "unknown_url")


async def test_a_wrong_method_is_405_and_names_the_right_ones(running):
    answer = await ask(running, request(b"DELETE"))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize("target", [b"/echo", b"/nowhere"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_above_the_bound_is_413_or_cut(running, target, chunked):
    body = b"x" * (SETTINGS.body_bytes + 1)
    data = request(b"POST", target, body)
    if chunked:
        head = (
            b"POST %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n" % target
        )
        data = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    got = await running.exchange(data)
    answers = split_answers(got)
    # A path that is not ours is cut by the guard before its reader has said anything.
    assert [answer.status for answer in answers] == [413] or (chunked and target == b"/nowhere" and not answers)


async def test_a_body_at_the_bound_is_taken(running):
    body = b"x" * SETTINGS.body_bytes
    answer = await ask(running, request(b"POST", body=body))
    assert len(json.loads(answer.body)["body"]) == len(body)
