import ipaddress
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.http.addresses import is_public
from stellwerk.http.egress import Egress
from stellwerk.http.egress_url import UrlRefused, canonical_origin, parse_url

EGRESS = Egress(lambda: ())


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://example.com", "https://example.com", "/"),
        ("HTTPS://Hooks.Example.COM:443/A/b?c=d&e=%20", "https://hooks.example.com", "/A/b?c=d&e=%20"),
        ("http://example.com:8080?x", "http://example.com:8080", "/?x"),
        ("https://xn--mnchen-3ya.example/@me/a:b", "https://xn--mnchen-3ya.example", "/@me/a:b"),
        ("https://8.8.8.8:8443/", "https://8.8.8.8:8443", "/"),
        ("https://[2606:4700:4700:0::1111]/", "https://[2606:4700:4700::1111]", "/"),
        ("http://under_score.a-b.example/", "http://under_score.a-b.example", "/"),
        ("https://hooks.example.com/T[0]{x}|y/..;z", "https://hooks.example.com", "/T[0]{x}|y/..;z"),
    ],
)
def test_a_plain_url_is_taken_apart(url, origin, target):
    found = EGRESS.parse(url)
    assert (found.origin, found.target) == (origin, target)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://example.com/" + "a" * 2030, "longer than 2048"),
        ("https://exämple.com/", "xn--"),
        ("ftp://example.com/", "https:// or http://"),
        ("https://example.com/#a", "leave out everything from the #"),
        ("https://a:b@example.com/", "before the @"),
        ("https://example.com./", "without a dot behind it"),
        ("https://example.com:70000/", "port from 1 to 65535"),
        ("https://example.com/%", "%25"),
        ("https://example.com:25/", "8443"),
        ("https://10.0.0.1/", "egress.allowed_origins"),
    ],
)
def test_a_refusal_names_the_remedy(url, says):
    with pytest.raises(UrlRefused, match=r"^The URL ") as caught:
        EGRESS.parse(url)
    assert says in caught.value.message


def test_every_closed_address_is_refused_with_the_same_words():
    def words(url):
        with pytest.raises(UrlRefused) as caught:
            EGRESS.parse(url)
        return caught.value.message

    urls = ("http://10.0.0.1/", "https://[::1]:8443/", "http://localhost/", "http://169.254.169.254/", "http://0.0.0.0")
    assert len({words(url) for url in urls}) == 1


@pytest.mark.parametrize(
    ("text", "origin"),
    [("HTTP://127.0.0.1:80/", "http://127.0.0.1"), ("https://Ollama:8443", "https://ollama:8443")],
)
def test_an_origin_has_one_spelling(text, origin):
    assert canonical_origin(text) == origin


@pytest.mark.parametrize("text", ["http://a.example/path", "http://a.example?x", "a.example"])
def test_what_is_more_or_less_than_an_origin_is_none(text):
    with pytest.raises(UrlRefused):
        canonical_origin(text)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "99.255.255.255", "172.15.0.1", "172.32.0.1", "223.255.255.255"]
)
def test_an_address_of_the_public_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", ["2606:4700:4700::1111", "2a00:1450:4001::200e", "2001:4860:4860::8888"])
def test_so_is_one_of_ipv6(address):
    assert is_public(address)
    assert not is_public(f"{address}%eth0")


def spellings(address):
    """How one may write an address in a URL, also in ways that only some programs understand."""
    number = int(address)
    if address.version == 6:
        return [f"[{address}]", f"[{address.exploded}]", f"[{str(address).upper()}]"]
    first, second, third, fourth = address.packed
    return [
        str(address),
        f"{address}.",
        str(number),
        hex(number),
        f"0{number:o}",
        f"{first:#x}.{second:#x}.{third:#x}.{fourth:#x}",
        f"0{first:o}.{second}.{third}.{fourth}",
        f"{first}.{number & 0xFFFFFF}",
        f"{first}.{second}.{number & 0xFFFF}",
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
    ]


NETWORKS = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("224.0.0.0/4", "240.0.0.0/4", "::/96", "::ffff:0:0/96", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32"),
    "64:ff9b:1::/48",
)
CLOSED = st.one_of(
    st.ip_addresses(),
    *(st.ip_addresses(network=network) for network in NETWORKS),
).filter(lambda address: not address.is_global or address.is_multicast or address.is_private)


@given(address=CLOSED, scheme=st.sampled_from(["http", "https", "HTTP"]), port=st.sampled_from(["", ":80", ":8443"]))
def test_no_spelling_of_a_closed_address_is_accepted(address, scheme, port):
    for host in spellings(address):
        with pytest.raises(UrlRefused):
            EGRESS.parse(f"{scheme}://{host}{port}/path")


@given(address=st.ip_addresses(v=4))
def test_only_the_usual_form_of_an_ipv4_address_is_accepted_at_all(address):
    usual, *others = spellings(address)
    for host in others:
        with pytest.raises(UrlRefused):
            EGRESS.parse(f"http://{host}/")
    assert parse_url(f"http://{usual}/").host == str(address)


PIECES = st.sampled_from(
    [
        *(
            "http",
            "https",
            "://",
            ":",
            "/",
            "//",
            "@",
            "#",
            "?",
            "\\",
            ".",
            "..",
            "127",
            "127.0.0.1",
            "0x7f",
            "017",
            "1",
        ),
        *(
            "localhost",
            "example.com",
            "[",
            "]",
            "::1",
            "[::1]",
            "%",
            "%2e",
            "%40",
            "&",
            ";",
            "=",
            "a",
            "-",
            "_",
            "xn--",
        ),
        *(":80", ":443", "\t", "\n"),
    ]
)
URLS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=12).map(lambda pieces: "http://" + "".join(pieces)),
    st.text(max_size=40).map(lambda text: f"https://{text}"),
)


@given(url=URLS)
def test_what_is_accepted_another_parser_reads_alike(url):
    try:
        found = parse_url(url)
    except UrlRefused:
        return
    parts = urlsplit(url)
    host = parts.hostname
    assert host is not None
    assert (parts.scheme, parts.username, parts.password, parts.fragment) == (found.scheme, None, None, "")
    assert (parts.port or {"http": 80, "https": 443}[found.scheme]) == found.port
    assert host == found.host or ipaddress.ip_address(host) == ipaddress.ip_address(found.host)


@given(url=URLS)
def test_what_is_taken_for_a_name_no_resolver_reads_as_an_address(url):
    try:
        found = parse_url(url)
    except UrlRefused:
        return
    if found.is_address:
        assert str(ipaddress.ip_address(found.host)) == found.host
        return
    with pytest.raises((socket.gaierror, UnicodeError)):
        socket.getaddrinfo(found.host, 80, flags=socket.AI_NUMERICHOST)
