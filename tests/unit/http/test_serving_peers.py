"""The peer gate on real sockets."""

import asyncio
import json
from ipaddress import ip_network

import pytest

from stellwerk.http.guard import GuardSettings
from tests.upstream_calls import until

ELSEWHERE = GuardSettings(peers=(ip_network("10.0.0.0/8"),))
HERE = GuardSettings(peers=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
GET = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n%b\r\n"


def forbid(error, _path):
    return error.status, ((b"content-type", b"text/plain; charset=utf-8"),), b"Forbidden\n"


async def say(running, data, local=None):
    """The status and the body of the answer, read to the end of the connection."""
    reader, writer = await asyncio.open_connection(
        running.server.servers[0].sockets[0].getsockname()[0], running.port, local_addr=local and (local, 0)
    )
    running.writers.append(writer)
    writer.write(data)
    async with asyncio.timeout(30):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


async def test_a_peer_outside_is_refused_in_the_words_of_its_listener(serve):
    running = await serve(ELSEWHERE)
    running.listener.render_error = forbid
    status, head, body = await say(running, GET % b"")
    assert (status, body) == (403, b"Forbidden\n")
    assert b"content-type: text/plain" in head
    assert b"connection: close" in head
    assert running.watch.refusals == ["peer_not_allowed"]


async def test_a_refused_head_has_no_body(serve):
    status, head, body = await say(await serve(ELSEWHERE), b"HEAD /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, body) == (403, b"")
    assert b"content-length: " in head


async def test_one_listener_tells_peers_apart(serve):
    running = await serve(GuardSettings(peers=(ip_network("127.0.0.2"),)))
    closing = GET % b"Connection: close\r\n"
    assert (await say(running, closing, "127.0.0.2"))[0] == 200
    assert (await say(running, closing, "127.0.0.3"))[0] == 403


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP"]
)
async def test_no_header_changes_who_the_peer_is(serve, name):
    lying = GET % f"{name}: 10.0.0.1\r\nAuthorization: Bearer sk-sw-x\r\nConnection: close\r\n".encode()
    proxies = GuardSettings(peers=ELSEWHERE.peers, trusted_proxies=(ip_network("127.0.0.1"),))
    for settings in (ELSEWHERE, proxies):
        running = await serve(settings)
        assert (await say(running, lying))[0] == 403
    running = await serve(HERE)
    assert (await say(running, lying))[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        *[b"P", b"\r\n", b"\0\xff", b"GET / HTTP/9.9\r\n\r\n", b"GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n"],
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000000\r\n\r\n{",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_nothing_of_the_request_is_read_before_the_refusal(serve, data):
    running = await serve(ELSEWHERE)
    status, _, body = await say(running, data)
    assert status == 403
    assert json.loads(body)["code"] == "peer_not_allowed"


async def test_a_peer_outside_that_sends_a_large_body_still_reads_its_refusal(serve):
    running = await serve(ELSEWHERE)
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
    assert (await say(running, head + b"x" * 4_000_000))[0] == 403


async def test_a_refused_peer_is_gone_soon_whether_it_leaves_or_not(serve):
    running = await serve(ELSEWHERE)
    _, writer = await running.connect()
    writer.write(GET % b"")
    await until(lambda: running.watch.refusals)
    running.advance(6.0)
    await until(lambda: not running.listener.connections)


async def test_a_connection_that_was_kept_obeys_networks_that_are_set_later(serve):
    running = await serve(HERE)
    reader, writer = await running.connect()
    writer.write(GET % b"")
    async with asyncio.timeout(30):
        assert b" 200 " in await reader.readline()
        await until(lambda: running.listener.connections)
        running.listener.guard.settings = ELSEWHERE
        writer.write(GET % b"")
        assert b"HTTP/1.1 403" in await reader.read()


async def test_an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer(serve):
    running = await serve(GuardSettings(peers=(ip_network("127.0.0.0/8"),)), host="::")
    reader, writer = await running.connect()
    writer.write(GET % b"Connection: close\r\n")
    async with asyncio.timeout(30):
        assert b" 200 " in await reader.readline()


async def test_the_ipv6_loopback_is_admitted_where_it_is_listed_and_only_there(serve):
    closing = GET % b"Connection: close\r\n"
    assert (await say(await serve(HERE, host="::1"), closing))[0] == 200
    assert (await say(await serve(GuardSettings(peers=HERE.peers[:1]), host="::1"), closing))[0] == 403
