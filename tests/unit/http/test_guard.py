import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.errors import BadRequest, Forbidden, GatewayError, HeaderTooLarge, TooLarge, UnsupportedMedia
from stellwerk.http.guard import Guard, GuardSettings, asks_by_name_of, check_path, join_fields

NAMES = ("my.example", "Other.Example.")


def check_host(host: bytes, names=NAMES):
    Guard(GuardSettings(allowed_hosts=names)).check_head(b"/", "1.1", {b"host": host}, 1)


@pytest.mark.parametrize(
    "host",
    [
        *[b"localhost", b"LOCALHOST:4000", b"localhost.", b"a.localhost", b"127.0.0.1", b"127.0.0.1:80", b"10.1.2.3"],
        *[b"[::1]", b"[::1]:4000", b"[2001:db8::7]", b"[::ffff:127.0.0.1]:1", b"my.example", b"MY.example.:443"],
        *[b"other.example", b"0.0.0.0:4000", b"[::]"],
    ],
)
def test_addresses_localhost_and_allowed_names_may_be_hosts(host):
    check_host(host)


@pytest.mark.parametrize(
    ("host", "code"),
    [
        *[(host, "host_not_allowed") for host in (b"evil.example", b"my.example.evil", b"notmy.example", b"x")],
        *[(host, "host_not_allowed") for host in (b"localhost.evil", b"127.0.0.1.evil", b"xlocalhost", b"1.2.3")],
        *[(host, "host_not_allowed") for host in (b"999.1.1.1", b"0x7f.0.0.1", b"2130706433", b"...", b"-")],
        *[(host, "invalid_host") for host in (b"", b" ", b"localhost ", b" localhost", b"local host", b"localhost:")],
        *[
            (host, "invalid_host")
            for host in (b"localhost:port", b"localhost:123456", b"localhost:-1", b"user@localhost")
        ],
        *[
            (host, "invalid_host")
            for host in (b"localhost/", b"localhost?", b"localhost#", b"localhost\\", b"http://localhost")
        ],
        *[
            (host, "invalid_host")
            for host in (b"localhost,evil", b"localhost, localhost", b"::1", b"[::1", b"::1]", b"[]")
        ],
        *[
            (host, "invalid_host")
            for host in (b"[localhost]", b"[::1%25eth0]", b"loc\xe4lhost", b"localhost\0", b"%6c", b"a" * 254)
        ],
    ],
)
def test_other_hosts_are_refused(host, code):
    with pytest.raises(BadRequest) as caught:
        check_host(host)
    assert caught.value.code == code


def test_every_name_may_be_allowed_but_none_that_is_invalid():
    check_host(b"anything.example", ("*",))
    with pytest.raises(BadRequest):
        check_host(b"any thing", ("*",))


@given(st.binary(max_size=40))
def test_only_known_names_and_addresses_pass_whatever_a_host_holds(host):
    try:
        check_host(host)
    except BadRequest:
        return
    name = host.decode("ascii").lower()
    name = name[1 : name.index("]")] if name.startswith("[") else name.partition(":")[0]
    name = name.rstrip(".")
    if name not in ("localhost", "my.example", "other.example") and not name.endswith(".localhost"):
        ipaddress.ip_address(name)


@given(st.ip_addresses(), st.none() | st.integers(0, 65535))
def test_every_address_passes(address, port):
    host = f"[{address}]" if address.version == 6 else str(address)
    check_host((host if port is None else f"{host}:{port}").encode())


def test_the_memory_of_accepted_hosts_is_bounded():
    guard = Guard(GuardSettings(allowed_hosts=("*",)))
    for number in range(2000):
        guard.check_head(b"/", "1.1", {b"host": b"h%d.example" % number}, 1)
    assert len(guard._known_hosts) <= 256


@pytest.mark.parametrize(
    ("target", "version", "headers", "fields", "error"),
    [
        (b"/" + b"x" * 9, "1.1", {b"host": b"localhost"}, 4, None),
        (b"/" + b"x" * 10, "1.1", {b"host": b"localhost"}, 4, "url_too_long"),
        (b"/", "1.1", {b"host": b"localhost"}, 5, "header_too_large"),
        (b"", "1.1", {b"host": b"localhost"}, 1, "invalid_path"),
        (b"*", "1.1", {b"host": b"localhost"}, 1, "invalid_path"),
        (b"x:1", "1.1", {b"host": b"localhost"}, 1, "invalid_path"),
        (b"http://a/", "1.1", {b"host": b"localhost"}, 1, "invalid_path"),
        (b"/", "1.1", {}, 0, "invalid_host"),
        (b"/", "1.0", {}, 0, None),
        (b"/", "1.0", {b"host": b"evil.example"}, 1, "host_not_allowed"),
        (b"/", "1.0", {b"transfer-encoding": b"chunked"}, 1, "invalid_http"),
        (b"/", "2.0", {b"host": b"localhost"}, 1, "invalid_http"),
        (b"/", "0.9", {b"host": b"localhost"}, 1, "invalid_http"),
        (b"*", "2.0", {}, 0, "invalid_http"),
    ],
)
def test_a_head_is_checked(target, version, headers, fields, error):
    guard = Guard(GuardSettings(head_fields=4, target_bytes=10))
    if error is None:
        guard.check_head(target, version, headers, fields)
        return
    with pytest.raises((BadRequest, HeaderTooLarge)) as caught:
        guard.check_head(target, version, headers, fields)
    assert caught.value.code == error


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 0),
        ({b"content-length": b"0"}, 0),
        ({b"content-length": b"100"}, 100),
        ({b"content-length": b"101"}, TooLarge),
        ({b"transfer-encoding": b"chunked"}, None),
        ({b"transfer-encoding": b"Chunked"}, None),
        ({b"transfer-encoding": b"gzip, chunked"}, BadRequest),
        ({b"transfer-encoding": b"identity"}, BadRequest),
        ({b"content-encoding": b"identity", b"content-length": b"5"}, 5),
        ({b"content-encoding": b"gzip", b"content-length": b"5"}, UnsupportedMedia),
        ({b"content-encoding": b"br"}, UnsupportedMedia),
    ],
)
def test_a_body_is_checked(headers, expected):
    guard = Guard(GuardSettings(body_bytes=100))
    if isinstance(expected, type) and issubclass(expected, GatewayError):
        with pytest.raises(expected):
            guard.check_body(headers)
    else:
        assert guard.check_body(headers) == expected


@pytest.mark.parametrize(
    "path", [b"/", b"/a", b"/a/", b"/a.b/c", b"/a%20b", b"/.well-known/x", b"/...", b"/a..b", b"/a.", b"/~u/@x,y=1&z!"]
)
def test_honest_paths_pass(path):
    check_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *[b"//", b"/a//b", b"/..", b"/a/..", b"/a/../b", b"/.", b"/./a", b"/a/.", b"/%2e%2e/a", b"/a%2Fb", b"/a%2fb"],
        *[b"/a%5cb", b"/a\\b", b"/a%00", b"/a;b", b"/a b", b"/a\tb", b"/a\x7f", b"/\xff", b"/a\0", b"/a#b", b"/%2E"],
    ],
)
def test_paths_with_two_meanings_are_refused(path):
    with pytest.raises(BadRequest) as caught:
        check_path(path)
    assert caught.value.code == "invalid_path"


@given(st.lists(st.sampled_from(["a", ".", "..", "%2e", "%2E", "%2f", "%5C", "\\", "/", ";", "#", "%41", "b.c"])))
def test_a_path_that_passes_names_the_same_place_for_every_reader(parts):
    path = "/" + "".join(parts)
    try:
        check_path(path.encode())
    except BadRequest:
        return
    decoded = path.replace("%41", "A")
    assert "%" not in decoded
    assert "\\" not in decoded
    assert not {".", ".."} & set(decoded.split("/"))
    assert "" not in decoded.split("/")[1:-1]


def test_repeated_fields_are_joined_in_their_order():
    head = b"\r\nGET / HTTP/1.1\r\nA: 1\r\nHost: localhost\r\na: 2 \r\nB:\r\nA:\t3\r\n\r\n"
    assert join_fields(head) == {b"a": b"1, 2, 3", b"host": b"localhost", b"b": b""}


@pytest.mark.parametrize(
    "name",
    [
        *[b"Host", b"authorization", b"X-API-Key", b"api-key", b"Content-Type", b"Content-Length"],
        *[b"Transfer-Encoding", b"Content-Encoding"],
    ],
)
def test_a_field_that_decides_something_may_stand_only_once(name):
    with pytest.raises(BadRequest) as caught:
        join_fields(b"GET / HTTP/1.1\r\n%b: a\r\nX: 1\r\n%b: a\r\n\r\n" % (name, name.swapcase()))
    assert caught.value.code == "repeated_header"


LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
PRIVATE = (ip_network("192.168.0.0/16"), ip_network("10.0.0.0/8"))


def is_admitted(peer, peers):
    try:
        Guard(GuardSettings(peers=peers)).check_peer(peer)
    except Forbidden:
        return False
    return True


def test_the_refusal_has_a_code_and_says_nothing_of_the_networks():
    with pytest.raises(Forbidden) as caught:
        Guard(GuardSettings(peers=LOOPBACK)).check_peer("8.8.8.8")
    assert (caught.value.status, caught.value.code) == (403, "peer_not_allowed")
    assert caught.value.message == "This listener does not serve your address."


@pytest.mark.parametrize("peer", ["127.0.0.1", "8.8.8.8", "2001:db8::1", "::1", "fe80::1%eth0", ""])
def test_without_networks_everybody_may_connect(peer):
    assert is_admitted(peer, None)


@pytest.mark.parametrize(
    "peer", ["127.0.0.1", "127.255.255.255", "127.0.0.0", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"]
)
def test_this_machine_may_connect_to_the_local_listener(peer):
    assert is_admitted(peer, LOOPBACK)


@pytest.mark.parametrize(
    "peer",
    [
        *["126.255.255.255", "128.0.0.0", "0.0.0.0", "192.168.0.1", "10.0.0.1", "172.16.0.1", "169.254.1.1", "8.8.8.8"],
        *["::", "::2", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
        *[
            "fe80::1%lo",
            "fc00::1",
            "2001:db8::1",
            "",
            "localhost",
            "unix:",
            "127.0.0.1, 8.8.8.8",
            "127.1",
            "2130706433",
        ],
    ],
)
def test_nobody_else_may_connect_to_the_local_listener(peer):
    assert not is_admitted(peer, LOOPBACK)


@pytest.mark.parametrize(
    "peer", ["192.168.0.0", "192.168.255.255", "10.0.0.0", "10.255.255.255", "::ffff:192.168.1.2", "::ffff:10.1.2.3"]
)
def test_private_networks_may_connect_to_the_lan_listener(peer):
    assert is_admitted(peer, PRIVATE)


@pytest.mark.parametrize(
    "peer",
    [
        *["192.167.255.255", "192.169.0.0", "9.255.255.255", "11.0.0.0", "172.16.0.1", "172.31.0.1", "127.0.0.1"],
        *["100.64.0.1", "169.254.1.1", "203.0.113.9", "::1", "::ffff:127.0.0.1", "::ffff:11.0.0.1", "::10.0.0.1"],
        *["64:ff9b::a00:1", "2002:c0a8:1::", "fe80::1", "fe80::1%eth0", "fd00::1", "2001:db8::1", ""],
    ],
)
def test_nobody_else_may_connect_to_the_lan_listener(peer):
    assert not is_admitted(peer, PRIVATE)


def test_no_networks_at_all_admit_nobody():
    assert not is_admitted("127.0.0.1", ())


def test_link_local_addresses_are_compared_without_their_interface():
    assert is_admitted("fe80::1%eth0", (ip_network("fe80::/10"),))


@given(st.ip_addresses(), st.sampled_from([LOOPBACK, PRIVATE]))
def test_a_peer_is_admitted_exactly_when_its_ipv4_address_or_the_ipv6_loopback_is_listed(address, peers):
    plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
    expected = plain == IPv6Address("::1") and peers is LOOPBACK
    if isinstance(plain, IPv4Address):
        expected = any(plain in network for network in peers if network.version == 4)
    assert is_admitted(str(address), peers) == expected
    if isinstance(address, IPv4Address):
        assert is_admitted(f"::ffff:{address}", peers) == expected


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_an_ipv4_address_means_the_same_in_both_of_its_forms(address):
    assert is_admitted(str(address), LOOPBACK)
    assert is_admitted(f"::ffff:{address}", LOOPBACK)


@given(st.text(max_size=40))
def test_text_that_is_no_address_is_never_admitted(text):
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        assert not is_admitted(text.replace(":", "").replace(".", ""), (ip_network("0.0.0.0/0"), ip_network("::/0")))


@pytest.mark.parametrize(
    ("host", "own"),
    [
        (None, True),
        (b"localhost:80", True),
        (b"192.168.1.5", True),
        (b"[::1]:80", True),
        (b"mybox", True),
        (b"MYBOX.:80", True),
        (b"other", False),
        (b"mybox.evil.example", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"", False),
        (b"mybox, evil.example", False),
    ],
)
def test_a_host_that_an_attacker_can_own_is_not_ours(host, own):
    assert asks_by_name_of(host, {"mybox"}) is own
