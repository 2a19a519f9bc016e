"""A client that does nothing by itself: one connection, one request, the answer read as far as a test wants."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS = 60.0
CHAT = "/v1/chat/completions"


def hello(model: str = "up/up", **more: Any) -> dict[str, Any]:
    """The body of a chat."""
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


def write_request(method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    fields = {"Host": "127.0.0.1", **headers}
    if body is not None:
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **fields}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[str]:
        """The data of every server-sent event."""
        return [part.removeprefix("data: ") for part in self.body.decode().split("\n\n") if part]


@dataclass
class Exchange:
    """A request that has been sent; its answer is read as far as a test wants."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0

    async def read_head(self) -> int:
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return self.status

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, chunk by chunk. Ends with the body; a connection that ends earlier raises IncompleteReadError."""
        if self.status == 204:
            return
        if "content-length" in self.headers:
            yield await self.reader.readexactly(int(self.headers["content-length"]))
            return
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            data = await self.reader.readexactly(size + 2)
            yield data[:-2]
        await self.reader.readexactly(2)

    async def read(self) -> Answer:
        """The rest of the answer; closes the connection."""
        try:
            if not self.status:
                await self.read_head()
            async with asyncio.timeout(SECONDS):
                body = b"".join([piece async for piece in self.pieces()])
        finally:
            self.close()
        return Answer(self.status, self.headers, body)

    def close(self) -> None:
        self.writer.transport.abort()


async def send(port: int, data: bytes, host: str = "127.0.0.1", **options: Any) -> Exchange:
    """`options` are those of asyncio.open_connection."""
    reader, writer = await asyncio.open_connection(host, port, **options)
    writer.write(data)
    return Exchange(reader, writer)


async def begin(port: int, key: str | None, body: Any, path: str = CHAT, **headers: str) -> Exchange:
    """Sends a POST and returns before its answer; underscores in the names of headers become hyphens."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        fields["Authorization"] = f"Bearer {key}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await send(port, write_request("POST", path, content, fields))


async def post(port: int, key: str | None, body: Any, path: str = CHAT, **headers: str) -> Answer:
    return await (await begin(port, key, body, path, **headers)).read()


async def get(port: int, key: str | None, path: str, method: str = "GET") -> Answer:
    fields = {} if key is None else {"Authorization": f"Bearer {key}"}
    return await (await send(port, write_request(method, path, None, fields))).read()
