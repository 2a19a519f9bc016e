from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from stellwerk.client import AsyncClient, BadAddress, Client
from stellwerk.http.certificates import ensure_certificate, ssl_context
from tests.scripted_answers import answer, scripted_answers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return ensure_certificate(folder, names=["localhost"], addresses=[ip_address("127.0.0.1")], now=datetime.now(UTC))


@pytest.fixture
def secured(certificate):
    with scripted_answers(ssl_context(certificate)) as server:
        server.script = [answer({"data": []})]
        yield server


async def test_the_given_authority_is_trusted(secured, certificate):
    assert Client(secured.url, "sk-test", ca=certificate.authority).models() == []


async def test_the_given_authority_is_trusted_on_the_loop(secured, certificate):
    assert await AsyncClient(secured.url, "sk-test", ca=certificate.authority).models() == []


async def test_a_stranger_is_told_nothing(secured):
    with pytest.raises(BadAddress) as caught:
        Client(secured.url, "sk-test").models()
    assert caught.value.code == "untrusted_certificate"
    with pytest.raises(BadAddress):
        await AsyncClient(secured.url, "sk-test").models()
    assert secured.seen == []
