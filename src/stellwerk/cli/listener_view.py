"""The listeners for the clients of other systems, as `stellwerk serve` names them when it is ready."""

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from stellwerk.app.listeners import MAIN, ListenerStatus, Opened
from stellwerk.cli.language import text
from stellwerk.cli.refusals import explain_text
from stellwerk.http.certificates import fingerprint
from stellwerk.http.interfaces import IPAddress
from stellwerk.http.peer import is_one_of

_MOST_ADDRESSES = 3


def describe_listeners(opened: Opened, machine: Sequence[IPAddress]) -> list[str]:
    """A line for each but the main one, and what the clients of those with TLS have to trust.

    `machine` is where this machine can be reached. Reads the certificate of the authority.
    """
    lines = []
    for listener in opened.listeners:
        if listener.name != MAIN:
            lines.append(_describe(listener, machine))
        if listener.tls and opened.authority is not None:
            lines += _describe_authority(opened.authority)
    return lines


def _describe(listener: ListenerStatus, machine: Sequence[IPAddress]) -> str:
    name = listener.name.partition(" ")[0]
    if listener.state != "open":
        return text("serve.closed", name=name, reason=explain_text(listener.reason or ""))
    scheme = "https" if listener.tls else "http"
    urls = ", ".join(f"{scheme}://{address}" for address in _reachable(listener, machine))
    if listener.peers is None:
        return text("serve.for_keys", name=name, urls=urls)
    networks = listener.peers
    if all(ip_network(network).is_loopback for network in networks):
        return text("serve.for_this_machine", name=name, urls=urls)
    return text("serve.for_networks", name=name, urls=urls, networks=", ".join(networks))


def _reachable(listener: ListenerStatus, machine: Sequence[IPAddress]) -> list[str]:
    """The first address of the listener, or of this machine those that its clients can use, when it has all of them."""
    host, _, port = listener.addresses[0].rpartition(":")
    if host != "0.0.0.0":
        return [listener.addresses[0]]
    networks = None if listener.peers is None else tuple(map(ip_network, listener.peers))
    found = [f"{address}:{port}" for address in machine if networks is None or is_one_of(address, networks)]
    return found[:_MOST_ADDRESSES] or [listener.addresses[0]]


def _describe_authority(authority: Path) -> list[str]:
    try:
        about = text("serve.fingerprint", digits=fingerprint(authority))
    except (OSError, ValueError) as error:
        about = text("serve.no_fingerprint", reason=error)
    return [text("serve.authority", file=authority), about]
