import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from stellwerk.http.interfaces import is_host_name, machine_addresses, machine_names


def test_loopback_comes_first_and_nothing_that_no_neighbour_could_use_follows():
    first, second, *others = machine_addresses()
    assert (first, second) == (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    assert all(isinstance(each, IPv4Address) and not each.is_loopback and not each.is_link_local for each in others)


def test_every_address_is_one_that_this_machine_can_listen_on():
    for address in machine_addresses():
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as bound:
            bound.bind((str(address), 0))


def test_the_address_that_leads_out_is_among_them():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: a datagram socket only chooses its own address here.
            probe.connect(("192.0.2.200", 9))
        except OSError:
            pytest.skip("this machine has no network")
        assert IPv4Address(probe.getsockname()[0]) in machine_addresses()


def test_the_machine_is_called_localhost_and_by_its_own_name():
    names = machine_names()
    assert names[0] == "localhost"
    assert len(set(names)) == len(names)
    assert all(is_host_name(name) and name == name.lower() for name in names)


@pytest.mark.parametrize("text", ["localhost", "vm", "vm.local", "a-b.example.org", "xn--bcher-kva.example", "my_host"])
def test_host_names_are_known(text):
    assert is_host_name(text)


@pytest.mark.parametrize(
    "text", ["", "*", "*.local", "-a", "a b", "a..b", ".a", "a.", "bücher", "10.0.0.1", "::1", "a:80"]
)
def test_what_is_no_host_name_is_known_too(text):
    assert not is_host_name(text)
