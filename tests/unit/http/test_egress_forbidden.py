"""The forbidden forms connect to nothing: sockets that would notice a connection stand ready on this machine."""

import socket

import pytest

from stellwerk.http.egress import Egress, UrlRefused
from stellwerk.http.serving import bind_loopback
from tests.egress_urls import FORBIDDEN_NAMES, FORBIDDEN_URLS


class Canary:
    """Listens on the loopback addresses and accepts nothing, so whoever has connected stays in the queue."""

    def __init__(self):
        self.sockets = bind_loopback(0)
        for bound in self.sockets:
            bound.listen(8)
        self.port = self.sockets[0].getsockname()[1]

    def connections(self):
        count = 0
        for bound in self.sockets:
            try:
                accepted, _ = bound.accept()
            except BlockingIOError:
                continue
            accepted.close()
            count += 1
        return count

    def close(self):
        for bound in self.sockets:
            bound.close()


@pytest.fixture
def canary():
    made = Canary()
    yield made
    made.close()


async def resolve(host, port):
    addresses = FORBIDDEN_NAMES.get(host)
    if addresses is None:
        # As the system's resolver does it, which understands more spellings of an address than one should think.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [where[0] for *_, where in found]
    return addresses


def test_the_list_is_as_long_as_promised():
    assert len(set(FORBIDDEN_URLS)) == len(FORBIDDEN_URLS) >= 240


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.1", "2130706433", "0x7f000001", "localhost"])
def test_the_canary_notices_who_connects(canary, host):
    with socket.create_connection((host, canary.port), timeout=5):
        assert canary.connections() == 1


@pytest.mark.parametrize("form", FORBIDDEN_URLS)
async def test_a_forbidden_url_connects_to_nothing(canary, form):
    url = form.replace("{port}", str(canary.port))
    egress = Egress(lambda: (), resolve=resolve)
    with pytest.raises(UrlRefused) as caught:
        await egress.send("POST", url, [("content-type", "application/json")], b"{}", seconds=60, redirects=3)
    assert canary.connections() == 0
    refused = caught.value
    assert (refused.status, refused.code, refused.param) == (400, "url_refused", "url")
    assert refused.message.startswith("The URL ")
    for address in ("127.0", "10.9", "192.168", "169.254", "100.64", "::1", "fe80", "fd12", "8.8.8", "secret"):
        assert address not in refused.message
    assert len(refused.message) < 250
