"""A gateway on a socket and a thread of its own that answers each request with the next bytes of a script."""

import contextlib
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any

SECONDS = 10


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(body=None, status=200, *, kind="application/json", raw=None, **headers) -> bytes:
    """A whole answer; underscores in names of headers are hyphens."""
    data = raw if raw is not None else json.dumps(body).encode()
    lines = {
        "content-type": kind,
        "content-length": str(len(data)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Because\r\n{head}\r\n".encode() + data


def refused(status, message, code=None, **headers) -> bytes:
    return answer({"error": {"message": message, "code": code}}, status, **headers)


def stream(*events, end=True) -> list[bytes]:
    """Server-sent events in chunks; each is its data, or a pair of name and data."""
    pieces = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"]
    for event in events:
        name, data = event if isinstance(event, tuple) else (None, event)
        said = data if isinstance(data, str) else json.dumps(data)
        text = (f"event: {name}\n" if name else "") + f"data: {said}\n\n"
        pieces.append(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))
    return [*pieces, b"0\r\n\r\n"] if end else pieces


def delta(text):
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


class ScriptedAnswers:
    """`script` holds the answers that are still to be given: bytes, lists of pieces, None to hang up at once, or a
    function of what was asked that gives one of them. After the last one it hangs up."""

    def __init__(self, tls=None):
        """`tls` is a context of a server."""
        self._tls = tls
        self.script = []
        self.seen = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        # Wakes the thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=SECONDS)
        self._listener.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(SECONDS)
            # A client may leave before the end of an answer, or not like the certificate.
            with connection, contextlib.suppress(ConnectionError, ssl.SSLError):
                if self._tls is None:
                    self._answer(connection)
                else:
                    with self._tls.wrap_socket(connection, server_side=True) as secured:
                        self._answer(secured)

    def _answer(self, connection):
        with connection.makefile("rb") as lines:
            first = lines.readline().decode()
            if not first:
                return
            method, path, _ = first.split(" ")
            headers = {}
            while line := lines.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = lines.read(int(headers.get("content-length", 0)))
        seen = Seen(method, path, headers, body)
        self.seen.append(seen)
        step = self.script.pop(0) if self.script else None
        if callable(step):
            step = step(seen)
        for piece in step if isinstance(step, list) else [step or b""]:
            connection.sendall(piece)


@contextlib.contextmanager
def scripted_answers(tls=None):
    server = ScriptedAnswers(tls)
    try:
        yield server
    finally:
        server.close()
