"""One request and its answer over a connection of its own, on the event loop; the twin of `connection`."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from stellwerk.client.address import Address
from stellwerk.client.answer import AnswerReader
from stellwerk.client.connection import PIECE, Patience, silent, unreachable
from stellwerk.client.errors import BrokenOff


class AsyncAnswering:
    """An answer on its way."""

    def __init__(self, stream: asyncio.StreamReader, reader: AnswerReader, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds
        self.reader = reader

    async def wait_for_head(self) -> None:
        """Until status and headers are known."""
        while not self.reader.began:
            await self._receive()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, until its end."""
        while True:
            if data := self.reader.take():
                yield data
            if self.reader.complete:
                return
            await self._receive()

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def _receive(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                data = await self._stream.read(PIECE)
        except TimeoutError:
            raise silent(self._seconds) from None
        except OSError:
            raise BrokenOff("The connection broke before the answer was complete.") from None
        if data:
            self.reader.feed(data)
        else:
            self.reader.end()


@contextlib.asynccontextmanager
async def asked(
    address: Address,
    tls: ssl.SSLContext | None,
    request: bytes,
    patience: Patience,
    *,
    waits: float = 0.0,
    most_bytes: int | None,
) -> AsyncIterator[AsyncAnswering]:
    """Sends the request; the connection is closed at the end, also in the middle of an answer."""
    seconds = patience.silence_seconds + waits
    stream, writer = await _connect(address, tls, patience)
    try:
        # Who refuses a large body may close before it is whole; why stands in the answer.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            try:
                async with asyncio.timeout(seconds):
                    writer.write(request)
                    await writer.drain()
            except TimeoutError:
                raise silent(seconds) from None
        answering = AsyncAnswering(stream, AnswerReader(most_bytes), seconds)
        await answering.wait_for_head()
        yield answering
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _connect(
    address: Address, tls: ssl.SSLContext | None, patience: Patience
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(patience.connect_seconds):
            return await asyncio.open_connection(
                address.host, address.port, ssl=tls, server_hostname=None if tls is None else address.host
            )
    except (OSError, UnicodeError, ValueError) as error:
        raise unreachable(address, error) from None
