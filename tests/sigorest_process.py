"""A gateway with the listeners for sigoREST's clients, what they ask it, and the vendors behind it."""

import errno
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gateway_process import ADMIN_KEY, Finished, GatewayProcess, run_command, wait_until
from tests.raw_http import get
from tests.scripted_upstream import ScriptedUpstream, Talk, completion

HTTP, HTTPS = "sigorest http", "sigorest https"
ORIGIN, TLS_ORIGIN = "http://localhost:9080", "https://localhost:9443"

CHAT_LINE = r"""curl -s http://localhost:9080/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{
    "model": "claude-h",
    "messages": [{"role": "user", "content": "Hallo"}],
    "temperature": 0.7,
    "max_tokens": 1024,
    "session_id": "mein-projekt",
    "timeout": 120,
    "retries": 3
  }'"""
MODELS_LINE = "curl -s http://localhost:9080/v1/models"
MODEL_FACTS_LINE = "curl -s http://localhost:9080/api/models"
HEALTH_LINE = "curl -s http://localhost:9080/api/health"
MEMORY_LINE = "curl -s http://localhost:9080/api/memory"
NEW_MEMORY_LINE = r"""curl -s -X PUT http://localhost:9080/api/memory \
  -H "Content-Type: application/json" \
  -d '{"content":"Neuer Kontext","cache":true}'"""
OLLAMA_MODELS_LINE = r"""curl -s http://localhost:9080/v1/models | python3 -c \
  "import sys,json; [print(m['id']) for m in json.load(sys.stdin)['data'] if m['id'].startswith('ollama-')]" """
OLLAMA_CHAT_LINE = r"""curl -s http://localhost:9080/v1/chat/completions \
  -H "Content-Type: application/json" \
  -d '{"model":"ollama-gemma3-4b","messages":[{"role":"user","content":"Hallo"}]}'"""
"""What people have in their scripts and notes: to be run to the letter, by a shell."""


def over_tls(line: str, authority: Path) -> str:
    """The same line for the other listener."""
    assert ORIGIN in line
    return line.replace(ORIGIN, TLS_ORIGIN).replace("curl -s", f"curl -s --cacert '{authority}'")


async def run_line(line: str, folder: Path, home: Path) -> Finished:
    """Runs a line as a person in `folder` does; `home` may hold a `.curlrc`."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "FOLDER": str(folder)}
    return await run_command("-c", f'cd "$FOLDER"\n{line}', environment=environment, program=("sh",))


def lead_curl(home: Path, ports: Mapping[str, int]) -> None:
    """Makes the documented ports lead to those of a test, so that its lines stay as they are."""
    lines = [f'connect-to = "localhost:{documented}:localhost:{port}"' for documented, port in ports.items()]
    home.mkdir(exist_ok=True)
    (home / ".curlrc").write_text("\n".join(lines) + "\n")


async def listeners_of(gateway: GatewayProcess) -> dict[str, dict[str, Any]]:
    """What the main listener says of all of them, by name."""
    details = (await get(gateway.port, ADMIN_KEY, "/health/details")).json
    return {each["name"]: each for each in details["listeners"]}


async def port_of(gateway: GatewayProcess, name: str) -> int:
    return int((await listeners_of(gateway))[name]["addresses"][0].rpartition(":")[2])


def printed_authority(gateway: GatewayProcess) -> Path:
    """The file that clients have to trust, read from what the gateway prints when it is ready."""
    found = re.search(r"(/\S+\.crt)\s", gateway.output)
    assert found is not None, gateway.output
    return Path(found[1])


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


# --- vendors


@dataclass
class ScriptedOllama:
    """An Ollama with models that can be pulled and removed; what it is asked to answer goes to `upstream.requests`."""

    tags: list[str] = field(default_factory=list)
    upstream: ScriptedUpstream = field(default_factory=ScriptedUpstream)

    def __post_init__(self) -> None:
        self.upstream.script = self._answer

    @property
    def url(self) -> str:
        return self.upstream.url.removesuffix("/v1")

    @property
    def asked(self) -> list[str]:
        """The models of the chats, as they came."""
        return [each.json["model"] for each in self.upstream.requests if each.path == "/v1/chat/completions"]

    async def _answer(self, talk: Talk) -> None:
        path = talk.request.path
        if path == "/api/tags":
            await talk.answer({"models": [{"name": tag, "digest": f"digest of {tag}"} for tag in self.tags]})
        elif path == "/api/show":
            await talk.answer({"capabilities": ["completion"], "model_info": {}})
        elif talk.request.json["model"] in self.tags:
            await talk.answer(completion("Hallo aus Ollama", model=talk.request.json["model"]))
        else:
            await talk.answer({"error": {"message": "model not found"}}, status=404)


def asked_of(server: ScriptedUpstream) -> list[dict[str, Any]]:
    """The chats that it got."""
    return [each.json for each in server.requests if each.path.endswith("/chat/completions")]


def history_of(file: Path) -> list[tuple[str, str]]:
    """The messages of a session's file."""
    read = json.loads(file.read_text())
    assert read.keys() == {"history"}
    return [(message["role"], message["content"]) for message in read["history"]]


async def models_at(port: int) -> list[str]:
    return [model["id"] for model in (await get(port, None, "/v1/models")).json["data"]]


async def wait_for_models(port: int, *names: str) -> None:
    """Vendors are asked for their models while the listener answers already."""

    async def all_there() -> bool:
        return set(names) <= set(await models_at(port))

    await wait_until(all_there)


def is_free(port: int) -> bool:
    """Whether nobody has the port, on any address."""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True
