import asyncio
import random

import pytest

from stellwerk.core.errors import Unavailable, UpstreamBroken, UpstreamError, UpstreamTimeout
from stellwerk.http.pool import Origin, parse_base_url
from stellwerk.http.serving import bind
from stellwerk.http.upstream import ConnectionDied
from tests.scripted_upstream import completion
from tests.upstream_calls import answer, until


async def well_behaved(line):
    while await line.request():
        await line.say(answer())


async def turns(count=20):
    """Lets everything that is ready happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_requests_one_after_the_other_share_one_connection(calls, upstream):
    async def chat(talk):
        await talk.answer(completion("Hello"))

    upstream.script = chat
    pool = calls.pool(upstream.port)
    for number in range(20):
        reply = await calls.send(pool, b"POST /%d HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}" % number)
        assert reply.status == 200
        assert b"Hello" in await reply.read()
        assert reply.header(b"content-type") == b"application/json"
    assert [request.path for request in upstream.requests] == [f"/{number}" for number in range(20)]
    assert upstream.connections == calls.watch.connections == 1
    assert calls.watch.reuses == 19


async def test_requests_at_the_same_time_have_connections_of_their_own(calls, raw_upstream):
    everybody_here = asyncio.Barrier(5)

    async def talk(line):
        while await line.request():
            await everybody_here.wait()
            await line.say(answer())

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*[calls.read(pool) for _ in range(5)]) == [b"ok"] * 5
    assert upstream.connections == 5


async def test_an_upstream_that_drops_idle_connections_at_random_costs_no_request(calls, raw_upstream):
    choice = random.Random(7)
    received, dropped = 0, 0

    async def talk(line):
        """A new connection always answers once; afterwards it may close before or after any answer."""
        nonlocal received, dropped
        first = True
        while await line.request():
            received += 1
            if not first and choice.random() < 0.2:
                dropped += 1
                return
            first = False
            await line.say(answer())
            if choice.random() < 0.2:
                return

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    for _ in range(300):
        assert await calls.read(pool) == b"ok"
    assert dropped > 20
    assert received == 300 + dropped


async def test_many_callers_at_the_limit_survive_an_upstream_that_drops_connections(calls, raw_upstream):
    choice = random.Random(11)

    async def talk(line):
        first = True
        while await line.request():
            if not first and choice.random() < 0.2:
                return
            first = False
            await line.say(answer())

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port, connections=4, idle_connections=4)

    async def caller():
        for _ in range(25):
            assert await calls.read(pool) == b"ok"

    async with asyncio.timeout(30):
        await asyncio.gather(*[caller() for _ in range(16)])


async def test_a_new_connection_that_dies_is_not_replaced_and_lets_another_target_try(calls, raw_upstream):
    async def talk(line):
        await line.request()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    with pytest.raises(ConnectionDied) as caught:
        await calls.send(pool)
    assert isinstance(caught.value, UpstreamError)
    assert caught.value.may_fall_back
    assert upstream.connections == 1


async def test_a_kept_connection_that_dies_inside_the_head_is_not_asked_again(calls, raw_upstream):
    async def talk(line):
        await line.request()
        await line.say(answer())
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\ncontent-")

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    await calls.read(pool)
    with pytest.raises(UpstreamBroken):
        await calls.send(pool)
    assert upstream.connections == 1


async def test_a_refused_port_is_unreachable(calls):
    closed = bind("127.0.0.1", 0)
    port = closed.getsockname()[1]
    closed.close()
    with pytest.raises(UpstreamError) as caught:
        await calls.send(calls.pool(port))
    assert caught.value.code == "upstream_unreachable"
    assert caught.value.may_fall_back


async def test_a_host_that_does_not_exist_is_unreachable(calls):
    with pytest.raises(UpstreamError) as caught:
        await calls.send(calls.pool(1, host="no-such-host.invalid"))
    assert caught.value.code == "upstream_unreachable"


async def test_whoever_comes_after_the_last_place_waits_for_a_freed_connection(calls, raw_upstream):
    go = asyncio.Event()

    async def talk(line):
        while await line.request():
            await go.wait()
            await line.say(answer())

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port, connections=2)
    asking = [asyncio.ensure_future(calls.read(pool)) for _ in range(5)]
    await until(lambda: upstream.connections == 2)
    await turns()
    assert not any(task.done() for task in asking)
    go.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*asking) == [b"ok"] * 5
    assert upstream.connections == 2


async def test_nobody_who_asks_again_overtakes_those_who_wait(calls, raw_upstream):
    upstream = await raw_upstream(well_behaved)
    pool = calls.pool(upstream.port, connections=1)
    served = []

    async def caller(name):
        for _ in range(5):
            await calls.read(pool)
            served.append(name)

    async with asyncio.timeout(30):
        await asyncio.gather(caller("a"), caller("b"), caller("c"))
    assert served == ["a", "b", "c"] * 5


async def test_a_wait_for_a_place_ends_after_connect_seconds(calls, raw_upstream):
    async def talk(line):
        await line.request()
        await line.gone()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port, connections=1, connect_seconds=0.5)
    first = asyncio.ensure_future(calls.send(pool))
    await until(lambda: upstream.connections == 1)
    with pytest.raises(Unavailable) as caught:
        await calls.send(pool)
    assert caught.value.may_fall_back
    assert caught.value.retry_after == 1
    first.cancel()


async def test_a_place_is_passed_on_when_its_holder_is_cancelled_or_fails(calls, raw_upstream):
    async def talk(line):
        if line.number < 3:
            await line.request()
            await line.gone()
        else:
            await well_behaved(line)

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port, connections=2)
    holders = [asyncio.ensure_future(calls.send(pool)) for _ in range(2)]
    await until(lambda: upstream.connections == 2)
    waiting = [asyncio.ensure_future(calls.read(pool)) for _ in range(4)]
    await turns()
    waiting[0].cancel()
    for holder in holders:
        holder.cancel()
    # In the same turn in which a place becomes free its next holder leaves: the one behind must get it.
    await asyncio.sleep(0)
    waiting[1].cancel()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*waiting[2:]) == [b"ok"] * 2


async def test_waiters_are_told_when_a_dial_fails(calls):
    closed = bind("127.0.0.1", 0)
    port = closed.getsockname()[1]
    closed.close()
    pool = calls.pool(port, connections=1, connect_seconds=30)
    async with asyncio.timeout(30):
        results = await asyncio.gather(*[calls.send(pool) for _ in range(5)], return_exceptions=True)
    assert [error.code for error in results] == ["upstream_unreachable"] * 5


async def test_more_idle_connections_than_allowed_are_closed(calls, raw_upstream):
    everybody_here = asyncio.Barrier(4)
    closed = []

    async def talk(line):
        await line.request()
        await everybody_here.wait()
        await line.say(answer())
        await line.gone()
        closed.append(line.number)

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port, idle_connections=1)
    await asyncio.gather(*[calls.read(pool) for _ in range(4)])
    await until(lambda: len(closed) == 3)
    calls.pools.forget(pool.origin)
    await until(lambda: len(closed) == 4)


async def test_a_forgotten_pool_keeps_no_connection(calls, raw_upstream):
    dialled, left = asyncio.Event(), asyncio.Event()

    async def talk(line):
        dialled.set()
        await line.request()
        await line.say(answer())
        await line.gone()
        left.set()

    upstream = await raw_upstream(talk)
    pool = calls.pool(upstream.port)
    asking = asyncio.ensure_future(calls.read(pool))
    await asyncio.sleep(0)
    calls.pools.forget(pool.origin)
    async with asyncio.timeout(30):
        assert await asking == b"ok"
        await left.wait()
    assert calls.pool(upstream.port) is not pool


async def test_a_dial_that_hangs_ends_after_connect_seconds(calls):
    # A listening socket whose queue is full takes no connection and refuses none.
    full = bind("127.0.0.1", 0)
    full.listen(0)
    port = full.getsockname()[1]
    stuffing = [asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port)) for _ in range(3)]
    await until(lambda: any(task.done() for task in stuffing))
    await turns()
    with pytest.raises(UpstreamTimeout) as caught:
        await calls.send(calls.pool(port, connect_seconds=0.1))
    assert caught.value.may_fall_back
    full.close()
    for task in stuffing:
        task.cancel()
    for outcome in await asyncio.gather(*stuffing, return_exceptions=True):
        if isinstance(outcome, tuple):
            outcome[1].transport.abort()


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "authority"),
    [
        ("http://127.0.0.1:8080/v1", "http", "127.0.0.1", 8080, "/v1", "127.0.0.1:8080"),
        ("http://localhost", "http", "localhost", 80, "", "localhost"),
        ("https://api.example.com/v1/", "https", "api.example.com", 443, "/v1", "api.example.com"),
        ("https://api.example.com:443/", "https", "api.example.com", 443, "", "api.example.com"),
        ("https://api.example.com:80", "https", "api.example.com", 80, "", "api.example.com:80"),
        ("http://api.example.com:443", "http", "api.example.com", 443, "", "api.example.com:443"),
        ("HTTPS://API.Example.COM/V1", "https", "api.example.com", 443, "/V1", "api.example.com"),
        ("http://[::1]:4801/v1", "http", "::1", 4801, "/v1", "[::1]:4801"),
        ("https://[2001:db8::1]", "https", "2001:db8::1", 443, "", "[2001:db8::1]"),
        ("http://host:/v1", "http", "host", 80, "/v1", "host"),
        ("http://host/a/b//", "http", "host", 80, "/a/b", "host"),
    ],
)
def test_a_base_url_is_split(url, scheme, host, port, path, authority):
    origin, found = parse_base_url(url)
    assert origin == Origin(scheme=scheme, host=host, port=port)
    assert found == path
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "localhost:8080",
        "ftp://host/",
        "file:///etc/passwd",
        "http+unix://socket",
        "//host/v1",
        "http:///v1",
        "http://",
        "http://:80/",
        "http://user@host/",
        "http://user:password@host/",
        "http://:@host/",
        "http://host/?key=1",
        "http://host/v1#part",
        "http://host:port/",
        "http://host:99999/",
        "http://host:-1/",
        "http://host:0/",
        "http://[::1/",
        "http://[zz]/",
        "http://ho st/",
        "http://host/a b",
        "http://host/a\r\nx: y",
        "http://host/\x00",
        "http://bücher.example/",
        "http://host/ü",
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        "http://ho<st/",
    ],
)
def test_what_is_no_base_url_is_refused(url):
    with pytest.raises(ValueError):
        parse_base_url(url)
