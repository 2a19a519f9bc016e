import asyncio
import errno
import socket

import pytest

from stellwerk.http.serving import CannotListen, address_of, bind, bind_loopback
from tests.running_listener import listening


@pytest.fixture
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_that_another_program_has_is_named_in_a_sentence(taken):
    with pytest.raises(CannotListen) as caught:
        bind("127.0.0.1", taken)
    assert str(caught.value) == f"Cannot listen on 127.0.0.1:{taken}: another program listens there."
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("192.0.2.77", "Cannot listen on 192.0.2.77:0: this is not an address of this machine."),
        ("2001:db8::77", "Cannot listen on [2001:db8::77]:0: this is not an address of this machine."),
        ("no.such.host.invalid", "Cannot listen on no.such.host.invalid:0: the host name is not known."),
    ],
)
def test_an_address_that_is_not_ours_is_named_in_a_sentence(host, sentence):
    with pytest.raises(CannotListen) as caught:
        bind(host, 0)
    assert str(caught.value) == sentence
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_localhost_is_bound_in_both_families_on_one_port():
    sockets = bind_loopback(0)
    try:
        assert [address_of(each)[0] for each in sockets] == ["127.0.0.1", "::1"][: len(sockets)]
        assert len({address_of(each)[1] for each in sockets}) == 1
    finally:
        for each in sockets:
            each.close()


def port_free_for_ipv4(other: socket.socket) -> int:
    """Binds `other` to ::1 and returns the port, one that no other program has at 127.0.0.1."""
    with socket.socket(socket.AF_INET) as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        other.bind(("::1", first.getsockname()[1]))
    other.listen()
    return int(other.getsockname()[1])


def test_localhost_is_not_bound_by_half_when_another_program_has_the_other_half():
    with socket.socket(socket.AF_INET6) as other:
        port = port_free_for_ipv4(other)
        with pytest.raises(CannotListen) as caught:
            bind_loopback(port)
        assert str(caught.value) == f"Cannot listen on [::1]:{port}: another program listens there."
    bind("127.0.0.1", port).close()


async def test_two_listeners_of_a_process_run_and_stop_without_each_other():
    async with listening() as first:
        async with listening() as second:
            pass
        assert second.server.servers[0].sockets == ()
        answer = await first.exchange(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_listener_that_cannot_start_leaves_another_one_running(taken):
    async with listening() as running:
        with pytest.raises(CannotListen):
            await asyncio.to_thread(bind, "127.0.0.1", taken)
        answer = await running.exchange(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
