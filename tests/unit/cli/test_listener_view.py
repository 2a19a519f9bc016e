from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from stellwerk.app.listeners import ListenerStatus, Opened
from stellwerk.cli.listener_view import describe_listeners
from stellwerk.http.certificates import ensure_certificate, fingerprint

MAIN = ListenerStatus(name="main", addresses=("127.0.0.1:4000",), state="open")
HERE = ListenerStatus(
    name="sigorest http", addresses=("127.0.0.1:9080", "[::1]:9080"), state="open", peers=("127.0.0.0/8", "::1/128")
)
MACHINE = tuple(map(ip_address, ("127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.7.8")))


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")


def lan(**changes):
    facts = {"addresses": ("0.0.0.0:9443",), "state": "open", "tls": True, "peers": ("192.168.0.0/16", "10.0.0.0/8")}
    return ListenerStatus(name="sigorest https", **{**facts, **changes})


def described(*listeners, authority=None, machine=MACHINE):
    opened = Opened(host="127.0.0.1", port=4000, listeners=(MAIN, *listeners), authority=authority)
    return describe_listeners(opened, machine)


def test_the_main_listener_alone_needs_no_line():
    assert described() == []


def test_a_listener_says_where_it_is_and_whom_it_lets_in():
    assert described(HERE, lan()) == [
        "For clients of sigorest, on this machine and without a key: http://127.0.0.1:9080",
        "For clients of sigorest, from 192.168.0.0/16, 10.0.0.0/8 and without a key: "
        "https://10.1.2.3:9443, https://192.168.7.8:9443",
    ]


def test_a_listener_that_asks_for_a_key_says_so():
    keyed = ListenerStatus(name="go-ollama-api 8080", addresses=("127.0.0.1:8080", "[::1]:8080"), state="open")
    assert described(keyed) == ["For clients of go-ollama-api, with a key: http://127.0.0.1:8080"]
    everywhere = ListenerStatus(name="go-ollama-api 8081", addresses=("0.0.0.0:8081",), state="open")
    [line] = described(everywhere, machine=MACHINE[2:4])
    assert line.endswith(": http://10.1.2.3:8081, http://172.16.0.1:8081")


def test_a_machine_outside_of_the_networks_shows_what_is_bound():
    [line] = described(lan(), machine=MACHINE[:2])
    assert line.endswith(": https://0.0.0.0:9443")


def test_a_machine_with_many_addresses_shows_three():
    [line] = described(lan(), machine=[ip_address(f"10.0.0.{number}") for number in range(9)])
    assert line.count("https://") == 3


def test_the_authority_stands_below_its_listener_with_its_fingerprint(tmp_path):
    made = ensure_certificate(tmp_path, names=["localhost"], addresses=[], now=datetime(2026, 11, 21, tzinfo=UTC))
    closed = ListenerStatus(name="sigorest http", addresses=(), state="down", reason="Somebody is there.")
    assert described(lan(), closed, authority=made.authority)[1:] == [
        f"  These clients have to trust the certificate authority {made.authority}",
        f"  Its SHA-256 fingerprint: {fingerprint(made.authority)}",
        "One listener for clients of sigorest stays closed. Somebody is there.",
    ]


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read_stops_nothing(tmp_path, content):
    file = tmp_path / "authority.crt"
    if content is not None:
        file.write_text(content)
    assert described(lan(), authority=file)[-1].startswith("  It cannot be read: ")
