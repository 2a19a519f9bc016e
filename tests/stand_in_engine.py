"""A program that can stand in for any engine: it listens where its arguments say and tells how it was started."""

import os
import sys
from pathlib import Path

_PROGRAM = """\
#!{python} -IS
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY, HEALTH = {key!r}, {health!r}

def option(name):
    return sys.argv[sys.argv.index(name) + 1]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        key = os.environ.get(KEY)
        allowed = self.path == HEALTH or key is None or self.headers.get("Authorization") == "Bearer " + key
        known = self.path in (HEALTH, "/v1/models", "/start")
        body = json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}).encode()
        self.send_response((200 if known else 404) if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
"""


def write_stand_in(path: Path, *, key: str = "", health: str = "/health") -> Path:
    """`key` names the variable of its environment that holds the key; none is checked when there is no such one."""
    path.write_text(_PROGRAM.format(python=os.path.realpath(sys.executable), key=key, health=health))
    path.chmod(0o755)
    return path
