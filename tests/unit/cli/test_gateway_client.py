import contextlib
import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.cli.gateway_client import EventReader, GatewayClient, GatewayTrouble, OfferedModel
from stellwerk.core.secrets import Secret

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def delta(text):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


def chunked(*pieces, end=True):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


class ScriptedServer:
    """Answers every connection with the bytes of `script`, piece by piece, and closes it."""

    def __init__(self):
        self.script = []
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(60)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(60)
                self.requests.append(self.read(connection))
                # A client that has all it wants may leave before the last piece.
                with contextlib.suppress(ConnectionError):
                    for piece in self.script:
                        connection.sendall(piece)

    def read(self, connection):
        received = b""
        while b"\r\n\r\n" not in received and (piece := connection.recv(65536)):
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)
        while len(body) < length:
            body += connection.recv(65536)
        return head.decode(), body

    def close(self):
        if self.thread.is_alive():
            # Wakes the thread that waits in accept().
            self.listener.shutdown(socket.SHUT_RDWR)
            self.thread.join(timeout=5)
            self.listener.close()


@pytest.fixture
def server():
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


def ask(server, model="m"):
    return list(GatewayClient(server.url, Secret("sk-test")).answer(model, [{"role": "user", "content": "hi"}]))


def trouble(server):
    with pytest.raises(GatewayTrouble) as caught:
        ask(server)
    return caught.value


def test_an_answer_arrives_in_its_pieces(server):
    server.script = [OK, chunked(delta("Grüß"), delta(" dich"), DONE)]
    assert ask(server) == ["Grüß", " dich"]
    head, body = server.requests[0]
    assert head.startswith("POST /v1/chat/completions HTTP/1.1")
    assert "authorization: bearer sk-test" in head.lower()
    assert json.loads(body) == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def test_an_answer_may_be_cut_anywhere(server):
    server.script = [bytes([byte]) for byte in OK + chunked(delta("Grüß"), b": ping\n\n", delta(" dich"), DONE)]
    assert ask(server) == ["Grüß", " dich"]


def test_an_answer_is_read_to_the_end_of_its_connection(server):
    """A gateway takes who leaves right after `[DONE]` for somebody who did not want the answer."""
    order, left = [], threading.Event()

    def script():
        yield OK + chunked(delta("Hi"), DONE, end=False)
        left.wait(0.1)
        order.append("ended")
        yield b"0\r\n\r\n"

    server.script = script()
    assert ask(server) == ["Hi"]
    order.append("left")
    left.set()
    assert order == ["ended", "left"]


def test_chunks_without_text_are_passed_over(server):
    events = [
        b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":null}}]}\n\n',
        b'data: {"choices":[],"usage":{}}\n\n',
        delta("x"),
    ]
    server.script = [OK, chunked(*events, DONE)]
    assert ask(server) == ["x"]


def test_an_error_in_the_middle_is_told_after_what_came_before(server):
    server.script = [OK, chunked(delta("Hal"), b'data: {"error":{"message":"The model died."}}\n\n')]
    answer = GatewayClient(server.url).answer("m", [])
    assert next(answer) == "Hal"
    with pytest.raises(GatewayTrouble) as caught:
        next(answer)
    assert (caught.value.key, caught.value.values) == ("chat.failed", {"message": "The model died."})


@pytest.mark.parametrize(
    "script",
    [
        [OK, chunked(delta("Hal"))],
        [OK, chunked(delta("Hal"), end=False)],
        [OK, chunked(delta("Hal"), end=False), b"ff\r\nda"],
        [OK, b"not a chunk\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\n", delta("Hal")],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", delta("Hal")],
    ],
)
def test_an_answer_that_is_cut_short_is_not_taken_for_a_whole_one(server, script):
    server.script = script
    assert trouble(server).key == "chat.broken"


@pytest.mark.parametrize("event", [b"data: {\n\n", b"data: []\n\n", b"data: null\n\n"])
def test_nonsense_is_not_understood(server, event):
    server.script = [OK, chunked(event)]
    assert trouble(server).key == "chat.not_understood"


def test_an_endless_event_is_given_up(server):
    server.script = [OK, chunked(b"data: " + b"x" * (5 << 20))]
    assert trouble(server).key == "chat.not_understood"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"Unknown key.","code":"invalid_api_key"}}', "Unknown key."),
        (b'{"error":"plain"}', "plain"),
        (b"<html>", "Unauthorized"),
    ],
)
def test_a_refusal_is_told_in_the_gateways_words(server, body, message):
    server.script = [b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\n\r\n" % len(body), body]
    refused = trouble(server)
    assert (refused.key, refused.values) == ("chat.refused", {"status": 401, "message": message})


def test_no_gateway_says_so(server):
    server.close()
    assert trouble(server).key == "chat.not_running"


def test_something_else_on_the_port_says_so(server):
    server.script = [b"SSH-2.0-OpenSSH\r\n"]
    assert trouble(server).key == "chat.no_gateway"


def test_silence_ends_in_a_message(server):
    server.script = [OK]
    held = threading.Event()
    original = server.read
    server.read = lambda connection: (original(connection), connection.sendall(OK), held.wait(30))[0]
    try:
        with pytest.raises(GatewayTrouble) as caught:
            list(GatewayClient(server.url, silence_seconds=0.05).answer("m", []))
    finally:
        held.set()
    assert caught.value.key == "chat.silent"


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://host:port", "http://[::1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(GatewayTrouble) as caught:
        GatewayClient(url)
    assert caught.value.key == "chat.bad_url"


@pytest.mark.parametrize("url", ["http://foo bar", "foo bar", "http://" + "ä" * 70])
def test_a_host_that_cannot_be_one_is_refused_when_it_is_asked(url):
    with pytest.raises(GatewayTrouble) as caught:
        GatewayClient(url).get("/v1/models")
    assert caught.value.key == "chat.bad_url"


def test_a_key_with_line_breaks_never_reaches_the_wire(server):
    with pytest.raises(GatewayTrouble) as caught:
        list(GatewayClient(server.url, Secret("a\r\nx-evil: 1")).answer("m", []))
    assert caught.value.key == "chat.bad_url"
    assert not any("evil" in head for head, _ in server.requests)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_models_are_listed_with_what_matters_for_a_chat(server, suffix):
    listed = {
        "data": [
            {"id": "demo", "x_stellwerk": {"local": True, "operations": ["chat", "completion"]}},
            {"id": "embed", "x_stellwerk": {"local": False, "operations": ["embedding"]}},
            {"id": "foreign"},
        ]
    }
    payload = json.dumps(listed).encode()
    server.script = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(payload), payload]
    assert GatewayClient(server.url + suffix).models() == [
        OfferedModel("demo", local=True, chats=True),
        OfferedModel("embed", local=False, chats=False),
        OfferedModel("foreign", local=False, chats=True),
    ]
    assert server.requests[0][0].startswith("GET /v1/models HTTP/1.1")


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"data":[1]}', b'{"data":[{}]}', b'{"data":null}'])
def test_a_list_that_is_none_is_not_understood(server, payload):
    server.script = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(payload), payload]
    with pytest.raises(GatewayTrouble) as caught:
        GatewayClient(server.url).models()
    assert caught.value.key == "chat.not_understood"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:4000", True),
        ("localhost:4000", True),
        ("http://[::1]", True),
        ("https://gateway.example", False),
    ],
)
def test_a_client_knows_whether_its_gateway_is_on_this_machine(url, here):
    assert GatewayClient(url).is_on_this_machine is here


@given(
    st.lists(
        st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=8
    ),
    st.data(),
)
def test_events_are_the_same_however_the_bytes_are_cut(texts, data):
    stream = b"".join(f": ping\r\nevent: message\r\ndata: {text}\r\n\r\n".encode() for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = EventReader()
    events = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += reader.feed(stream[start:end])
    assert events == texts


def test_an_event_of_several_lines_is_one():
    assert EventReader().feed(b"data: a\ndata:b\n\ndata: c\n") == ["a\nb"]
