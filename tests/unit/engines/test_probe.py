import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stellwerk.core.ports import EngineAddress
from stellwerk.engines import probe


@asynccontextmanager
async def answering(reply: bytes | None, *, keyless: bytes | None = None) -> AsyncIterator[EngineAddress]:
    """A server that says `reply`; `keyless` to requests without a key; None says nothing at all."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        answer = reply if keyless is None or b"Authorization: Bearer key" in head else keyless
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield EngineAddress(host="127.0.0.1", port=server.sockets[0].getsockname()[1], key="key")
    finally:
        done.set()
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DENIED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


async def test_an_engine_that_is_well_answers():
    async with answering(OK) as address:
        assert await probe.answers(address, 5.0)


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 503 Loading\r\n\r\n", b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"x" * 5000, b"HTTP/1.1 20"]
)
async def test_anything_but_a_200_is_no_answer(reply: bytes):
    async with answering(reply) as address:
        assert not await probe.answers(address, 5.0)


async def test_silence_is_no_answer():
    async with answering(None) as address:
        assert not await probe.answers(address, 0.05)


async def test_a_closed_port_is_no_answer():
    async with answering(OK) as address:
        pass
    assert not await probe.answers(address, 5.0)


async def test_only_a_server_that_insists_on_our_key_is_ours():
    async with answering(OK, keyless=DENIED) as address:
        assert await probe.is_ours(address, 5.0)
    async with answering(OK) as address:
        assert not await probe.is_ours(address, 5.0)
    async with answering(DENIED) as address:
        assert not await probe.is_ours(address, 5.0)
