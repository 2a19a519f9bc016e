import json
import os
import pty
import signal
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from typer.testing import CliRunner

from stellwerk.cli.chat import app, default_model, find_key
from stellwerk.cli.gateway_client import GatewayTrouble, OfferedModel
from stellwerk.cli.language import TEXTS

MODELS = [
    {"id": "stellwerk-demo", "x_stellwerk": {"local": True, "operations": ["chat"]}},
    {"id": "openai/gpt-5", "x_stellwerk": {"local": False, "operations": ["chat"]}},
]
DEADLINE = 60


class Gateway(socketserver.ThreadingTCPServer):
    """Speaks the two routes that a chat needs; what it answers, a test may change."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.calls = []
        self.keys = []
        self.answer = ["Hello", " there"]
        self.after = b"data: [DONE]\n\n"
        self.status = 200
        self.endless = False
        self.client_left = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.keys.append(self.headers["authorization"])
        self.reply(json.dumps({"object": "list", "data": MODELS}).encode(), "application/json")

    def do_POST(self):
        self.server.keys.append(self.headers["authorization"])
        self.server.calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if self.server.status != 200:
            self.reply(b'{"error":{"message":"No such model."}}', "application/json")
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for text in self.server.answer:
            chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if self.server.endless:
            # Returns as soon as the client has closed its side.
            self.connection.settimeout(DEADLINE)
            if self.connection.recv(1) == b"":
                self.server.client_left.set()
        else:
            self.wfile.write(self.server.after)

    def reply(self, body, kind):
        self.send_response(self.server.status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def gateway():
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "STELLWERK_API_KEY", "STELLWERK_ADMIN_KEY", "STELLWERK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STELLWERK_DATA", str(tmp_path))
    return monkeypatch


def run(gateway, *arguments, key="sk-1", **options):
    keyed = ["--key", key] if key else []
    return CliRunner().invoke(app, ["--url", gateway.url, *keyed, *arguments], **options)


def test_one_question_gets_one_answer(gateway):
    result = run(gateway, "--once", "Hi")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello there\n", "")
    (call,) = gateway.calls
    assert call["model"] == "stellwerk-demo"
    assert call["messages"] == [{"role": "user", "content": "Hi"}]
    assert set(gateway.keys) == {"Bearer sk-1"}


def test_model_and_instructions_can_be_chosen(gateway):
    run(gateway, "openai/gpt-5", "--system", "Be brief.", "--once", "Hi")
    (call,) = gateway.calls
    assert call["model"] == "openai/gpt-5"
    assert call["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_conversation_remembers_what_was_said(gateway):
    result = run(gateway, input="One\nTwo\n\n/clear\nThree\n/exit\nFour\n")
    assert result.exit_code == 0
    assert [[message["content"] for message in call["messages"]] for call in gateway.calls] == [
        ["One"],
        ["One", "Hello there", "Two"],
        ["Three"],
    ]


def test_commands_show_and_change_the_model(gateway):
    result = run(gateway, input="/models\n/model openai/gpt-5\n/model\n/what\nHi\n")
    assert "* stellwerk-demo\n  openai/gpt-5\n" in result.stdout
    assert result.stdout.count("Model: openai/gpt-5\n") == 2
    assert "/clear" in result.stdout
    assert gateway.calls[0]["model"] == "openai/gpt-5"


def test_an_error_event_is_told_and_ends_with_1(gateway):
    gateway.after = b'data: {"error":{"message":"The model died."}}\n\n'
    result = run(gateway, "--once", "Hi")
    assert (result.exit_code, result.stdout) == (1, "Hello there\n")
    assert result.stderr == "The answer failed: The model died.\n"


def test_a_stream_that_is_cut_short_is_told(gateway):
    gateway.after = b""
    result = run(gateway, "--once", "Hi")
    assert (result.exit_code, result.stderr) == (1, "The answer broke off before its end.\n")


def test_a_refusal_is_told(gateway):
    gateway.status = 404
    result = run(gateway, "nothing", "--once", "Hi")
    assert (result.exit_code, result.stderr) == (1, "The gateway refused (404): No such model.\n")


def test_without_a_gateway_it_says_how_to_start_one():
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:1", "--key", "k", "--once", "Hi"])
    assert result.exit_code == 1
    assert "stellwerk serve" in result.stderr


def test_without_a_key_it_says_how_to_get_one(gateway):
    result = run(gateway, "--once", "Hi", key=None)
    assert result.exit_code == 1
    assert "stellwerk keys create" in result.stderr
    assert gateway.calls == []


def test_messages_are_german_where_the_machine_is(gateway, environment):
    environment.setenv("LANG", "de_DE.UTF-8")
    gateway.after = b""
    assert "abgerissen" in run(gateway, "--once", "Hi").stderr


def test_what_a_model_writes_does_not_steer_the_terminal(gateway):
    gateway.answer = ["a\x1b[2Jb\x07\x9b", "\tc\nd"]
    assert run(gateway, "--once", "Hi").stdout == "a[2Jb\tc\nd\n"


def test_every_text_says_the_same_in_both_languages():
    for key, texts in TEXTS.items():
        if key.startswith("chat."):
            assert texts.keys() == {"en", "de"}
            assert {part.split("}")[0] for part in texts["en"].split("{")[1:]} == {
                part.split("}")[0] for part in texts["de"].split("{")[1:]
            }


@pytest.mark.parametrize(
    ("given", "variables", "key"),
    [
        ("a", {"STELLWERK_API_KEY": "b"}, "a"),
        (None, {"STELLWERK_API_KEY": "b", "STELLWERK_ADMIN_KEY": "c"}, "b"),
        (None, {"STELLWERK_ADMIN_KEY": "c"}, "c"),
        (None, {}, "from-file"),
    ],
)
def test_the_key_comes_from_the_nearest_place(tmp_path, given, variables, key):
    (tmp_path / "admin.key").write_text("from-file\n")
    assert find_key(given, variables, tmp_path, look_into_folder=True).reveal() == key


def test_the_admin_key_of_this_machine_goes_to_no_other(tmp_path):
    (tmp_path / "admin.key").write_text("from-file\n")
    with pytest.raises(GatewayTrouble):
        find_key(None, {}, tmp_path, look_into_folder=False)


@pytest.mark.parametrize(
    ("offered", "model"),
    [
        ([("a", False, True), ("stellwerk-demo", True, True)], "stellwerk-demo"),
        ([("stellwerk-demo", True, True), ("b", True, True)], "b"),
        ([("embed", True, False), ("a", False, True)], "a"),
    ],
)
def test_a_local_model_is_the_default(offered, model):
    assert default_model([OfferedModel(*facts) for facts in offered]) == model


def test_without_any_model_there_is_no_default():
    with pytest.raises(GatewayTrouble):
        default_model([OfferedModel("embed", local=True, chats=False)])


# A controlling terminal is what turns the character of Ctrl+C into the signal.
IN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from stellwerk.cli.main import main
main()
"""


class Terminal:
    """The command in a real terminal."""

    def __init__(self, *arguments):
        self.screen = b""
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, "chat", *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)

    def type(self, keys):
        os.write(self.main, keys)

    def until(self, expected):
        while expected not in self.screen:
            try:
                piece = os.read(self.main, 65536)
            except OSError:
                piece = b""
            assert piece, self.screen
            self.screen += piece
        self.screen = self.screen.partition(expected)[2]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminal(gateway):
    opened = Terminal("--url", gateway.url, "--key", "sk-1")
    watchdog = threading.Timer(DEADLINE, opened.process.kill)
    watchdog.start()
    yield opened
    watchdog.cancel()
    opened.close()


def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves(gateway, terminal):
    gateway.endless = True
    terminal.until(b"> ")
    terminal.type(b"Hi\r")
    terminal.until(b"Hello there")
    terminal.type(b"\x03")
    terminal.until(b"Stopped.")
    assert gateway.client_left.wait(DEADLINE)
    terminal.until(b"> ")
    gateway.endless = False
    terminal.type(b"Again\r")
    terminal.until(b"Hello there")
    terminal.until(b"> ")
    terminal.type(b"\x04")
    assert terminal.process.wait(DEADLINE) == 0
    assert [message["content"] for message in gateway.calls[1]["messages"]] == ["Hi", "Hello there", "Again"]


def test_ctrl_c_ends_a_single_question(gateway):
    gateway.endless = True
    command = [sys.executable, "-m", "stellwerk", "chat", "--url", gateway.url, "--key", "k", "--once", "Hi"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(11) == b"Hello there"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stderr.read() == b""
    assert gateway.client_left.wait(DEADLINE)
