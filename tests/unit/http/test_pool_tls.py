import asyncio
import ssl
import subprocess

import pytest

from stellwerk.core.errors import UpstreamError
from tests.upstream_calls import answer


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate authority of the test's own and a certificate of it for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA", "-days", "2")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=upstream")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    return folder


async def secure_server(folder):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"secret"))
        await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


async def test_a_certificate_of_an_authority_that_is_known_is_accepted(calls, certificates, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    async with await secure_server(certificates) as server:
        pool = calls.pool(server.sockets[0].getsockname()[1], scheme="https")
        assert await calls.read(pool) == b"secret"


async def test_a_certificate_of_an_unknown_authority_is_refused(calls, certificates):
    async with await secure_server(certificates) as server:
        with pytest.raises(UpstreamError) as caught:
            await calls.send(calls.pool(server.sockets[0].getsockname()[1], scheme="https"))
    assert "certificate" in caught.value.message
    assert caught.value.code == "upstream_error"


async def test_a_certificate_for_another_name_is_refused(calls, certificates, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    async with await secure_server(certificates) as server:
        with pytest.raises(UpstreamError) as caught:
            await calls.send(calls.pool(server.sockets[0].getsockname()[1], scheme="https", host="localhost"))
    assert "certificate" in caught.value.message


async def test_an_upstream_without_tls_behind_https_is_an_upstream_error(calls, raw_upstream):
    async def talk(line):
        await line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    upstream = await raw_upstream(talk)
    with pytest.raises(UpstreamError):
        await calls.send(calls.pool(upstream.port, scheme="https"))
