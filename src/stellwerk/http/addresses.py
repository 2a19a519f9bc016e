"""Which addresses are the public internet: the only ones to which a URL that a person has set may lead."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# Written out, because `is_global` differs between the versions of Python and calls translated, site-local and
# multicast addresses global. Whatever is in here may end at a machine of the operator's, at many, or nowhere.
_CLOSED_4 = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own services inside of every machine
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
# Everything outside of this range is closed: loopback, mapped and translated IPv4, unique local, link-local,
# site-local and multicast addresses among it.
_OPEN_6 = ip_network("2000::/3")
_CLOSED_6 = tuple(
    ip_network(text)
    for text in (
        "2001::/23",  # Teredo, benchmarks, identifiers
        "2001:db8::/32",
        "2002::/16",  # an IPv4 address is inside
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)
"""The upper half of an interface identifier whose lower half is an IPv4 address."""


def is_public(text: str) -> bool:
    """Whether an address in text form is one of the public internet. What is no address, or has a zone, is not."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return _is_public_4(address)
    return _is_public_6(address)


def _is_public_4(address: IPv4Address) -> bool:
    return address.is_global and not any(address in network for network in _CLOSED_4)


def _is_public_6(address: IPv6Address) -> bool:
    # An address that carries one of IPv4 is refused whatever that is: nobody needs to write one.
    return (
        address.is_global
        and address.scope_id is None
        and address in _OPEN_6
        and not any(address in network for network in _CLOSED_6)
        and int(address) >> 32 & 0xFFFFFFFF not in _ISATAP
    )
