import socket

from stellwerk.http.certificates import fingerprint
from tests.gateway_process import running_gateway


async def test_the_start_names_every_listener_and_what_its_clients_have_to_trust(tmp_path):
    sigorest = {"http_port": 0, "https_port": 0, "lan_trust": True, "lan_networks": ["127.0.0.0/8", "10.0.0.0/8"]}
    async with running_gateway(tmp_path, {"compat": ["sigorest"], "sigorest": sigorest}) as gateway:
        first, here, networks, authority, prints, *rest = gateway.output.splitlines()
        assert first.endswith(f" answers on {gateway.url}")
        assert here.startswith("For clients of sigorest, on this machine and without a key: http://127.0.0.1:")
        assert networks.startswith("For clients of sigorest, from 127.0.0.0/8, 10.0.0.0/8 and without a key: https://")
        file = gateway.data / "certs" / "authority.crt"
        assert authority.endswith(f" {file}")
        assert prints == f"  Its SHA-256 fingerprint: {fingerprint(file)}"
        assert rest[0] == "Try it:"


async def test_the_start_says_why_a_listener_stays_closed(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = {"compat": ["sigorest"], "sigorest": {"http_port": port}}
        async with running_gateway(tmp_path, config) as gateway:
            assert gateway.output.splitlines()[1] == (
                "One listener for clients of sigorest stays closed. "
                f"Cannot listen on 127.0.0.1:{port}: another program listens there."
            )
