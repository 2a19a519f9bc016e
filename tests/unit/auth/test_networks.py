from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.auth.networks import check_network, parse_networks, read_networks
from stellwerk.core.errors import BadRequest, Forbidden
from stellwerk.core.principal import Principal, Role

V4 = st.builds(lambda a, p: IPv4Network((a, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32))
V6 = st.builds(lambda a, p: IPv6Network((a, p), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128))
MAPPED = IPv6Network("::ffff:0:0/96")
V4_IN_V6 = V4.map(lambda network: IPv6Network(f"::ffff:{network.network_address}/{network.prefixlen + 96}"))
NETWORKS = st.one_of(V4, V6, V4_IN_V6)


def caller(*networks):
    return Principal(key_id="k", name="k", role=Role.USER, networks=read_networks(parse_networks(networks)))


def is_let_in(principal, peer):
    try:
        check_network(principal, peer)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        (" 10.1.2.3/8 ", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1/128"),
        ("2001:DB8::5/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
    ],
)
def test_networks_are_stored_in_one_spelling(text, stored):
    assert parse_networks([text]) == (stored,)


@pytest.mark.parametrize("text", ["", "1" * 100, "example.org", "fe80::1%eth0", "10.0.0", "010.0.0.1", "\ud800"])
@pytest.mark.parametrize("prefix", ["", "/8"])
def test_what_is_no_address_makes_no_network(text, prefix):
    test_what_is_no_network_is_refused(f"{text}{prefix}")


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/255.0.0.0", "10.0.0.0/0.0.0.255", "10.0.0.0/-1", "10.0.0.0/٨"],
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(BadRequest) as raised:
        parse_networks(["10.0.0.1", text])
    assert (raised.value.code, raised.value.param) == ("invalid_networks", "networks")


def test_each_network_is_kept_once_and_in_order():
    assert parse_networks(["10.0.0.9/8", "192.0.2.1", "10.0.0.0/8"]) == ("10.0.0.0/8", "192.0.2.1/32")


def test_networks_are_bounded():
    assert len(parse_networks(f"10.0.0.{n}" for n in range(64))) == 64
    with pytest.raises(BadRequest):
        parse_networks(f"10.0.0.{n}" for n in range(65))


@given(st.lists(NETWORKS, max_size=5))
def test_a_stored_network_stays_as_it_is(networks):
    stored = parse_networks(map(str, networks))
    assert parse_networks(stored) == stored
    assert parse_networks(map(str, read_networks(stored))) == stored


@given(st.text(max_size=60))
def test_any_text_is_a_network_of_the_standard_library_or_refused(text):
    try:
        (stored,) = parse_networks([text])
    except BadRequest:
        return
    assert ip_network(text.strip(), strict=False).version >= ip_network(stored).version


def test_whoever_is_refused_learns_why():
    with pytest.raises(Forbidden, match="your address") as raised:
        check_network(caller("10.0.0.0/8"), "192.0.2.1")
    assert (raised.value.status, raised.value.code) == (403, "ip_not_allowed")


def test_without_networks_everybody_is_let_in_and_with_none_nobody():
    anywhere = Principal(key_id="k", name="k", role=Role.USER)
    assert all(is_let_in(anywhere, peer) for peer in ("192.0.2.1", "::1", "", "nonsense"))
    assert not any(is_let_in(caller(), peer) for peer in ("192.0.2.1", "::1", "", "nonsense"))


@pytest.mark.parametrize("peer", ["", "@socket", "localhost", "10.0.0.1:80", "[::1]", "10.0.0.1, 10.0.0.2"])
def test_a_peer_that_is_no_address_is_in_no_network(peer):
    assert not is_let_in(caller("0.0.0.0/0", "::/0"), peer)


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.0.0.1"], ["9.255.255.255", "11.0.0.0", "::10.0.0.1"]),
        ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8", "::1"]),
        ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"], ["2001:db7:ffff::", "2001:db9::"]),
        ("fe80::/10", ["fe80::1%eth0", "fe80::1"], ["fec0::1"]),
        ("::/0", ["::1", "2001:db8::1"], ["127.0.0.1", "::ffff:127.0.0.1"]),
        ("127.0.0.0/8", ["127.0.0.1", "127.255.255.255"], ["::1", "128.0.0.0"]),
    ],
)
def test_the_edges_of_a_network_are_exact(network, inside, outside):
    assert all(is_let_in(caller(network), peer) for peer in inside)
    assert not any(is_let_in(caller(network), peer) for peer in outside)


@given(st.lists(NETWORKS, max_size=4), st.data())
def test_the_check_agrees_with_the_standard_library(networks, data):
    addresses = [st.ip_addresses()]
    for network in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        most = 2**network.max_prefixlen - 1
        edges = st.sampled_from([max(0, first - 1), first, last, min(most, last + 1)])
        addresses.append(edges.map(type(network.network_address)))
    address = as_ipv4(data.draw(st.one_of(addresses)))
    peer = f"::ffff:{address}" if address.version == 4 and data.draw(st.booleans()) else str(address)
    expected = any(address in network_as_ipv4(network) for network in networks)
    assert is_let_in(caller(*map(str, networks)), peer) is expected


def as_ipv4(address):
    return (address.version == 6 and address.ipv4_mapped) or address


def network_as_ipv4(network):
    if network.version == 4 or not network.subnet_of(MAPPED):
        return network
    return ip_network(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}")
