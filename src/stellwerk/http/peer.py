"""Who is at the other end when a reverse proxy stands in between."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

_MOST_BYTES = 2048
_WITH_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\](?::\d{1,5})?|(?P<four>[0-9.]+):\d{1,5})", re.ASCII)


def client_address(peer: str, forwarded: bytes | None, trusted: tuple[Network, ...]) -> str:
    """The address of the client, read from `x-forwarded-for` as far as its hops can be believed.

    The list is walked from its end, where our own proxies write: the first address that is none of theirs is the
    client's. Whatever stands before it the client may have invented. "" when a believed proxy names no address.
    """
    address = read_address(peer)
    if address is None or not is_one_of(address, trusted) or forwarded is None:
        return peer
    hops = forwarded[-_MOST_BYTES:].decode("latin-1").split(",")
    if len(forwarded) > _MOST_BYTES:
        # The first of what is left may be the end of a longer one.
        del hops[0]
    for hop in reversed(hops):
        found = read_address(hop.strip())
        if found is None:
            return ""
        address = found
        if not is_one_of(address, trusted):
            break
    return str(address)


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address with or without a port; an IPv4 address inside IPv6 is the IPv4 address. None when it is none."""
    found = _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found["six"] or found["four"]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def peer_network(peer: str) -> str:
    """Who one peer is where attempts are counted: of IPv6 the network, as everybody has as many addresses in it as he
    likes. What is no address is returned as it is."""
    address = read_address(peer.partition("%")[0])
    if address is None:
        return peer
    return str(address) if address.version == 4 else f"{IPv6Address(int(address) >> 64 << 64)}/64"


def is_one_of(address: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    """Whether the address lies in one of the networks."""
    return any(address.version == network.version and address in network for network in networks)
