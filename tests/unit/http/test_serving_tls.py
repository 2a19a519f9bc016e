"""A listener behind TLS on real sockets, with every event loop that the gateway runs on."""

import asyncio
import logging
import shutil
import ssl
import subprocess
from datetime import timedelta
from ipaddress import IPv4Address, ip_network

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.http.certificates import CertificateError, check_certificate, ensure_certificate
from stellwerk.http.guard import GuardSettings
from stellwerk.http.tls import LiveContext
from tests.upstream_calls import until

WHENEVER = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the certificate may begin in the future."""
NAMES = ("localhost", "gateway.local")
GET = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSING = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Clock(SystemClock):
    ahead = 0.0

    def now(self) -> float:
        return SystemClock.now() + self.ahead


class Secured:
    """A context in a folder of its own, and clients that trust its authority."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.clock = Clock()
        self.live = LiveContext(self.provide, self.clock)

    def provide(self, now):
        return ensure_certificate(self.folder, names=NAMES, addresses=(IPv4Address("127.0.0.1"),), now=now)

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.live.certificate.authority)

    async def connect(self, running, name="127.0.0.1", context=None):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=context or self.trusting(), server_hostname=name, ssl_shutdown_timeout=1
        )
        running.writers.append(writer)
        return reader, writer

    async def ask(self, running, data=CLOSING, **how):
        reader, writer = await self.connect(running, **how)
        writer.write(data)
        async with asyncio.timeout(30):
            return await reader.read()


def shown(writer) -> bytes:
    """The certificate that the server showed on this connection."""
    return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


async def read_answer(reader) -> bytes:
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return head + await reader.readexactly(int(length.partition(b":")[2]))


@pytest.fixture
async def secured(tmp_path):
    made = Secured(tmp_path / "certs")
    await made.live.open()
    return made


async def test_a_client_that_trusts_the_authority_is_served_under_every_name(serve, secured):
    running = await serve(context=secured.live.context)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = secured.trusting()
        client.minimum_version = client.maximum_version = version
        for name in ("127.0.0.1", "localhost", "gateway.local"):
            answer = await secured.ask(running, name=name, context=client)
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_name_that_the_certificate_does_not_cover_is_refused_by_the_client(serve, secured):
    running = await serve(context=secured.live.context)
    for name in ("example.org", "127.0.0.2", "gateway"):
        with pytest.raises(ssl.SSLCertVerificationError):
            await secured.connect(running, name=name)


async def test_a_client_that_does_not_trust_the_authority_refuses(serve, secured):
    running = await serve(context=secured.live.context)
    with pytest.raises(ssl.SSLCertVerificationError):
        await secured.connect(running, context=ssl.create_default_context())


async def test_a_client_without_tls_gets_nothing_and_disturbs_nobody(serve, secured, caplog):
    running = await serve(context=secured.live.context)
    assert await running.exchange(GET) == b""
    assert (await secured.ask(running)).startswith(b"HTTP/1.1 200 ")
    assert caplog.records == []


async def test_a_client_that_never_shakes_hands_is_dropped_in_time(serve, secured):
    running = await serve(GuardSettings(head_seconds=0.2), context=secured.live.context)
    reader, _ = await running.connect()
    async with asyncio.timeout(30):
        assert await reader.read() == b""


async def test_connections_are_kept_and_requests_may_be_sent_ahead(serve, secured):
    running = await serve(context=secured.live.context)
    reader, writer = await secured.connect(running)
    for _ in range(3):
        writer.write(GET)
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200 ")
    writer.write(GET + GET + CLOSING)
    async with asyncio.timeout(30):
        assert (await reader.read()).count(b"HTTP/1.1 200 ") == 3


async def test_large_bodies_pass_whole_in_both_directions(serve, secured):
    running = await serve(context=secured.live.context)
    body = b"x" * 3_000_000
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert body in await secured.ask(running, head + body)


async def test_requests_that_are_not_ours_pass_through_tls_too(serve, secured):
    running = await serve(context=secured.live.context)
    reader, writer = await secured.connect(running)
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 404 ")
    writer.write(CLOSING)
    async with asyncio.timeout(30):
        assert b"HTTP/1.1 200 " in await reader.read()


async def test_the_pieces_of_a_stream_arrive_as_they_are_written(serve, secured):
    running = await serve(context=secured.live.context)
    more = asyncio.Event()

    async def stream(exchange):
        exchange.start(200, ())
        exchange.write(b"first")
        await more.wait()
        exchange.write(b"second")
        exchange.finish()

    running.add("GET", "/stream", stream)
    reader, writer = await secured.connect(running)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        await reader.readuntil(b"first\r\n")
        more.set()
        await reader.readuntil(b"second\r\n0\r\n\r\n")


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_leaves_ends_its_call(serve, secured, politely):
    running = await serve(context=secured.live.context)
    ended = asyncio.Event()

    async def endless(exchange):
        exchange.start(200, ())
        exchange.write(b"first")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running.add("GET", "/endless", endless)
    reader, writer = await secured.connect(running)
    writer.write(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        await reader.readuntil(b"first\r\n")
        if politely:
            writer.close()
        else:
            writer.transport.abort()
        await ended.wait()
    assert running.watch.leavers == 1


async def test_a_client_that_does_not_read_holds_its_stream_back(serve, secured):
    running = await serve(context=secured.live.context)
    held, go_on = asyncio.Event(), asyncio.Event()

    class Source:
        def pause_reading(self):
            held.set()

        def resume_reading(self):
            go_on.set()

    async def flood(exchange):
        exchange.start(200, ())
        exchange.feed_from(Source())
        while not held.is_set():
            exchange.write(b"x" * 65536)
            await asyncio.sleep(0)
        await go_on.wait()
        exchange.finish()

    running.add("GET", "/flood", flood)
    reader, writer = await secured.connect(running)
    writer.transport.pause_reading()
    writer.write(b"GET /flood HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(30):
        await held.wait()
        writer.transport.resume_reading()
        await reader.read()
        assert go_on.is_set()


async def test_a_client_that_reads_nothing_any_more_is_given_up(serve, secured):
    running = await serve(GuardSettings(write_stall_seconds=5), context=secured.live.context)

    async def flood(exchange):
        exchange.start(200, ())
        while not exchange.closed:
            if len(running.listener.connections) and exchange._transport.get_write_buffer_size() < 1_000_000:
                exchange.write(b"x" * 65536)
            await asyncio.sleep(0)

    running.add("GET", "/flood", flood)
    _, writer = await secured.connect(running)
    writer.transport.pause_reading()
    writer.write(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: running.listener.connections)
    [connection] = running.listener.connections
    await until(lambda: connection.transport.get_write_buffer_size() >= 1_000_000)
    running.advance(6)
    running.advance(6)
    await until(lambda: not running.listener.connections)


async def test_a_peer_outside_is_refused_behind_tls_too(serve, secured):
    running = await serve(GuardSettings(peers=(ip_network("10.0.0.0/8"),)), context=secured.live.context)
    reader, writer = await secured.connect(running)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{")
    answer = await read_answer(reader)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"peer_not_allowed" in answer
    running.advance(6)
    async with asyncio.timeout(30):
        assert await reader.read() == b""


async def test_a_running_answer_is_finished_when_the_listener_stops(serve, secured):
    running = await serve(context=secured.live.context)
    begun, more = asyncio.Event(), asyncio.Event()

    async def slow(exchange):
        begun.set()
        await more.wait()
        exchange.respond(200, (), b"done")

    running.add("GET", "/slow", slow)
    idle, _ = await secured.connect(running)
    reader, writer = await secured.connect(running)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        await begun.wait()
        running.server.stop()
        assert await idle.read() == b""
        more.set()
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"done")


async def test_an_idle_client_that_never_reads_again_does_not_hold_up_the_stop(serve, secured):
    running = await serve(context=secured.live.context)
    reader, writer = await secured.connect(running)
    writer.write(GET)
    await read_answer(reader)
    writer.transport.pause_reading()
    running.server.stop()
    async with asyncio.timeout(4.5):
        while running.listener.connections:  # noqa: ASYNC110  # nothing tells when a connection has gone
            await asyncio.sleep(0.01)


# --- renewal


async def test_a_renewed_certificate_is_taken_over_while_kept_connections_go_on(serve, secured, caplog):
    caplog.set_level(logging.INFO, "stellwerk.http")
    running = await serve(context=secured.live.context)
    reader, writer = await secured.connect(running)
    writer.write(GET)
    await read_answer(reader)
    old = shown(writer)

    assert not await secured.live.check()
    secured.clock.ahead = timedelta(days=370).total_seconds()
    assert await secured.live.check()

    for name in ("127.0.0.1", "localhost"):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = secured.trusting()
            client.verify_flags |= WHENEVER
            client.minimum_version = client.maximum_version = version
            _, other = await secured.connect(running, name=name, context=client)
            new = ssl.PEM_cert_to_DER_cert(secured.live.certificate.certificate.read_text())
            assert shown(other) == new != old
    writer.write(CLOSING)
    async with asyncio.timeout(30):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    assert [record.message.partition(":")[0] for record in caplog.records] == ["the certificate has been taken over"]


def make_own(folder):
    subject = ("-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "90", "-nodes")
    new = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-keyout",
        "own.key",
        "-out",
        "own.crt",
    )
    subprocess.run(["openssl", *new, *subject], cwd=folder, check=True, capture_output=True)


async def test_files_of_the_operators_that_change_are_taken_over_and_half_a_pair_is_not(serve, tmp_path, caplog):
    make_own(tmp_path)
    certificate, key = tmp_path / "own.crt", tmp_path / "own.key"
    live = LiveContext(lambda now: check_certificate(certificate, key, now=now), SystemClock())
    await live.open()
    running = await serve(context=live.context)

    async def seen():
        client = ssl.create_default_context(cafile=certificate)
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=client)
        running.writers.append(writer)
        return shown(writer)

    first = await seen()
    (tmp_path / "next").mkdir()
    make_own(tmp_path / "next")
    shutil.copy(key, tmp_path / "old.key")
    shutil.copy(tmp_path / "next" / "own.key", key)
    assert not await live.check()
    assert not await live.check()
    assert await seen() == first
    [record] = caplog.records
    assert "does not belong to the certificate" in record.message
    assert record.message.endswith("The listener goes on with the certificate that it has.")
    shutil.copy(tmp_path / "next" / "own.crt", certificate)
    assert await live.check()
    assert await seen() != first


async def test_the_watch_renews_by_itself(tmp_path):
    made = Secured(tmp_path / "certs")
    live = LiveContext(made.provide, made.clock, check_seconds=0.01)
    await live.open()
    before = live.certificate.renew_at
    watching = asyncio.ensure_future(live.run())
    made.clock.ahead = timedelta(days=370).total_seconds()
    async with asyncio.timeout(30):
        while live.certificate.renew_at == before:  # noqa: ASYNC110  # nothing tells when it has checked
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_warnings_are_logged_once_and_name_no_secret(tmp_path, caplog):
    names = ["localhost"]

    def provide(now):
        return ensure_certificate(tmp_path / "certs", names=names, addresses=(), now=now)

    live = LiveContext(provide, SystemClock())
    await live.open()
    names.append("gateway.example.org")
    for _ in range(3):
        assert not await live.check()
    [record] = caplog.records
    assert "does not cover gateway.example.org" in record.message
    assert "PRIVATE KEY" not in caplog.text


async def test_without_a_certificate_there_is_no_context(tmp_path):
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "authority.crt").write_text("garbage")
    with pytest.raises(CertificateError):
        await LiveContext(Secured(tmp_path / "certs").provide, SystemClock()).open()
