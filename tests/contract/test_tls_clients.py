"""Real clients against a listener behind TLS: what they verify, and what they refuse."""

import asyncio
import http.client
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.http.certificates import ensure_certificate, fingerprint
from stellwerk.http.guard import GuardSettings
from stellwerk.http.interfaces import machine_addresses, machine_names
from stellwerk.http.tls import LiveContext
from tests.running_listener import listening


@pytest.fixture
async def live(tmp_path):
    """The certificate of this very machine, as a gateway makes it at its first start."""

    def provide(now):
        return ensure_certificate(tmp_path / "certs", names=machine_names(), addresses=machine_addresses(), now=now)

    made = LiveContext(provide, SystemClock())
    await made.open()
    return made


async def run(*command):
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)


async def test_curl_verifies_the_listener_against_the_authority_file(live):
    async with listening(context=live.context) as running:
        curl = ("curl", "-sS", "--noproxy", "*", "--cacert", str(live.certificate.authority))
        for name in ("localhost", "127.0.0.1", "gateway.local"):
            resolve = ("--resolve", f"{name}:{running.port}:127.0.0.1")
            done = await run(*curl, *resolve, f"https://{name}:{running.port}/echo")
            if name == "gateway.local" and name not in machine_names():
                assert done.returncode == 60
                assert "gateway.local" in done.stderr
            else:
                assert '"method":"GET"' in done.stdout, done.stderr
        done = await run("curl", "-sS", "--noproxy", "*", f"https://127.0.0.1:{running.port}/echo")
        assert done.returncode == 60


async def test_curl_reaches_every_address_of_the_machine(live):
    async with listening(context=live.context, host="0.0.0.0") as running:
        for address in machine_addresses():
            if address.version == 4:
                url = f"https://{address}:{running.port}/echo"
                done = await run("curl", "-sS", "--noproxy", "*", "--cacert", str(live.certificate.authority), url)
                assert '"method":"GET"' in done.stdout, done.stderr


async def test_curl_shows_the_refusal_of_a_peer_outside(live):
    settings = GuardSettings(peers=(ip_network("192.168.0.0/16"), ip_network("10.0.0.0/8")))
    async with listening(settings, context=live.context) as running:
        running.listener.render_error = lambda error, _: (
            error.status,
            ((b"content-type", b"text/plain"),),
            b"Forbidden\n",
        )
        url = f"https://localhost:{running.port}/v1/chat/completions"
        curl = ("curl", "-sS", "-i", "--noproxy", "*", "--cacert", str(live.certificate.authority))
        done = await run(*curl, "-H", "X-Forwarded-For: 10.0.0.1", "-d", "x" * 100_000, url)
    head, _, body = done.stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 403 ")
    assert "content-type: text/plain" in head
    assert body == "Forbidden\n"
    assert done.returncode == 0


async def test_the_standard_library_keeps_its_connection_over_a_renewal(live):
    async with listening(context=live.context) as running:

        def ask_twice_around(renew):
            context = ssl.create_default_context(cafile=live.certificate.authority)
            connection = http.client.HTTPSConnection("localhost", running.port, timeout=60, context=context)
            connection.request("GET", "/echo")
            first = connection.getresponse()
            first.read()
            kept = connection.sock
            renew()
            connection.request("GET", "/echo")
            second = connection.getresponse()
            second.read()
            assert connection.sock is kept
            connection.close()
            return first.status, second.status

        def renew():
            # A lost file: the certificate is made anew by the same authority.
            live.certificate.certificate.unlink()
            assert asyncio.run_coroutine_threadsafe(live.check(), loop).result(60)

        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(ask_twice_around, renew) == (200, 200)
        done = await run(
            *("curl", "-sS", "--noproxy", "*", "--cacert", str(live.certificate.authority)),
            f"https://localhost:{running.port}/echo",
        )
        assert done.returncode == 0


async def test_openssl_accepts_the_chain_and_tls_1_1_is_not_spoken(live):
    async with listening(context=live.context) as running:
        client = ("openssl", "s_client", "-connect", f"127.0.0.1:{running.port}", "-verify_return_error")
        trusted = ("-CAfile", str(live.certificate.authority), "-verify_hostname", "localhost", "-x509_strict")
        done = await run(*client, *trusted, "-alpn", "h2,http/1.1")
        assert "Verify return code: 0 (ok)" in done.stdout
        assert "ALPN protocol: http/1.1" in done.stdout
        done = await run(*client, *trusted, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        assert done.returncode != 0


async def test_a_client_of_another_process_verifies_by_its_environment(live):
    """As the SDKs do it: the authority's file in SSL_CERT_FILE, nothing in the code."""
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=60).status)"
    async with listening(context=live.context) as running:
        url = f"https://localhost:{running.port}/echo"
        command = (
            "env",
            f"SSL_CERT_FILE={live.certificate.authority}",
            "no_proxy=*",
            sys.executable,
            "-c",
            program,
            url,
        )
        done = await run(*command)
        assert done.stdout.strip() == "200", done.stderr


async def test_the_fingerprint_to_compare_is_that_of_the_file_which_clients_install(live):
    assert len(fingerprint(live.certificate.authority)) == 95
    again = ensure_certificate(
        live.certificate.authority.parent, names=("localhost",), addresses=(), now=datetime.now(UTC)
    )
    assert fingerprint(again.authority) == fingerprint(live.certificate.authority)
