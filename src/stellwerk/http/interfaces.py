"""Under which names and addresses this machine can be reached, as the machine itself knows it."""

import ctypes
import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

_LOOPBACK: tuple[IPAddress, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_MOST_ADDRESSES = 64
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,31}", re.ASCII)
_ADDRESS_OFFSET = 4
"""Where the four bytes of an IPv4 address stand in a socket address, on Linux and macOS alike."""


class _Interface(ctypes.Structure):
    """The beginning of the C library's `struct ifaddrs`; what follows is never read."""


_Interface._fields_ = [
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def machine_addresses() -> tuple[IPAddress, ...]:
    """Loopback first, then the IPv4 addresses of this machine's interfaces, sorted, at most 64. Asks nobody outside.

    IPv6 addresses beside `::1` are left out: most of them are replaced every day (RFC 8981).
    """
    found = {address for address in _interface_addresses() if not address.is_loopback and not address.is_link_local}
    return (*_LOOPBACK, *sorted(found)[:_MOST_ADDRESSES])


def machine_names() -> tuple[str, ...]:
    """`localhost`, the host name, and the host name as neighbours find it (`.local`)."""
    name = socket.gethostname().rstrip(".").lower()
    if not is_host_name(name):
        return ("localhost",)
    short = name.partition(".")[0]
    return tuple(dict.fromkeys(("localhost", name, short, f"{short}.local")))


def is_host_name(text: str) -> bool:
    """Whether it can be a name on the network; an address is none."""
    return _HOST_NAME.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()


def _interface_addresses() -> Iterator[IPv4Address]:
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Interface)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        return
    try:
        interface = first
        while bool(interface):  # false for a null pointer
            address = interface.contents.address
            if address is not None and _is_ipv4(address):
                yield IPv4Address(ctypes.string_at(address + _ADDRESS_OFFSET, 4))
            interface = interface.contents.next
    finally:
        library.freeifaddrs(first)


def _is_ipv4(address: int) -> bool:
    """Linux writes the family in two bytes; macOS writes a length, which is never 2, and the family in one."""
    return socket.AF_INET in ctypes.string_at(address, 2)
