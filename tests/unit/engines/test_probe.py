import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

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


async def test_health_may_be_told_at_another_path():
    async with scripted({"GET /up": OK}) as (address, _):
        assert await probe.answers(address, 5.0, "/up")
        assert not await probe.answers(address, 5.0)


async def test_only_a_server_that_insists_on_our_key_is_ours():
    async with answering(OK, keyless=DENIED) as address:
        assert await probe.is_ours(address, 5.0)
    async with answering(OK) as address:
        assert not await probe.is_ours(address, 5.0)
    async with answering(DENIED) as address:
        assert not await probe.is_ours(address, 5.0)


async def test_of_a_server_that_knows_no_keys_health_is_the_proof():
    async with answering(OK) as address:
        assert await probe.is_ours(address, 5.0, checks_key=False)
    async with answering(DENIED) as address:
        assert not await probe.is_ours(address, 5.0, checks_key=False)


@asynccontextmanager
async def scripted(replies: dict[str, bytes]) -> AsyncIterator[tuple[EngineAddress, list[Any]]]:
    """Replies by method and path; collects the JSON bodies of what was asked."""
    bodies: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        for line in head.splitlines():
            if line.startswith("Content-Length: "):
                bodies.append(json.loads(await reader.readexactly(int(line.split()[1]))))  # noqa: PERF401
        assert "Authorization: Bearer key" in head or head.startswith("GET /up") or "GET /health" in head
        writer.write(replies.get(" ".join(head.split()[:2]), b"HTTP/1.1 404 No\r\n\r\n"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield EngineAddress(host="127.0.0.1", port=server.sockets[0].getsockname()[1], key="key"), bodies
    finally:
        server.close()
        await server.wait_closed()


def reply(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


ASKS = "POST /v1/completions"


async def test_an_engine_that_gives_a_token_computes():
    async with scripted({ASKS: reply(b"{}")}) as (address, bodies):
        assert await probe.computes(address, probe.completion_probe("m"), 5.0)
        assert bodies == [{"model": "m", "prompt": "a", "max_tokens": 1}]


async def test_an_engine_for_embeddings_is_asked_for_one():
    async with scripted({"POST /v1/embeddings": reply(b"{}")}) as (address, bodies):
        assert await probe.computes(address, probe.embedding_probe("m"), 5.0)
        assert bodies == [{"model": "m", "input": "a"}]


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (reply(b"{}", "400 Bad Request"), True),
        (reply(b"{}", "404 Not Found"), True),
        (reply(b"{}", "501 Not Implemented"), True),
        (reply(b"{}", "401 Unauthorized"), False),
        (reply(b"{}", "500 Internal Server Error"), False),
        (reply(b"{}", "503 Loading"), False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, False),
        (b"SSH-2.0\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_a_refusal_shows_that_an_engine_is_awake_and_a_failure_does_not(answer: bytes, well: bool):
    async with scripted({ASKS: answer}) as (address, _):
        assert await probe.computes(address, probe.completion_probe("m"), 5.0) == well


async def test_an_engine_that_gives_no_token_in_time_does_not_compute():
    async with answering(None) as address:
        assert not await probe.computes(address, probe.completion_probe("m"), 0.05)


@pytest.mark.parametrize(
    ("slots", "chosen"),
    [
        (b'[{"id": 0, "n_prompt_tokens": 9}, {"id": 1, "n_prompt_tokens": 2, "params": {}}, {"id": 2}]', 1),
        (b'[{"id": 0, "n_prompt_tokens": 9}, {"id": 1, "is_processing": true}, {"id": 2}]', 2),
        (b'[{"id": 0, "n_prompt_tokens": 9}, {"id": 1, "params": {}}]', None),
        (b'{"error": {}}', None),
        (b"", None),
    ],
)
async def test_the_work_is_put_where_it_displaces_no_prompt(slots: bytes, chosen: int | None):
    async with scripted({ASKS: reply(b"{}"), "GET /slots": reply(slots)}) as (address, bodies):
        assert await probe.computes(address, probe.completion_probe("m", slots_path="/slots"), 5.0)
        assert bodies[0].get("id_slot") == chosen
        assert bodies[0]["cache_prompt"] is False


async def test_an_engine_that_does_not_tell_its_slots_is_asked_without():
    async with scripted({ASKS: reply(b"{}")}) as (address, bodies):
        assert await probe.computes(address, probe.completion_probe("m", slots_path="/slots"), 5.0)
        assert "id_slot" not in bodies[0]
