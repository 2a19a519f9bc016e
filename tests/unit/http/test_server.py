import asyncio
import json

import pytest

from stellwerk.http.guard import GuardSettings
from tests.upstream_calls import until

HOST = b"Host: localhost\r\n"


def request(method=b"GET", target=b"/echo", body=b"", extra=b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body or method == b"POST" else b""
    return b"%b %b HTTP/1.1\r\n%b%b%b\r\n%b" % (method, target, HOST, length, extra, body)


def closing(method=b"GET", target=b"/echo", body=b"", extra=b"") -> bytes:
    return request(method, target, body, extra + b"Connection: close\r\n")


def split(answer: bytes):
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


async def test_a_request_reaches_its_handler_whole(serve):
    running = await serve()
    status, headers, body = split(await running.exchange(closing(b"POST", b"/echo?a=1", b"hello", b"X-One: 1\r\n")))
    seen = json.loads(body)
    assert status == 200
    assert headers["connection"] == "close"
    assert "gmt" in headers["date"]
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/echo", "a=1", "hello")
    assert seen["headers"]["x-one"] == "1"


async def test_two_requests_share_a_connection_and_pipelined_ones_are_answered_in_order(serve):
    running = await serve()
    data = request(b"POST", body=b"first") + request(b"POST", body=b"second") + closing(b"POST", body=b"third")
    answer = await running.exchange(data)
    assert [answer.find(word) > 0 for word in (b"first", b"second", b"third")] == [True] * 3
    assert answer.find(b"first") < answer.find(b"second") < answer.find(b"third")


@pytest.mark.parametrize("size", [1, 3, 17])
async def test_it_does_not_matter_how_the_network_cuts_a_request(serve, size):
    running = await serve()
    reader, writer = await running.connect()
    data = closing(b"POST", b"/echo", b"x" * 50)
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await writer.drain()
    status, _, body = split(await reader.read())
    assert status == 200
    assert json.loads(body)["body"] == "x" * 50
    writer.close()


async def test_a_chunked_body_is_put_together(serve):
    running = await serve()
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, _, body = split(await running.exchange(head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"))
    assert status == 200
    assert json.loads(body)["body"] == "abcdefg"


async def test_an_unknown_path_is_answered_by_the_asgi_side_and_the_connection_comes_back(serve):
    running = await serve()
    data = request(target=b"/nowhere") + request(b"POST", b"/nowhere", b"body") + closing(b"POST", body=b"after")
    answer = await running.exchange(data)
    assert answer.count(b"HTTP/1.1 404") == 2
    assert b"unknown_url" in answer
    assert answer.rstrip().endswith(b"}")
    assert b'"body":"after"' in answer


async def test_a_wrong_method_names_the_right_ones(serve):
    running = await serve()
    status, headers, _ = split(await running.exchange(closing(b"DELETE")))
    assert status == 405
    assert headers["allow"] == "get, head, post"


async def test_head_has_the_length_and_no_body(serve):
    running = await serve()
    status, headers, body = split(await running.exchange(closing(b"HEAD")))
    assert status == 200
    assert int(headers["content-length"]) > 0
    assert body == b""


async def test_a_refused_head_has_no_body_either(serve):
    running = await serve()
    for target in (b"//echo", b"/echo%00"):
        status, headers, body = split(await running.exchange(closing(b"HEAD", target)))
        assert status == 400
        assert int(headers["content-length"]) > 0
        assert body == b""


async def test_a_path_below_a_prefix_reaches_its_handler_still_encoded(serve):
    running = await serve()
    _, _, body = split(await running.exchange(closing(target=b"/things/a%2Fb")))
    assert json.loads(body)["path"] == "/things/a%2Fb"


async def test_an_offer_of_http2_is_ignored(serve):
    running = await serve()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    reader, writer = await running.connect()
    writer.write(request(b"POST", b"/echo", b"hello", offer))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    writer.close()


async def test_expect_continue_is_answered_before_the_body(serve):
    running = await serve()
    reader, writer = await running.connect()
    writer.write(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ok")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection(serve):
    running = await serve()

    async def stream(exchange):
        exchange.start(200, ((b"content-type", b"text/plain"),))
        exchange.write(b"one")
        exchange.write(b"two")
        exchange.finish()

    running.add("GET", "/stream", stream)
    answer = await running.exchange(b"GET /stream HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nonetwo")
    assert b"chunked" not in answer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /echo HTTP/1.1\r\n\r\n", "invalid_host"),
        (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "repeated_header"),
        (b"GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n", "host_not_allowed"),
        (b"GET /echo HTTP/1.1\r\nHost: localhost/?\r\n\r\n", "invalid_host"),
        (b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n", "invalid_host"),
        (b"GET http://localhost/echo HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid_path"),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid_http"),
        (b"GET /a/../echo HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid_path"),
        (b"GET //echo HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid_path"),
        (b"GET /a%2fecho HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid_path"),
        (b"GET /a%2e%2e/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid_path"),
        (b"GET /echo HTTP/1.1\nHost: localhost\n\n", "invalid_http"),
        (b"GET /echo HTTP/1.1\r\nHost : localhost\r\n\r\n", "invalid_http"),
        (b"GET /echo HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n", "invalid_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "invalid_http"),
        (
            b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "invalid_http",
        ),
        (
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            "invalid_http",
        ),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -3\r\n\r\nabc", "invalid_http"),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "invalid_http"),
        (
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "unsupported_media_type",
        ),
        (
            b"GET /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
            "repeated_header",
        ),
    ],
)
async def test_what_cannot_be_trusted_is_refused(serve, data, code):
    running = await serve()
    status, headers, body = split(await running.exchange(data))
    assert 400 <= status < 500
    assert json.loads(body)["code"] == code
    assert headers["connection"] == "close"
    assert running.watch.refusals == [code]


@pytest.mark.parametrize(
    "host", [b"localhost:4000", b"127.0.0.1", b"[::1]:80", b"192.168.7.7", b"a.localhost", b"My.Example."]
)
async def test_addresses_and_allowed_names_are_served(serve, host):
    running = await serve(GuardSettings(allowed_hosts=("my.example",)))
    answer = await running.exchange(b"GET /echo HTTP/1.1\r\nConnection: close\r\nHost: %b\r\n\r\n" % host)
    assert answer.startswith(b"HTTP/1.1 200")


async def test_limits_hold_exactly_at_their_bound(serve):
    running = await serve(GuardSettings(body_bytes=100, head_fields=10, target_bytes=50))
    assert (await running.exchange(closing(b"POST", body=b"x" * 100))).startswith(b"HTTP/1.1 200")
    assert (await running.exchange(closing(b"POST", body=b"x" * 101))).startswith(b"HTTP/1.1 413")
    chunked = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert (await running.exchange(chunked + b"65\r\n" + b"x" * 101 + b"\r\n")).startswith(b"HTTP/1.1 413")
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(8))
    assert (await running.exchange(closing(extra=many))).startswith(b"HTTP/1.1 200")
    assert (await running.exchange(closing(extra=many + b"X-9: 1\r\n"))).startswith(b"HTTP/1.1 431")
    assert (await running.exchange(closing(target=b"/things/" + b"x" * 42))).startswith(b"HTTP/1.1 200")
    assert (await running.exchange(closing(target=b"/things/" + b"x" * 43))).startswith(b"HTTP/1.1 400")


async def test_a_head_that_is_too_large_is_refused_before_it_ends(serve):
    running = await serve(GuardSettings(head_bytes=2048))
    assert (await running.exchange(b"GET /echo HTTP/1.1\r\nX: " + b"x" * 4000)).startswith(b"HTTP/1.1 431")


async def test_the_refusal_of_a_large_body_is_readable_while_the_client_still_sends(serve):
    running = await serve(GuardSettings(body_bytes=1000))
    reader, writer = await running.connect()
    writer.write(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 10000000\r\n\r\n")
    for _ in range(100):
        writer.write(b"x" * 100_000)
        await writer.drain()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_slow_heads_bodies_and_idle_connections_are_ended(serve):
    running = await serve(GuardSettings(head_seconds=5, body_seconds=20, idle_seconds=9))
    silent, half_head, half_body, idle = [await running.connect() for _ in range(4)]
    half_head[1].write(b"GET /echo HTTP/1.1\r\nHost: lo")
    half_body[1].write(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nabc")
    idle[1].write(request())
    await idle[0].readuntil(b"}}")
    await until(lambda: len([each for each in running.listener.connections if each._buffer or each._left]) == 2)
    running.advance(6)
    assert await silent[0].read() == b""
    assert (await half_head[0].read()).startswith(b"HTTP/1.1 408")
    running.advance(4)
    assert await idle[0].read() == b""
    running.advance(11)
    assert (await half_body[0].read()).startswith(b"HTTP/1.1 408")
    for _, writer in (silent, half_head, half_body, idle):
        writer.close()


async def test_a_client_that_never_reads_is_ended_and_holds_its_source_back(serve):
    running = await serve(GuardSettings(write_stall_seconds=30))
    held, ended = asyncio.Event(), asyncio.Event()

    class Source:
        def pause_reading(self):
            held.set()

        def resume_reading(self):
            pass

    async def flood(exchange):
        exchange.start(200, ())
        exchange.feed_from(Source())
        try:
            while not held.is_set():
                exchange.write(b"x" * 65536)
                await asyncio.sleep(0)
            await asyncio.Event().wait()
        finally:
            ended.set()

    running.add("GET", "/flood", flood)
    _, writer = await running.connect()
    writer.write(request(target=b"/flood"))
    async with asyncio.timeout(30):
        await held.wait()
        running.advance(31)
        await ended.wait()
    assert running.watch.leavers == 1
    writer.close()


async def test_a_client_that_leaves_cancels_its_handler(serve):
    running = await serve()
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(exchange):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert exchange.closed
            cancelled.set()
            raise

    running.add("GET", "/wait", wait)
    _, writer = await running.connect()
    writer.write(request(target=b"/wait"))
    async with asyncio.timeout(30):
        await begun.wait()
        writer.transport.abort()
        await cancelled.wait()


async def test_a_broken_off_body_is_seen_as_cut_short(serve):
    running = await serve()

    async def broken(exchange):
        exchange.start(200, ())
        exchange.write(b"half")
        await asyncio.sleep(0)
        exchange.break_off()

    running.add("GET", "/broken", broken)
    answer = await running.exchange(request(target=b"/broken"))
    assert not answer.endswith(b"0\r\n\r\n")


async def test_draining_finishes_running_answers_and_closes_idle_connections(serve):
    running = await serve()
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(exchange):
        begun.set()
        await go.wait()
        exchange.respond(200, (), b"done")

    running.add("GET", "/slow", slow)
    idle = await running.connect()
    busy = await running.connect()
    busy[1].write(request(target=b"/slow"))
    async with asyncio.timeout(30):
        await begun.wait()
        running.server.stop()
        assert await idle[0].read() == b""
        go.set()
        answer = await busy[0].read()
    assert answer.endswith(b"done")
    assert b"connection: close" in answer
    for _, writer in (idle, busy):
        writer.close()


async def test_more_connections_than_allowed_are_told_so(serve):
    running = await serve(GuardSettings(connections=2))
    kept = [await running.connect() for _ in range(2)]
    await until(lambda: len(running.listener.connections) == 2)
    assert (await running.exchange(request())).startswith(b"HTTP/1.1 503")
    for _, writer in kept:
        writer.close()
