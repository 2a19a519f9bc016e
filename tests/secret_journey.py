"""A gateway that is told secrets, an upstream that repeats them, and whatever is seen of both from outside."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.canaries import Secrets
from tests.customers import ask
from tests.gateway_process import ADMIN_KEY, COMMAND, DEADLINE, GatewayProcess
from tests.raw_http import Answer
from tests.real_engines import free_ports
from tests.scripted_upstream import ScriptedUpstream, Talk, chunk, completion, usage_chunk

WITNESS = "witness"
"""The provider's name: it does stand in every place, so a place where it is missing was not really searched."""

ECHOES = ("echo-400", "echo-401", "echo-422", "echo-500", "echo-html", "echo-stream")
SHOWS_ANSWERS = (
    "answer of model",
    "answer of GET /api/requests/{request_id}",
    "answer of GET /v1/files/{file_id}/content",
    "answer of GET /v1/responses/{response_id}",
    "answer of POST /v1/responses",
)
"""Places that show what a model has written to whom it was written for."""
ROUTES_OF_OPENAI = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
}
SHOWN_ONCE = {
    "POST /admin/api/users/{user_id}/apikey": ("key",),
    "POST /user/api/keys": ("key",),
    "POST /admin/api/signups/{signup_id}/approve": ("api_key",),
    "POST /admin/api/webhooks": ("secret",),
    "POST /admin/api/webhooks/{webhook_id}/secret": ("secret",),
    "POST /auth/token": ("access_token", "refresh_token"),
    "POST /auth/refresh": ("access_token", "refresh_token"),
}
"""Answers that show something new, and where; it stands there this one time."""


class Shown:
    """What was seen from outside: answers and outputs by where they came from, without what is shown once."""

    def __init__(self, secrets: Secrets) -> None:
        self.places: dict[str, bytes] = {}
        self._secrets = secrets

    def keep(self, place: str, content: bytes) -> None:
        self.places[place] = self.places.get(place, b"") + b"\n" + content

    def answer(self, place: str, answer: Answer) -> Answer:
        body = answer.body
        for name in SHOWN_ONCE.get(place, ()) if answer.status == 200 else ():
            text = self._secrets.add(f"{name} of {place}", answer.json[name])
            body = body.replace(text.encode(), b"")
        heads = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        self.keep(f"{'answer' if answer.status < 400 else 'error'} of {place}", heads.encode() + body)
        return answer


async def behave(talk: Talk, secrets: Secrets) -> None:
    """An upstream that repeats, when it fails, everything that it was sent in the head."""
    request = talk.request
    model = request.json["model"]
    key = request.headers["authorization"].removeprefix("Bearer ")
    words = (
        f"Bad key {key} (Authorization: Bearer {key}; team {request.headers['x-team']}; url http://u:{key}@h/?k={key})"
    )
    error = {"error": {"message": words, "type": key, "param": key, "code": key}, "detail": words, key: key}
    if model == "echo-html":
        await talk.answer(f"<html>{words}</html>".encode(), status=502, content_type="text/html")
    elif model == "silent":
        await talk.left.wait()
    elif model == "echo-stream":
        await talk.start_stream()
        await talk.event(chunk("a"))
        await talk.event(error)
        await talk.finish_stream(done=False)
    elif model.startswith("echo-"):
        await talk.answer(error, status=int(model[5:]), headers=[("x-key", key), ("www-authenticate", f"Bearer {key}")])
    elif request.path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        await talk.answer(
            {"object": "list", "model": "up", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        )
    elif request.json.get("stream"):
        await talk.start_stream()
        text = secrets.add("streamed answer of the upstream", "Kanari stream 1f0e77b2c", *SHOWS_ANSWERS)
        await talk.event(chunk(text, finish="stop"))
        await talk.event(usage_chunk())
        await talk.finish_stream()
    else:
        text = secrets.add("answer of the upstream", "Kanari answer 5cdd10a7", *SHOWS_ANSWERS)
        await talk.answer(completion(text), headers=[("x-key", key), ("set-cookie", f"key={key}")])


class Journey:
    """Does everything that can be done with a gateway, each thing right and wrong."""

    def __init__(self, gateway: GatewayProcess, secrets: Secrets, shown: Shown) -> None:
        self.gateway = gateway
        self.secrets = secrets
        self.shown = shown
        self.key = ADMIN_KEY
        self.done: set[tuple[str, str]] = set()
        """Endpoints that have answered as they should."""
        self.email = self.password = self.user_key = ""
        self.user_id = 0
        self.operations: list[tuple[str, str, dict[str, Any]]] = []

    # --- HTTP

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = "", **headers: str) -> Answer:
        fields = {name.replace("_", "-").title(): value for name, value in headers.items()}
        shown_key = self.key if key == "" else key
        return await ask(self.gateway.port, method, path, body, key=shown_key, headers=fields)

    async def good(self, method: str, template: str, body: Any = None, *, query: str = "", **more: Any) -> Any:
        """Once as it should be; names in the template are filled from `more`."""
        names = [name for name in more if "{" + name + "}" in template]
        path = template.format(**{name: more.pop(name) for name in names})
        answer = self.shown.answer(f"{method} {template}", await self.ask(method, path + query, body, **more))
        assert answer.status == 200, (method, path, answer.body)
        self.done.add((method, template))
        return answer.json

    async def bad(self, place: str, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        answer = self.shown.answer(place, await self.ask(method, path, body, **more))
        assert answer.status >= 400, (method, path, answer.body)
        return answer

    # --- the command line

    async def command(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            env=self.gateway.environment,
            cwd=self.gateway.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE):
            output, errors = await process.communicate(stdin.encode())
        assert (process.returncode != 0) == fails, errors
        name = f"command {' '.join(arguments[:2])}"
        self.shown.keep(f"{name} errors", errors)
        return self._without_new_key(name, output.decode())

    def _without_new_key(self, name: str, output: str) -> str:
        """Keeps what was printed, but for a key or a signing secret that is shown this once."""
        kept, key = output, None
        if output.startswith(("sk-sw-", "whsec_")):
            key, _, kept = output.partition("\n")
        elif output.startswith("{"):
            found = json.loads(output)
            key = found.pop("key", None) or found.pop("secret", None)
            kept = json.dumps(found, ensure_ascii=False)
        if key is not None:
            self.secrets.add(f"key of {name}", key)
        self.shown.keep(f"{name} output", kept.encode())
        return output if key is None else key


# --- the gateway


def config_of(upstream: ScriptedUpstream, models: Path, key_of_gone: str) -> dict[str, Any]:
    engines = {"enabled": True, "demo": False, "models_folder": str(models), "slots": 1, "context": 512, "threads": 1}
    return {
        "log": {"level": "debug"},
        "engines": {**engines, "first_port": free_ports(1)},
        "upstream": {"attempts": 1, "connect_seconds": 1},
        "money": {"wait_seconds": 1},
        "jobs": {"attempts": 1},
        "egress": {"allowed_origins": [f"http://127.0.0.1:{free_ports(1)}"]},
        "providers": {
            WITNESS: {
                "base_url": upstream.url,
                "models": ["up", "embed", "silent", *ECHOES],
                "api_key": "${VENDOR_KEY}",
                "headers": {"X-Team": "${TEAM_KEY}"},
            },
            "gone": {
                "base_url": f"http://127.0.0.1:{free_ports(1)}/v1",
                "models": ["gone"],
                "api_key": key_of_gone,
            },
        },
    }


@contextmanager
def piped(folder: Path) -> Iterator[str]:
    """What a shell does to send a log through a pipe into the file where it is looked for.

    A disk that is full for the gateway must not keep its log from us.
    """
    fifo = folder / "log"
    os.mkfifo(fifo)
    with (folder / "stderr").open("ab") as file:
        reader = subprocess.Popen(["cat", str(fifo)], stdout=file)
    try:
        yield f"2>{fifo}"
    finally:
        # It ends with the last who writes.
        reader.wait(DEADLINE)
