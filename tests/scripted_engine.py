"""A program that takes the part of an engine: it answers, is silent or starts others, as it is told."""

import os
import sys
from pathlib import Path
from typing import Any

from stellwerk.core.ports import EngineAddress
from stellwerk.engines.probe import completion_probe
from stellwerk.engines.process import Launch

PROGRAM = """
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, key, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
never = threading.Event()

def told(word):
    return os.path.exists(os.path.join(folder, word))

class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = self.headers.get("Authorization") == "Bearer " + key
        if self.path == "/health":
            with open(os.path.join(folder, "looks"), "ab") as looks:
                looks.write(b".")
            self.answer(503 if told("loading") else 200, b"{}")
        else:
            self.answer(200 if known else 401, b"[]")

    def do_POST(self):
        with open(os.path.join(folder, "asked"), "ab") as asked:
            asked.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\\n")
        if told("no-tokens"):
            never.wait()
        self.answer(200, b'{"choices": []}')

    def log_message(self, *_):
        pass

TROUBLE
print("engine serves with", key, "from", folder, file=sys.stderr, flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class ScriptedEngine:
    """Launches of one such program. A word from `tell` holds for running and later ones, until it is taken back."""

    def __init__(self, folder: Path, port: int, trouble: str = "", **launch: Any) -> None:
        """`trouble` is Python that the program runs before it listens; `launch` are fields of its Launch."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = port
        self.starts = 0
        self._trouble = trouble
        self._launch: dict[str, Any] = {
            "environment": {"PATH": os.environ["PATH"]},
            "token_probe": completion_probe("model"),
            **launch,
        }

    def tell(self, word: str) -> None:
        (self.folder / word).touch()

    def take_back(self, word: str) -> None:
        (self.folder / word).unlink()

    @property
    def asked(self) -> list[str]:
        """The bodies of all POST requests so far."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def looks(self) -> int:
        """How often its health was asked for."""
        path = self.folder / "looks"
        return path.stat().st_size if path.exists() else 0

    async def launch(self) -> Launch:
        self.starts += 1
        key = f"key-{self.starts}"
        code = PROGRAM.replace("TROUBLE", self._trouble)
        return Launch(
            command=(sys.executable, "-IS", "-c", code, str(self.port), key, str(self.folder)),
            orders=b"",
            announces=False,
            address=EngineAddress(host="127.0.0.1", port=self.port, key=key),
            hidden=(key, str(self.folder)),
            engine="scripted",
            **self._launch,
        )
