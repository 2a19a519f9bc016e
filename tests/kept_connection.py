"""A client that asks one request after the other on one connection, as long as the server keeps it open."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.raw_http import SECONDS, Answer, Exchange, write_request

WITHOUT_A_BODY = (204, 304)


class KeptConnection:
    def __init__(self, port: int, **options: Any) -> None:
        """`options` are those of asyncio.open_connection."""
        self._port = port
        self._options = options
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        if self._streams is not None and self._streams[0].at_eof():
            # The server ends what nobody has used for a while.
            self.close()
        was_kept = self._streams is not None
        try:
            return await self._ask(method, target, body, headers)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            # It may do so in the very moment of a request, and has not seen it then.
            if not was_kept or getattr(error, "partial", b""):
                raise
        return await self._ask(method, target, body, headers)

    async def _ask(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, **self._options)
        exchange = Exchange(*self._streams)
        exchange.writer.write(write_request(method, target, body, headers or {}))
        await exchange.read_head()
        content = b""
        if method != "HEAD" and exchange.status not in WITHOUT_A_BODY:
            async with asyncio.timeout(SECONDS):
                content = b"".join([piece async for piece in exchange.pieces()])
        if exchange.headers.get("connection") == "close":
            # Over TLS a server cannot say that it has written everything and still read: it lets the client go first.
            if "ssl" not in self._options:
                async with asyncio.timeout(SECONDS):
                    assert await exchange.reader.read() == b"", "something stands behind the answer"
            self.close()
        return Answer(exchange.status, exchange.headers, content)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
