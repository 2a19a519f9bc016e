import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from stellwerk.core.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
from stellwerk.http.authority import issue, make_authority
from stellwerk.http.egress import Egress, UrlRefused
from tests.scripted_upstream import ScriptedUpstream

PUBLIC = "8.8.8.8"
PUBLIC_6 = "2606:4700:4700::1111"


async def greet(talk):
    await talk.answer(b"hello", content_type="text/plain", headers=[("Retry-After", "7"), ("X-Other", "1")])


@pytest.fixture
async def receiver():
    server = ScriptedUpstream(greet)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def other():
    server = ScriptedUpstream(greet)
    await server.start()
    yield server
    await server.stop()


def origin(server):
    return f"http://127.0.0.1:{server.port}"


class Internet:
    """Names with the addresses of each lookup, and public addresses that in truth are ports of this machine."""

    def __init__(self):
        self.names: dict[str, list[list[str]]] = {}
        self.ports: dict[str, int] = {}
        self.lookups: list[str] = []
        self.dialled: list[str] = []

    async def resolve(self, host, port):
        self.lookups.append(host)
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect(self, protocol, address, port, tls, name):
        self.dialled.append(address)
        if address not in self.ports:
            raise ConnectionRefusedError
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            protocol, "127.0.0.1", self.ports[address], ssl=tls, server_hostname=name
        )
        return connection

    def egress(self, *allowed, **more):
        return Egress(lambda: allowed, resolve=self.resolve, connect=self.connect, **more)


@pytest.fixture
def internet():
    return Internet()


async def test_an_allowed_origin_is_called(receiver):
    egress = Egress(lambda: (f"{origin(receiver).upper()}/",))
    answer = await egress.send("POST", f"{origin(receiver)}/a?b=c", [("X-Sign", "s")], b"{}", seconds=60)
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers == {"content-type": "text/plain", "retry-after": "7"}
    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/a?b=c", b"{}")
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["x-sign"] == "s"
    assert request.headers["user-agent"].startswith("stellwerk/")
    assert request.headers["connection"] == "close"


async def test_an_allowed_name_is_resolved_by_the_system(receiver):
    egress = Egress(lambda: (f"http://localhost:{receiver.port}",))
    destination = await egress.check(f"http://localhost:{receiver.port}/")
    assert set(destination.addresses) <= {"127.0.0.1", "::1"}
    answer = await egress.send("GET", f"http://localhost:{receiver.port}/", [("User-Agent", "mine")], seconds=60)
    assert answer.status == 200
    assert receiver.requests[0].headers["user-agent"] == "mine"
    assert "content-length" not in receiver.requests[0].headers


async def test_only_exactly_the_allowed_origin_is_called(receiver, other):
    egress = Egress(lambda: (origin(receiver),))
    for url in (
        origin(other),
        f"https://127.0.0.1:{receiver.port}",
        f"http://localhost:{receiver.port}",
        f"http://127.0.0.2:{receiver.port}",
        "http://127.0.0.1",
    ):
        with pytest.raises(UrlRefused):
            await egress.send("GET", url, [], seconds=60)
    assert receiver.connections == other.connections == 0


async def test_a_change_of_the_allowed_origins_holds_at_once(receiver):
    allowed = []
    egress = Egress(lambda: allowed)
    with pytest.raises(UrlRefused):
        await egress.check(origin(receiver))
    allowed.append(origin(receiver))
    assert (await egress.check(origin(receiver))).address == "127.0.0.1"
    allowed[:] = ["no origin"]
    with pytest.raises(UrlRefused):
        await egress.check(origin(receiver))


async def test_the_connection_goes_to_the_address_that_was_judged(internet, receiver):
    internet.names["rebinding.example.com"] = [[PUBLIC], ["127.0.0.1"]]
    internet.ports[PUBLIC] = receiver.port
    egress = internet.egress()
    answer = await egress.send("GET", "http://rebinding.example.com/", [], seconds=60)
    assert answer.body == b"hello"
    assert internet.dialled == [PUBLIC]
    assert internet.lookups == ["rebinding.example.com"]
    assert receiver.requests[0].headers["host"] == "rebinding.example.com"
    with pytest.raises(UrlRefused):
        await egress.send("GET", "http://rebinding.example.com/", [], seconds=60)
    assert internet.dialled == [PUBLIC]


async def test_an_address_is_called_without_a_lookup(internet, receiver):
    internet.ports[PUBLIC_6] = receiver.port
    await internet.egress().send("GET", f"http://[{PUBLIC_6}]:8080/", [], seconds=60)
    assert internet.lookups == []
    assert internet.dialled == [PUBLIC_6]
    assert receiver.requests[0].headers["host"] == f"[{PUBLIC_6}]:8080"


async def test_the_next_judged_address_is_tried_when_one_does_not_answer(internet, receiver):
    internet.names["two.example.com"] = [[PUBLIC_6, PUBLIC_6, PUBLIC]]
    internet.ports[PUBLIC] = receiver.port
    await internet.egress().send("POST", "http://two.example.com/", [], b"once", seconds=60)
    assert internet.dialled == [PUBLIC_6, PUBLIC]
    assert len(receiver.requests) == 1


async def test_at_most_sixteen_addresses_are_tried(internet):
    internet.names["many.example.com"] = [[f"8.8.8.{last}" for last in range(40)]]
    with pytest.raises(UpstreamError) as caught:
        await internet.egress().send("GET", "http://many.example.com/", [], seconds=60)
    assert caught.value.code == "upstream_unreachable"
    assert "8.8" not in caught.value.message
    assert len(internet.dialled) == 16


@pytest.mark.parametrize("failure", [OSError("no such name"), TimeoutError(), UnicodeError("label too long")])
async def test_a_name_without_an_address_is_no_refusal(failure):
    async def resolve(host, port):
        raise failure

    with pytest.raises(UpstreamError) as caught:
        await Egress(lambda: (), resolve=resolve).check("https://nowhere.example.com/")
    assert caught.value.code == "upstream_unreachable"


async def test_neither_is_an_empty_list_of_addresses(internet):
    internet.names["empty.example.com"] = [[]]
    with pytest.raises(UpstreamError):
        await internet.egress().check("https://empty.example.com/")


# --- redirects


def redirect(location, status=302):
    async def script(talk):
        if talk.request.path == "/end":
            await greet(talk)
        else:
            await talk.answer(b"", status=status, headers=[("Location", location)])

    return script


async def test_a_redirect_is_an_answer_when_none_is_to_be_followed(receiver):
    receiver.script = redirect("/end")
    answer = await Egress(lambda: (origin(receiver),)).send("POST", origin(receiver), [], b"{}", seconds=60)
    assert (answer.status, answer.headers["location"]) == (302, "/end")
    assert receiver.connections == 1


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"{}"), (308, "POST", b"{}")],
)
async def test_a_redirect_is_followed_as_its_status_says(receiver, status, method, body):
    receiver.script = redirect("end#part", status)
    headers = [("Authorization", "Bearer s"), ("Content-Type", "application/json")]
    egress = Egress(lambda: (origin(receiver),))
    answer = await egress.send("POST", origin(receiver), headers, b"{}", seconds=60, redirects=1)
    assert answer.body == b"hello"
    last = receiver.requests[-1]
    assert (last.method, last.path, last.body) == (method, "/end", body)
    assert last.headers["authorization"] == "Bearer s"
    assert ("content-type" in last.headers) == (method == "POST")


async def test_no_credential_goes_to_another_origin_nor_comes_back(receiver, other):
    receiver.script = redirect(f"{origin(other)}/x")
    headers = [("Authorization", "Bearer s"), ("Cookie", "s=1"), ("X-Api-Key", "s"), ("Accept", "image/*")]
    egress = Egress(lambda: (origin(receiver), origin(other)))
    other.script = redirect(f"{origin(receiver)}/end", 307)
    answer = await egress.send("GET", origin(receiver), headers, seconds=60, redirects=2)
    assert answer.body == b"hello"
    for request in (other.requests[0], receiver.requests[1]):
        assert request.headers["accept"] == "image/*"
        assert not {"authorization", "cookie", "x-api-key"} & set(request.headers)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "//127.1:{port}/",
        "http://2130706433:{port}/",
        "http://private.example.com:{port}/",
        "file:///etc/passwd",
        "http://user:secret@public.example.com/",
        "http://127.0.0.1:{port}\\@public.example.com/",
        "http://[::1/",
        "http://127.0.0.1:{port}/\tx",
        "gopher://127.0.0.1:{port}/",
        "/" + "a" * 2048,
    ],
)
async def test_every_redirect_is_judged_anew(internet, receiver, other, location):
    internet.names = {"public.example.com": [[PUBLIC]], "private.example.com": [["10.0.0.1"]]}
    internet.ports = {PUBLIC: receiver.port, "127.0.0.1": other.port, "10.0.0.1": other.port}
    receiver.script = redirect(location.replace("{port}", str(other.port)))
    with pytest.raises(UrlRefused, match=r"^The URL is redirected") as caught:
        await internet.egress().send("GET", "http://public.example.com/", [], seconds=60, redirects=5)
    assert internet.dialled == [PUBLIC]
    assert other.connections == 0
    assert "secret" not in caught.value.message


async def test_a_name_is_looked_up_and_judged_at_every_redirect(internet, receiver):
    internet.names["rebinding.example.com"] = [[PUBLIC], [PUBLIC], ["127.0.0.1"]]
    internet.ports = {PUBLIC: receiver.port, "127.0.0.1": receiver.port}
    receiver.script = redirect("/again")
    with pytest.raises(UrlRefused):
        await internet.egress().send("GET", "http://rebinding.example.com/", [], seconds=60, redirects=5)
    assert internet.dialled == [PUBLIC, PUBLIC]


async def test_a_circle_of_redirects_ends(receiver):
    receiver.script = redirect("/again")
    with pytest.raises(UpstreamBroken, match="more than 5 times"):
        await Egress(lambda: (origin(receiver),)).send("GET", origin(receiver), [], seconds=60, redirects=5)
    assert receiver.connections == 6


# --- bounds


async def test_a_body_may_be_as_long_as_said_and_not_a_byte_longer(receiver):
    egress = Egress(lambda: (origin(receiver),))
    answer = await egress.send("GET", origin(receiver), [], seconds=60, most_bytes=5)
    assert answer.body == b"hello"
    with pytest.raises(UpstreamBroken, match="too large"):
        await egress.send("GET", origin(receiver), [], seconds=60, most_bytes=4)


async def test_a_body_without_an_end_is_given_up(receiver):
    left = asyncio.Event()

    async def pour(talk):
        await talk.start_stream()
        with contextlib.suppress(ConnectionError):
            while not talk.left.is_set():
                await talk.chunk(b"x" * 4096)
        left.set()

    receiver.script = pour
    with pytest.raises(UpstreamBroken, match="too large"):
        await Egress(lambda: (origin(receiver),)).send("GET", origin(receiver), [], seconds=60)
    async with asyncio.timeout(30):
        await left.wait()


async def test_a_head_without_an_end_is_given_up(receiver):
    async def pour(talk):
        await talk.send(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(ConnectionError):
            while not talk.left.is_set():
                await talk.send(b"x-more: " + b"x" * 4096 + b"\r\n")

    receiver.script = pour
    with pytest.raises(UpstreamBroken):
        await Egress(lambda: (origin(receiver),)).send("GET", origin(receiver), [], seconds=60)


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nslow"])
async def test_a_slow_receiver_does_not_hold_longer_than_said(receiver, first):
    left = asyncio.Event()

    async def stall(talk):
        await talk.send(first)
        await talk.left.wait()
        left.set()

    receiver.script = stall
    with pytest.raises(UpstreamTimeout):
        await Egress(lambda: (origin(receiver),)).send("GET", origin(receiver), [], seconds=0.5)
    async with asyncio.timeout(30):
        await left.wait()


async def test_a_slow_resolver_does_not_hold_longer_than_said():
    async def resolve(host, port):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(UpstreamTimeout):
        await Egress(lambda: (), resolve=resolve).send("GET", "https://slow.example.com/", [], seconds=0.05)


async def test_neither_does_an_address_that_does_not_answer():
    async def connect(*_):
        raise TimeoutError

    with pytest.raises(UpstreamTimeout, match="reached in time"):
        await Egress(lambda: (), connect=connect).send("GET", f"http://{PUBLIC}/", [], seconds=60)


@pytest.mark.parametrize(
    ("method", "headers", "redirects"),
    [
        ("GET\r\nx: y", [], 0),
        ("HEAD", [], 0),
        ("GET", [("x", "a\r\nhost: b")], 0),
        ("GET", [("x y", "a")], 0),
        ("GET", [("x", "ä")], 0),
        ("GET", [("Host", "127.0.0.1")], 0),
        ("GET", [("Content-Length", "5")], 0),
        ("GET", [("x", "a")] * 65, 0),
        ("GET", [("x", "a" * 20_000)], 0),
        ("GET", [], 6),
        ("GET", [], -1),
    ],
)
async def test_what_would_break_the_request_is_not_sent(receiver, method, headers, redirects):
    egress = Egress(lambda: (origin(receiver),))
    with pytest.raises(ValueError):
        await egress.send(method, origin(receiver), headers, seconds=60, redirects=redirects)
    assert receiver.connections == 0


# --- TLS


@pytest.fixture
def authority():
    return make_authority(("hooks.example.com", "other.example.com"), (), datetime.now(UTC))


@dataclass
class Secure:
    port: int = 0
    wanted: list[str] = field(default_factory=list)
    """The names to which clients wanted to speak."""
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader, writer):
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        location = b"location: http://hooks.example.com/\r\n"
        writer.write(b"HTTP/1.1 302 Found\r\n" + location + b"content-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()


@pytest.fixture
async def secure(authority, tmp_path):
    """A server with a certificate for hooks.example.com."""
    pair = issue(authority, ("hooks.example.com",), (), datetime.now(UTC))
    (tmp_path / "pair.pem").write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pair.pem")
    made = Secure()
    context.sni_callback = lambda _, name, __: made.wanted.append(name)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


@pytest.fixture
def web(internet, secure):
    internet.names = {name: [[PUBLIC]] for name in ("hooks.example.com", "other.example.com")}
    internet.ports = {PUBLIC: secure.port}
    return internet


def trusting(authority):
    return lambda: ssl.create_default_context(cadata=authority.certificate.decode())


async def test_the_certificate_is_verified_against_the_name_and_not_the_address(web, secure, authority):
    egress = web.egress(tls=trusting(authority))
    for _ in range(2):
        assert (await egress.send("GET", "https://hooks.example.com/", [], seconds=60)).body == b"ok"
    assert secure.wanted == ["hooks.example.com"] * 2
    assert b"host: hooks.example.com\r\n" in secure.requests[0]
    for url in ("https://other.example.com/", f"https://{PUBLIC}/"):
        with pytest.raises(UpstreamError, match="TLS certificate"):
            await egress.send("GET", url, [], seconds=60)
    assert len(secure.requests) == 2


async def test_a_certificate_of_an_unknown_authority_is_refused(web, secure):
    with pytest.raises(UpstreamError, match="TLS certificate"):
        await web.egress().send("GET", "https://hooks.example.com/", [], seconds=60)
    assert secure.requests == []


async def test_a_redirect_does_not_leave_tls(web, secure, authority):
    with pytest.raises(UrlRefused, match="from https"):
        await web.egress(tls=trusting(authority)).send("GET", "https://hooks.example.com/", [], seconds=60, redirects=1)
    assert web.dialled == [PUBLIC]
