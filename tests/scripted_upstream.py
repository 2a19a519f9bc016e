"""An upstream on a real socket that does exactly what a test tells it to."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Talk:
    """What a script can do with one connection."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: asyncio.Event

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body, status=200, headers=(), content_type="application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        lines = [f"HTTP/1.1 {status} Status", f"content-type: {content_type}", f"content-length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    async def start_stream(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, body) -> None:
        await self.chunk(b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n")

    async def finish_stream(self, *, done: bool = True) -> None:
        await self.send((b"e\r\ndata: [DONE]\n\n\r\n" if done else b"") + b"0\r\n\r\n")

    def cut(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


def completion(content="Hello", model="up", **more):
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        **more,
    }


def chunk(content=None, model="up", finish=None, **more):
    delta = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def usage_chunk(model="up", prompt=5, output=2):
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return {**chunk(model=model), "choices": [], "usage": usage}


async def list_models(talk: Talk) -> None:
    await talk.answer({"object": "list", "data": [{"id": "up", "object": "model", "created": 1, "owned_by": "up"}]})


async def chat(talk: Talk) -> None:
    """Answers chat completions, streamed or not, and the list of models as a well-behaved upstream does."""
    if talk.request.method == "GET":
        await list_models(talk)
        return
    body = talk.request.json
    model = body.get("model", "up")
    if not body.get("stream"):
        await talk.answer(completion(model=model))
        return
    await talk.start_stream()
    for word in ("Hel", "lo", "!"):
        await talk.event(chunk(word, model=model))
    await talk.event(chunk(model=model, finish="stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        await talk.event(usage_chunk(model=model))
    await talk.finish_stream()


@dataclass
class ScriptedUpstream:
    """Runs `script` for every request and remembers what it received."""

    script: Script = chat
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    host: str = "127.0.0.1"
    port: int = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    async def stop(self) -> None:
        self._server.close()
        self.drop_connections()
        await self._server.wait_closed()
        async with asyncio.timeout(30):
            await self._idle.wait()

    def drop_connections(self) -> None:
        """Closes every open connection, as an upstream that restarts does."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _remember(self, request: Received) -> bool:
        """Whether the script answers it."""
        self.requests.append(request)
        return True

    async def _serve(self, reader, writer) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._idle.clear()
        try:
            while (request := await read_request(reader)) is not None:
                left = asyncio.Event()
                talk = Talk(request, reader, writer, left)
                script = self.script if self._remember(request) else list_models
                watching = asyncio.ensure_future(_watch(reader, left))
                try:
                    await script(talk)
                finally:
                    watching.cancel()
                    await asyncio.wait({watching})
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            if not self._writers:
                self._idle.set()


class AskedUpstream(ScriptedUpstream):
    """Lists its models by itself, whatever the script is, and remembers calls only: gateways ask for lists at times of
    their own."""

    def _remember(self, request: Received) -> bool:
        return request.method != "GET" and super()._remember(request)


async def _watch(reader, left) -> None:
    # Nobody sends a second request before the first is answered: what can be read here is only the end.
    with contextlib.suppress(ConnectionError):
        await reader.read(1)
    left.set()


async def read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)
