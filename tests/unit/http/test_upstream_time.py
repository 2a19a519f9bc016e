"""Silence, deadlines, holding back and giving up."""

import asyncio

import pytest

from stellwerk.core.errors import UpstreamTimeout
from tests.upstream_calls import CHUNKED, HEAD, READERS, answer, pour, says, silent_after


async def test_silence_before_the_head_ends_after_first_byte_seconds(calls, raw_upstream):
    talk, said, left = silent_after()
    upstream = await raw_upstream(talk)
    asking = asyncio.ensure_future(calls.send(calls.pool(upstream.port, first_byte_seconds=30)))
    async with asyncio.timeout(30):
        await said.wait()
        calls.advance(20)
        await asyncio.sleep(0)
        assert not asking.done()
        calls.advance(11)
        with pytest.raises(UpstreamTimeout) as caught:
            await asking
        await left.wait()
    assert caught.value.may_fall_back


async def test_half_a_head_is_no_sign_of_life(calls, raw_upstream):
    talk, said, _ = silent_after(b"HTTP/1.1 200 OK\r\nx")
    upstream = await raw_upstream(talk)
    asking = asyncio.ensure_future(calls.send(calls.pool(upstream.port, first_byte_seconds=30)))
    async with asyncio.timeout(30):
        await said.wait()
        calls.advance(31)
        with pytest.raises(UpstreamTimeout):
            await asking


@pytest.mark.parametrize("read", READERS)
async def test_silence_inside_a_body_ends_after_idle_seconds(calls, raw_upstream, read):
    talk, _, left = silent_after(CHUNKED + b"2\r\nab\r\n")
    upstream = await raw_upstream(talk)
    reply = await calls.send(calls.pool(upstream.port, idle_seconds=30))
    reading = asyncio.ensure_future(read(reply))
    async with asyncio.timeout(30):
        await asyncio.sleep(0)
        calls.advance(20)
        await asyncio.sleep(0)
        assert not reading.done()
        calls.advance(11)
        with pytest.raises(UpstreamTimeout):
            await reading
        await left.wait()


async def test_the_silence_before_the_head_does_not_count_against_the_body(calls, raw_upstream):
    asked, go = asyncio.Event(), asyncio.Event()

    async def talk(line):
        await line.request()
        asked.set()
        await go.wait()
        await line.say(HEAD + b"content-length: 2\r\n\r\n")
        await line.request()

    upstream = await raw_upstream(talk)
    asking = asyncio.ensure_future(calls.send(calls.pool(upstream.port, first_byte_seconds=100, idle_seconds=30)))
    await asked.wait()
    calls.advance(90)
    go.set()
    async with asyncio.timeout(30):
        reply = await asking
    calls.pools.sweep()
    calls.advance(20)
    reading = asyncio.ensure_future(reply.read())
    await asyncio.sleep(0)
    assert not reading.done()
    reply.abort()
    reading.cancel()


async def test_an_answer_ends_at_its_deadline_however_busy_it_is(calls, raw_upstream):
    upstream = await raw_upstream(silent_after(CHUNKED + b"2\r\nab\r\n")[0])
    reply = await calls.send(calls.pool(upstream.port, idle_seconds=1000), seconds=60)
    reading = asyncio.ensure_future(pour(reply))
    await asyncio.sleep(0)
    calls.advance(61)
    async with asyncio.timeout(30):
        with pytest.raises(UpstreamTimeout):
            await reading


async def test_silence_while_we_hold_the_upstream_back_is_not_its_fault(calls, raw_upstream):
    go = asyncio.Event()

    async def talk(line):
        await line.request()
        await line.say(CHUNKED + b"2\r\nab\r\n")
        await go.wait()
        await line.say(b"2\r\ncd\r\n0\r\n\r\n")

    upstream = await raw_upstream(talk)
    reply = await calls.send(calls.pool(upstream.port, idle_seconds=30))
    reading = asyncio.ensure_future(pour(reply))
    await asyncio.sleep(0)
    calls.advance(20)
    reply.pause_reading()
    calls.advance(500)
    reply.resume_reading()
    calls.advance(20)
    await asyncio.sleep(0)
    assert not reading.done()
    go.set()
    async with asyncio.timeout(30):
        assert await reading == b"abcd"


async def test_an_upstream_that_is_held_back_stops_sending(calls, raw_upstream):
    sent = 0

    async def talk(line):
        nonlocal sent
        await line.request()
        await line.say(HEAD + b"content-length: 50000000\r\n\r\n")
        for _ in range(50):
            await line.say(b"x" * 1_000_000)
            sent += 1_000_000

    upstream = await raw_upstream(talk)
    reply = await calls.send(calls.pool(upstream.port))
    reply.pause_reading()
    before = -1
    while sent > before:
        before = sent
        for _ in range(200):
            await asyncio.sleep(0)
    assert sent < 20_000_000
    reply.resume_reading()
    async with asyncio.timeout(30):
        assert len(await pour(reply)) == 50_000_000


async def test_a_connection_that_was_held_back_to_the_end_is_read_again(calls, raw_upstream):
    upstream = await raw_upstream(says(answer(b"last piece")))
    pool = calls.pool(upstream.port)
    for _ in range(3):
        reply = await calls.send(pool)
        got = []

        def slow(piece, reply=reply, got=got):
            got.append(piece)
            reply.pause_reading()

        async with asyncio.timeout(30):
            await reply.pour(slow)
        assert got == [b"last piece"]
    assert upstream.connections == 1


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2"])
async def test_cancelling_send_closes_the_connection(calls, raw_upstream, data):
    talk, said, left = silent_after(data)
    upstream = await raw_upstream(talk)
    asking = asyncio.ensure_future(calls.send(calls.pool(upstream.port)))
    await said.wait()
    asking.cancel()
    async with asyncio.timeout(30):
        await left.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("read", READERS)
async def test_cancelling_a_reader_closes_the_connection(calls, raw_upstream, read):
    talk, _, left = silent_after(CHUNKED + b"2\r\nab\r\n")
    upstream = await raw_upstream(talk)
    reading = asyncio.ensure_future(read(await calls.send(calls.pool(upstream.port))))
    await asyncio.sleep(0)
    reading.cancel()
    async with asyncio.timeout(30):
        await left.wait()
    with pytest.raises(asyncio.CancelledError):
        await reading
