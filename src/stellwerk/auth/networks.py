"""Where requests with a key may come from. An address only ever restricts: it never makes anybody somebody."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from stellwerk.core.errors import BadRequest, Forbidden
from stellwerk.core.principal import Network, Principal

MOST_NETWORKS = 64

_LONGEST_TEXT = 50
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Addresses and networks as CIDR, each once, in the order given; an address is a network of one.

    IPv6 networks of mapped IPv4 addresses become IPv4 networks. Raises BadRequest, code `invalid_networks`.
    """
    given = list(texts)
    if len(given) > MOST_NETWORKS:
        raise BadRequest(f"At most {MOST_NETWORKS} networks can be listed.", param="networks", code="invalid_networks")
    return tuple(dict.fromkeys(str(_parse(text.strip())) for text in given))


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """What `parse_networks` has written."""
    return tuple(ip_network(text) for text in texts)


def check_network(principal: Principal, peer: str) -> None:
    """Raises Forbidden, code `ip_not_allowed`, when `peer` is none of the addresses that the key may be used from.

    `peer` is the address of the socket's other end; one that is no address, as of a UNIX socket, is in no network.
    """
    networks = principal.networks
    if networks is None:
        return
    # The system names the interface of a link-local address behind it; rules are about addresses.
    text, _, _ = peer.partition("%")
    try:
        address = ip_address(text)
    except ValueError:
        raise _refused() from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not any(address in network for network in networks):
        raise _refused()


def _parse(text: str) -> Network:
    _, slash, prefix = text.partition("/")
    # A mask in place of a number of bits can be read in two ways.
    readable = len(text) <= _LONGEST_TEXT and "%" not in text and (not slash or (prefix.isascii() and prefix.isdigit()))
    try:
        if not readable:
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise BadRequest(
            "Networks are addresses or ranges like 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32.",
            param="networks",
            code="invalid_networks",
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def _refused() -> Forbidden:
    return Forbidden("This key may not be used from your address.", code="ip_not_allowed")
