import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.http.peer import client_address, read_address

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", b"203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", b"1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", b"203.0.113.9, 10.2.3.4", "203.0.113.9"),
        ("10.0.0.1", b"10.9.9.9 , 10.2.3.4", "10.9.9.9"),
        ("10.0.0.1", b"203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", b"[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", b"2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", b"::ffff:203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", b"203.0.113.9", "203.0.113.9"),
        ("::1", b"203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", b"unknown", ""),
        ("10.0.0.1", b"203.0.113.9, unknown", ""),
        ("10.0.0.1", b"203.0.113.9, ", ""),
        ("10.0.0.1", b"", ""),
        ("10.0.0.1", b"fe80::1%eth0", ""),
        ("10.0.0.1", b"10.0.0.256", ""),
        ("10.0.0.1", b"203.0.113.9\xff", ""),
        ("", b"203.0.113.9", ""),
    ],
)
def test_the_last_hop_that_is_no_proxy_of_ours_is_the_client(peer, forwarded, client):
    assert client_address(peer, forwarded, TRUSTED) == client


def test_a_list_that_is_too_long_is_read_from_its_end_only():
    forwarded = b"198.51.100.1, " * 10_000 + b"203.0.113.9"
    assert client_address("10.0.0.1", forwarded, TRUSTED) == "203.0.113.9"
    assert client_address("10.0.0.1", b"198.51.100.1," + b"10.0.0.1," * 10_000 + b"10.0.0.2", TRUSTED) == "10.0.0.1"


@given(st.ip_addresses(), st.lists(st.ip_addresses(), max_size=5))
def test_what_the_client_writes_before_its_own_address_changes_nothing(client, invented):
    if any(client.version == network.version and client in network for network in TRUSTED):
        return
    forwarded = ", ".join(str(address) for address in [*invented, client]).encode()
    mapped = getattr(client, "ipv4_mapped", None)
    if mapped is not None and any(mapped in network for network in TRUSTED if network.version == 4):
        return
    assert client_address("10.0.0.1", forwarded, TRUSTED) == str(read_address(str(client)) or "")


@given(st.text(max_size=50))
def test_any_text_is_an_address_or_none(text):
    found = read_address(text)
    assert found is None or ipaddress.ip_address(str(found)) == found
