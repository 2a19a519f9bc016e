"""A gateway that answers as a test says, for the commands that talk to one."""

import json
import socketserver
from http.server import BaseHTTPRequestHandler

SECONDS = 20

MAIN_MODELS = [
    {
        "id": "stellwerk-demo",
        "name": "stellwerk-demo",
        "context_length": 2048,
        "x_stellwerk": {"provider": "local", "local": True, "operations": ["chat"]},
    },
    {
        "id": "mammouth/gpt-4.1",
        "name": "gpt-4.1",
        "context_length": 128000,
        "top_provider": {"max_completion_tokens": 8192},
        "pricing": {"prompt": "0.000002", "completion": "0.000008"},
        "x_stellwerk": {"provider": "mammouth", "local": False, "operations": ["chat"], "shortcode": "gpt41"},
    },
    {
        "id": "house/embed",
        "x_stellwerk": {
            "provider": "house",
            "operations": ["embedding"],
            "pricing": {"currency": "EUR", "prompt": "0.0000001", "completion": "0"},
        },
    },
]
"""As the main listener lists them."""

SIGOREST_MODELS = [
    {
        "id": "gpt-4.1", "shortcode": "gpt41", "endpoint": "https://api.mammouth.ai/v1/chat/completions",
        "apikey": "MAMMOUTH_API_KEY", "max_input_tokens": 128000, "max_output_tokens": 8192, "input_cost": 2.0,
        "output_cost": 8.0, "min_temperature": 0.0, "max_temperature": 2.0, "requires_completion_tokens": False,
    },
    {
        "id": "ollama-qwen3", "shortcode": "ollama-qwen3", "endpoint": "local", "apikey": "", "max_input_tokens": 0,
        "max_output_tokens": 0, "input_cost": 0.0, "output_cost": 0.0, "min_temperature": 0.0, "max_temperature": 2.0,
        "requires_completion_tokens": False,
    },
]  # fmt: skip
"""As the sigoREST listener describes them."""


class ScriptedGateway(socketserver.ThreadingTCPServer):
    """Lists `models`, and streams `answer` and then `after`; `status` refuses everything, `key` who has another."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.calls = []
        self.models = MAIN_MODELS
        self.details = None
        self.answer = ["Hello", " there"]
        self.after = b"data: [DONE]\n\n"
        self.status = 200
        self.key = None

    def become_sigorest(self):
        self.models = [{"id": row["id"], "object": "model", "owned_by": "sigorest"} for row in SIGOREST_MODELS]
        self.details = SIGOREST_MODELS


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if not self.admitted():
            return
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": self.server.models})
        elif self.path == "/api/models" and self.server.details is not None:
            self.reply(200, self.server.details)
        else:
            self.reply(404, {"error": {"message": "Nothing here."}})

    def do_POST(self):
        self.server.calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if not self.admitted():
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for text in self.server.answer:
            chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(self.server.after)

    def admitted(self):
        if self.server.key and self.headers["authorization"] != f"Bearer {self.server.key}":
            self.reply(401, {"error": {"message": "Unknown key."}})
        elif self.server.status != 200:
            self.reply(self.server.status, {"error": {"message": "Refused."}})
        else:
            return True
        return False

    def reply(self, status, body):
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
