"""The three kinds of model behind Ollama's API: a vendor with OpenAI's API, an Ollama, and files in our own slots."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.gateway_process import GatewayProcess, running_gateway
from tests.scripted_upstream import Received, ScriptedUpstream, Talk, chat, chunk, completion
from tests.small_hub import SmallHub
from tests.tiny_gguf import (
    CALL_TEMPLATE,
    TOOL_TEMPLATE,
    write_parrot,
    write_tiny_chat_model,
    write_tiny_embedding_model,
)
from tests.upstream_scripts import answering, streaming

VENDOR, OLLAMA, SLOT = "up/up", "small:1b", "stellwerk-demo"
MODELS = (VENDOR, OLLAMA, SLOT)
SLOT_TOOLS = "tools"
"""A model in a slot whose template knows tools; the demo's does not."""
SLOT_CALLS = "calls"
"""One that calls the tool that it is offered, and never does anything else."""
FROM_HUB = "tiny-Q4_0"
"""What the hub has under this name."""
HUB_NAME = "hf.co/someone/tiny-GGUF:Q4_0"
EMBEDDING = {VENDOR: "up/text-embedding-up", OLLAMA: OLLAMA, SLOT: "embedding"}
"""What makes vectors in the same place."""
COUNTS = {"prompt_eval_count": 5, "eval_count": 2, "eval_duration": 9}
PET = {"name": "Rex", "age": 3}
PET_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "enum": ["Rex"]}, "age": {"type": "integer", "enum": [3]}},
    "required": ["name", "age"],
}
"""Nothing but PET has this form: a model that only makes noise says it too."""
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
ARGUMENTS = {"a": 1, "b": 2}
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55")


PULLED = "new:1b"
"""What the Ollama's library has and the Ollama has not."""
BROKEN = "broken:1b"
"""What the library has, until its disk fails."""


class PlayedOllama:
    """Answers as an Ollama does: calls a tool that is offered, speaks JSON when asked to, and has a disk."""

    def __init__(self) -> None:
        self.installed = [OLLAMA]

    async def __call__(self, talk: Talk) -> None:
        path = talk.request.path
        if path == "/api/tags":
            same = {"digest": "d1", "size": 7, "modified_at": "2026-01-02T03:04:05Z"}
            await talk.answer({"models": [{"name": name, "model": name, **same} for name in self.installed]})
            return
        body = talk.request.json
        if path == "/api/show":
            info = {"general.architecture": "small", "small.context_length": 4096}
            await talk.answer({"capabilities": ["completion", "tools", "embedding"], "model_info": info})
        elif path == "/api/pull":
            await self._pull(talk, body["model"])
        elif path == "/api/delete" and body["model"] in self.installed:
            self.installed.remove(body["model"])
            await talk.answer(b"")
        elif path == "/api/copy" and body["source"] in self.installed:
            self.installed.append(body["destination"])
            await talk.answer(b"")
        elif body["model"] not in self.installed:
            await talk.answer({"error": f"model '{body['model']}' not found"}, 404)
        else:
            await _answer_as_ollama(talk, path, body)

    async def _pull(self, talk: Talk, model: str) -> None:
        layer = {"status": "pulling d1d1d1d1d1d1", "digest": "sha256:d1d1d1d1d1d1", "total": 7}
        if model == PULLED:
            self.installed.append(model)
            lines = [layer, {**layer, "completed": 7}, {"status": "verifying sha256 digest"}, {"status": "success"}]
        elif model == BROKEN:
            lines = [layer, {"error": "no space left on device"}]
        else:
            lines = [{"error": "pull model manifest: file does not exist"}]
        await talk.start_stream()
        for line in [{"status": "pulling manifest"}, *lines]:
            await talk.chunk(json.dumps(line).encode() + b"\n")
        await talk.finish_stream(done=False)


async def _answer_as_ollama(talk: Talk, path: str, body: dict) -> None:
    head = {"model": body["model"], "created_at": "2026-01-02T03:04:05.678Z"}
    if path == "/api/embed":
        given = body["input"]
        count = len(given) if isinstance(given, list) else 1
        await talk.answer({"model": body["model"], "embeddings": [[0.6, -0.8]] * count, "prompt_eval_count": 3})
        return

    def say(text: str, **more) -> dict:
        return (
            {"message": {"role": "assistant", "content": text, **more}} if path == "/api/chat" else {"response": text}
        )

    if not body.get("messages", body.get("prompt")):
        reason = "unload" if body.get("keep_alive") == 0 else "load"
        await talk.answer({**head, **say(""), "done": True, "done_reason": reason})
        return
    last = {"done": True, "done_reason": "stop", **COUNTS}
    if _asks_for_a_call(body):
        pieces = [say("", tool_calls=[{"function": {"name": "add", "arguments": ARGUMENTS}}])]
    elif body.get("format"):
        pieces = [say(json.dumps(PET))]
    else:
        pieces = [say("Hel"), say("lo!")]
    if body.get("stream") is False:
        await talk.answer({**head, **(say("Hello!") if len(pieces) == 2 else pieces[0]), **last})
        return
    await talk.start_stream()
    for piece in (*({**piece, "done": False} for piece in pieces), {**say(""), **last}):
        await talk.chunk(json.dumps({**head, **piece}, separators=(",", ":")).encode() + b"\n")
    await talk.finish_stream(done=False)


async def play_vendor(talk: Talk) -> None:
    """The same for a vendor with OpenAI's API."""
    if talk.request.path.endswith("/embeddings"):
        given = talk.request.json["input"]
        count = len(given) if isinstance(given, list) else 1
        rows = [{"object": "embedding", "index": index, "embedding": [0.6, -0.8]} for index in range(count)]
        await talk.answer({"object": "list", "data": rows, "usage": {"prompt_tokens": 3}})
        return
    body = talk.request.json if talk.request.method == "POST" else {}
    if _asks_for_a_call(body):
        await _call_add(talk, stream=bool(body.get("stream")))
    elif body.get("response_format"):
        await answering(200, completion(json.dumps(PET)))(talk)
    else:
        await chat(talk)


async def _call_add(talk: Talk, *, stream: bool) -> None:
    function = {"name": "add", "arguments": json.dumps(ARGUMENTS)}
    call = {"id": "call_1", "type": "function", "function": function}
    if not stream:
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        await answering(200, completion(choices=[choice]))(talk)
        return
    delta = {"tool_calls": [{"index": 0, **call}]}
    part = {**chunk(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    await streaming(part, chunk(finish="tool_calls"))(talk)


def _asks_for_a_call(body: dict) -> bool:
    return bool(body.get("tools")) and body["messages"][-1]["role"] == "user"


@dataclass
class Backends:
    """A gateway and what is behind it beside its own slots."""

    gateway: GatewayProcess
    vendor: ScriptedUpstream
    ollama: ScriptedUpstream
    played: PlayedOllama
    hub: SmallHub
    models: Path
    """Where the files of the slots are."""

    def renew(self) -> "Backends":
        """Forgets what earlier tests asked and said."""
        self.vendor.script, self.ollama.script = play_vendor, self.played
        self.vendor.requests.clear()
        self.played.installed[:] = [OLLAMA]
        self.ollama.requests.clear()
        self.hub.faults.clear()
        self.hub.store.requests.clear()
        self.hub.stopped.clear()
        return self


def calls_of(upstream: ScriptedUpstream) -> list[Received]:
    """What it was asked, but for the looks at its models, which come by themselves every few seconds."""
    return [each for each in upstream.requests if each.path not in ("/api/tags", "/api/show")]


@asynccontextmanager
async def running_backends(folder: Path) -> AsyncIterator[Backends]:
    models = folder / "models"
    models.mkdir()
    write_tiny_chat_model(models / f"{SLOT_TOOLS}.gguf", template=TOOL_TEMPLATE)
    call = {"name": "add", "arguments": ARGUMENTS}
    says = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    write_parrot(models / f"{SLOT_CALLS}.gguf", says, template=CALL_TEMPLATE)
    write_tiny_embedding_model(models / f"{EMBEDDING[SLOT]}.gguf")
    played, hub = PlayedOllama(), SmallHub()
    vendor, near = ScriptedUpstream(script=play_vendor), ScriptedUpstream(script=played)
    hub.add("someone/tiny-GGUF", {f"{FROM_HUB}.gguf": (models / f"{SLOT_TOOLS}.gguf").read_bytes()})
    async with AsyncExitStack() as stack:
        for upstream in (vendor, near, hub):
            await upstream.start()
            stack.push_async_callback(upstream.stop)
        config = {
            "providers": {"up": {"base_url": vendor.url, "models": ["up", "text-embedding-up"], "api_key": ""}},
            "upstream": {"attempts": 1, "breaker_failures": 0},
            "discovery": {"ollama": True, "ollama_url": near.url.removesuffix("/v1")},
            "engines": {"enabled": True, "models_folder": str(models)},
            "hub": {"endpoint": hub.url},
        }
        gateway = await stack.enter_async_context(running_gateway(folder, config))
        yield Backends(gateway, vendor, near, played, hub, models)
