import asyncio
import gc
import socket
import struct

import pytest

from stellwerk.core.errors import UpstreamBroken, UpstreamError
from tests.upstream_calls import CHUNKED, HEAD, READERS, answer, pour, says, silent_after


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("pieces", "body", "close"),
    [
        ([answer(b"hello")], b"hello", False),
        ([answer(b"")], b"", False),
        ([HEAD + b"content-length: 6\r\n\r\n", b"abc", b"def"], b"abcdef", False),
        ([CHUNKED, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n", b"0\r\n", b"\r\n"], b"abcde", False),
        ([CHUNKED + b"3\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"], b"abc", False),
        ([HEAD + b"\r\nuntil", b" the end"], b"until the end", True),
        ([b"HTTP/1.0 200 OK\r\n\r\nold"], b"old", True),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b"", False),
        ([b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"], b"", False),
        ([b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok"], b"ok", False),
        ([HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nok"], b"ok", True),
        ([HEAD + b"content-encoding: identity\r\ncontent-length: 2\r\n\r\nok"], b"ok", False),
        ([bytes([byte]) for byte in answer(b"byte by byte")], b"byte by byte", False),
    ],
)
async def test_a_whole_answer_arrives_whole(calls, raw_upstream, pieces, body, close, read):
    upstream = await raw_upstream(says(*pieces, close=close))
    pool = calls.pool(upstream.port)
    for _ in range(2):
        async with asyncio.timeout(30):
            assert await read(await calls.send(pool)) == body
    assert upstream.connections == (2 if close else 1)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"content-length: 10\r\n\r\nhalf",
        HEAD + b"content-length: 10\r\n\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_broken(calls, raw_upstream, data, read):
    upstream = await raw_upstream(says(data, close=True))
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamBroken):
            await read(await calls.send(calls.pool(upstream.port)))
    assert upstream.connections == 1


async def test_a_reset_ends_an_answer_without_length_as_broken(calls, raw_upstream):
    async def talk(line):
        await line.request()
        await line.say(HEAD + b"\r\nhalf")
        await told.wait()
        # Without time to linger the close becomes a reset.
        now = struct.pack("ii", 1, 0)
        line.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        line.writer.transport.abort()

    told = asyncio.Event()
    upstream = await raw_upstream(talk)
    reply = await calls.send(calls.pool(upstream.port))
    told.set()
    with pytest.raises(UpstreamBroken):
        await reply.read()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 1\n\nx",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nx",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 1x\r\n\r\n",
        HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        HEAD + b"bad name: 1\r\n\r\n",
        HEAD + b"x: a\0b\r\n\r\n",
        HEAD + b"x: a\r\n folded\r\n\r\n",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"content-encoding: br\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + answer(),
        b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n",
        HEAD + b"x: " + b"y" * 300_000,
        HEAD + b"".join(b"x-%d: 1\r\n" % number for number in range(30_000)),
    ],
)
async def test_what_is_no_answer_is_broken(calls, raw_upstream, data):
    upstream = await raw_upstream(says(data, close=True))
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamBroken) as caught:
            await (await calls.send(calls.pool(upstream.port))).read()
    assert caught.value.may_fall_back


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
async def test_interim_answers_are_skipped(calls, raw_upstream, interim):
    early = b"HTTP/1.1 %b\r\nlink: <a>\r\n\r\n" % interim
    upstream = await raw_upstream(says(early, early, answer()))
    pool = calls.pool(upstream.port)
    for _ in range(10):
        reply = await calls.send(pool)
        assert (reply.status, await reply.read(), reply.header(b"link")) == (200, b"ok", None)
    assert upstream.connections == 1


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"\r\nHTTP"])
async def test_bytes_behind_an_answer_never_reach_the_next_one(calls, raw_upstream, more):
    async def talk(line):
        await line.request()
        await line.say(answer(b"good") + (more if line.number == 1 else b""))
        await line.gone()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    for _ in range(2):
        assert await calls.read(pool) == b"good"
    assert upstream.connections == 2


async def test_bytes_that_nobody_asked_for_close_an_idle_connection(calls, raw_upstream):
    left = asyncio.Event()

    async def talk(line):
        await line.request()
        await line.say(answer())
        if line.number == 1:
            await asyncio.sleep(0)
            await line.say(answer(b"evil"))
            await line.gone()
            left.set()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    assert await calls.read(pool) == b"ok"
    async with asyncio.timeout(30):
        await left.wait()
    assert await calls.read(pool) == b"ok"


@pytest.mark.parametrize("read", [READERS[0], pour])
async def test_a_body_larger_than_its_bound_is_not_kept(calls, raw_upstream, read):
    size = 3_000_000
    upstream = await raw_upstream(says(answer(b"x" * size), close=True))
    pool = calls.pool(upstream.port, response_bytes=1_000_000)
    if read is pour:
        assert len(await read(await calls.send(pool))) == size
    else:
        with pytest.raises(UpstreamBroken, match="too large"):
            await read(await calls.send(pool))


async def test_an_endless_trailer_is_cut(calls, raw_upstream):
    async def talk(line):
        await line.request()
        await line.say(CHUNKED + b"2\r\nok\r\n0\r\nx: ")
        while True:
            await line.say(b"y" * 65536)

    upstream = await raw_upstream(talk)
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamBroken, match="too large"):
            await calls.read(calls.pool(upstream.port))


async def test_giving_up_a_complete_answer_leaves_the_connection_to_others(calls, raw_upstream):
    go = asyncio.Event()

    async def talk(line):
        await line.request()
        await line.say(answer(b"first"))
        await line.request()
        await line.say(CHUNKED + b"3\r\nsec\r\n")
        await go.wait()
        await line.say(b"3\r\nond\r\n0\r\n\r\n")
        await line.gone()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    first = await calls.send(pool)
    assert await first.read() == b"first"
    second = await calls.send(pool)
    first.abort()
    first.pause_reading()
    first.fail(UpstreamError("late"))
    go.set()
    async with asyncio.timeout(30):
        assert await second.read() == b"second"
    assert await first.read() == b""
    assert upstream.connections == 1


async def test_when_closed_is_called_once_however_an_answer_ends(calls, raw_upstream):
    ended = []

    async def ended_by(talk, end):
        upstream = await raw_upstream(talk)
        reply = await calls.send(calls.pool(upstream.port))
        count = len(ended)
        reply.when_closed(lambda: ended.append(1))
        await end(reply)
        assert len(ended) == count + 1
        reply.abort()
        reply.when_closed(lambda: ended.append(1))
        assert len(ended) == count + 2

    async def read(reply):
        await reply.read()

    async def break_while_reading(reply):
        with pytest.raises(UpstreamBroken):
            await reply.read()

    async def give_up(reply):
        reply.abort()

    async with asyncio.timeout(30):
        await ended_by(says(HEAD + b"content-length: 2\r\n\r\n", b"ok"), read)
        await ended_by(says(CHUNKED + b"2\r\n", close=True), break_while_reading)
        await ended_by(silent_after(CHUNKED)[0], give_up)


async def test_the_end_of_a_connection_after_an_answer_without_length_is_not_the_end_of_the_next(calls, raw_upstream):
    async def talk(line):
        await line.request()
        await line.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        if line.number == 1:
            await line.request()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    async with asyncio.timeout(30):
        assert (await calls.send(pool)).status == 204
        assert (await calls.send(pool)).status == 204
    assert upstream.connections == 2


async def test_closing_the_pools_does_not_make_half_an_answer_look_whole(calls, raw_upstream):
    talk, _, _ = silent_after(HEAD + b"\r\nhalf of it")
    upstream = await raw_upstream(talk)
    reply = await calls.send(calls.pool(upstream.port))
    calls.pools.close()
    with pytest.raises(UpstreamBroken):
        await reply.read()


async def test_an_error_of_the_reader_ends_the_answer(calls, raw_upstream):
    talk, _, left = silent_after(CHUNKED + b"2\r\nab\r\n")
    upstream = await raw_upstream(talk)
    reply = await calls.send(calls.pool(upstream.port))
    reply.fail(UpstreamError("cannot be understood", code="mine"))
    with pytest.raises(UpstreamError) as caught:
        await pour(reply)
    assert caught.value.code == "mine"
    async with asyncio.timeout(30):
        await left.wait()


async def test_answers_and_connections_leave_nothing_behind(calls, raw_upstream):
    upstream = await raw_upstream(says(answer(b"x" * 1000)))
    pool = calls.pool(upstream.port)
    await calls.read(pool)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        await calls.read(pool)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
