import socket

from stellwerk.engines.slot import Slot
from tests.real_engines import free_ports


def test_an_empty_slot_says_so():
    status = Slot(4801).status()
    assert (status.port, status.state, status.model, status.error) == (4801, "empty", None, None)


def test_a_port_of_another_program_is_a_fault_until_it_is_free():
    slot = Slot(free_ports(1))
    with socket.create_server(("127.0.0.1", slot.port)):
        assert not slot.check_port()
        assert slot.status().state == "failed"
        assert slot.status().error == f"port {slot.port} is used by another program"
    assert slot.check_port()
    assert slot.status().state == "empty"
