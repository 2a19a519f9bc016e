import ssl

import pytest

from stellwerk.client.address import Address, make_tls, parse_address
from stellwerk.client.errors import BadAddress


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("localhost:4000", Address(host="localhost", port=4000, secure=False, path=""), "localhost:4000"),
        ("http://127.0.0.1/v1/", Address(host="127.0.0.1", port=80, secure=False, path=""), "127.0.0.1"),
        ("https://ai.example/llm/v1", Address(host="ai.example", port=443, secure=True, path="/llm"), "ai.example"),
        ("https://[::1]:8443", Address(host="::1", port=8443, secure=True, path=""), "[::1]:8443"),
    ],
)
def test_addresses_are_read(url, address, authority):
    assert parse_address(url) == address
    assert parse_address(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "http://",
        "http://a b",
        "http://x:99999",
        "http://me:pw@x",
        "http://x?key=1",
        "http://x#a",
        "http://ü",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(BadAddress):
        parse_address(url)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(BadAddress) as caught:
        parse_address("http://me:secret@x")
    assert "secret" not in str(caught.value)


def test_certificates_are_checked():
    context = make_tls(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_certificates_that_cannot_be_read_are_refused(tmp_path):
    for place in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        if place.stem == "empty":
            place.write_text("nothing")
        with pytest.raises(BadAddress):
            make_tls(place)
