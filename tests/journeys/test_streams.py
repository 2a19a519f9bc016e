"""What happens to answers on their way when one of the three parties leaves, fails or is slow."""

import asyncio
import json
import resource
import socket
import time
from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from tests.gateway_process import ADMIN_KEY, GatewayProcess, best_within, running_gateway, wait_until
from tests.raw_http import CHAT, Exchange, begin, hello, write_request
from tests.scripted_upstream import ScriptedUpstream, Talk, chat, chunk, usage_chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEAVES_WITHIN = 0.2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstreams() -> AsyncIterator[tuple[ScriptedUpstream, ScriptedUpstream]]:
    servers = ScriptedUpstream(), ScriptedUpstream()
    for server in servers:
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstreams) -> AsyncIterator[GatewayProcess]:
    first, second = upstreams
    config = {
        "providers": {
            "up": {"base_url": first.url, "models": ["up"], "api_key": ""},
            "hasty": {"base_url": first.url, "models": ["up"], "api_key": "", "first_byte_seconds": 0.5},
            "second": {"base_url": second.url, "models": ["up"], "api_key": ""},
            "nobody": {"base_url": "http://127.0.0.1:9/v1", "models": ["up"], "api_key": ""},
        },
        "models": {
            "pair": {"targets": ["up/up", "second/up"]},
            "hasty-pair": {"targets": ["hasty/up", "second/up"]},
            "unreachable-first": {"targets": ["nobody/up", "second/up"]},
        },
        # Each target once, however often it has failed in other tests.
        "upstream": {"attempts": 2, "breaker_failures": 0},
    }
    async with running_gateway(tmp_path_factory.mktemp("streams"), config) as running:
        yield running


@pytest.fixture
def upstream(upstreams) -> ScriptedUpstream:
    return _as_new(upstreams[0])


@pytest.fixture
def second(upstreams) -> ScriptedUpstream:
    return _as_new(upstreams[1])


def _as_new(server: ScriptedUpstream) -> ScriptedUpstream:
    server.script = chat
    server.requests.clear()
    return server


async def ask(gateway: GatewayProcess, request_id: str, model: str = "up/up", **more) -> Exchange:
    return await begin(gateway.port, ADMIN_KEY, hello(model, **more), x_request_id=request_id)


async def start_two_words(talk: Talk) -> None:
    await talk.start_stream()
    await talk.event(chunk("Hel"))
    await talk.event(chunk("lo"))


# --- the upstream leaves


async def test_an_upstream_killed_in_the_middle_gives_an_error_event_and_no_done(gateway, upstream):
    async def script(talk: Talk) -> None:
        await start_two_words(talk)
        talk.cut()

    upstream.script = script
    answer = await (await ask(gateway, "killed", stream=True)).read()
    *words, last = answer.events
    assert answer.status == 200
    assert [json.loads(word)["choices"][0]["delta"]["content"] for word in words] in (["Hel", "lo"], ["Hel"])
    assert json.loads(last)["error"]["code"] == "upstream_broken"
    assert b"[DONE]" not in answer.body
    row = await gateway.call("killed")
    assert (row["status"], row["error"], row["provider"]) == (200, "upstream_broken", "up")


async def test_a_stream_that_ends_cleanly_but_unfinished_is_an_error(gateway, upstream):
    async def script(talk: Talk) -> None:
        await start_two_words(talk)
        await talk.finish_stream(done=False)

    upstream.script = script
    answer = await (await ask(gateway, "unfinished", stream=True)).read()
    assert "error" in json.loads(answer.events[-1])
    assert b"[DONE]" not in answer.body
    assert (await gateway.call("unfinished"))["error"] == "upstream_broken"


async def test_a_finished_stream_without_done_gets_one(gateway, upstream):
    async def script(talk: Talk) -> None:
        await start_two_words(talk)
        await talk.event(chunk(finish="stop"))
        await talk.finish_stream(done=False)

    upstream.script = script
    answer = await (await ask(gateway, "no-done", stream=True)).read()
    assert answer.events[-1] == "[DONE]"
    assert (await gateway.call("no-done"))["error"] is None


async def test_an_error_inside_the_stream_is_told_and_recorded(gateway, upstream):
    async def script(talk: Talk) -> None:
        await start_two_words(talk)
        await talk.event({"error": {"message": "out of memory", "type": "server_error", "code": 500}})
        await talk.finish_stream()

    upstream.script = script
    answer = await (await ask(gateway, "inside", stream=True)).read()
    assert "error" in json.loads(answer.events[-1])
    assert b"[DONE]" not in answer.body
    assert (await gateway.call("inside"))["error"] is not None


async def test_an_upstream_that_dies_inside_a_whole_answer_gives_a_502(gateway, upstream):
    async def script(talk: Talk) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
        talk.cut()

    upstream.script = script
    answer = await (await ask(gateway, "half")).read()
    assert (answer.status, answer.error["code"]) == (502, "upstream_broken")
    assert (await gateway.call("half"))["status"] == 502


# --- the client leaves


class Leaving:
    """An upstream that says something and then waits for its client to leave, noting when that was."""

    def __init__(self, *, stream: bool, usage: bool = False) -> None:
        self.reached = asyncio.Event()
        self.left = asyncio.Event()
        self.left_at = 0.0
        self._stream = stream
        self._usage = usage

    async def __call__(self, talk: Talk) -> None:
        if self._stream:
            await start_two_words(talk)
        if self._usage:
            await talk.event({**chunk("!"), "usage": usage_chunk(prompt=11, output=3)["usage"]})
        self.reached.set()
        # Nothing more may come on this connection: what ends the read is its end.
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await talk.reader.readexactly(1)
        self.left_at = time.monotonic()
        self.left.set()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_closes_the_upstream_within_200_ms(gateway, upstream, stream):
    numbers = count()

    async def leave() -> float:
        upstream.script = script = Leaving(stream=stream)
        request_id = f"left-{stream}-{next(numbers)}"
        exchange = await ask(gateway, request_id, stream=stream)
        async with asyncio.timeout(30):
            await script.reached.wait()
            if stream:
                await exchange.read_head()
            closed_at = time.monotonic()
            exchange.close()
            await script.left.wait()
        row = await gateway.call(request_id)
        assert (row["status"], row["error"], row["attempts"]) == (499, "client_closed_request", 1)
        return script.left_at - closed_at

    await best_within(LEAVES_WITHIN, leave, 20)


async def test_tokens_reported_before_the_client_left_are_in_the_ledger(gateway, upstream):
    upstream.script = script = Leaving(stream=True, usage=True)
    exchange = await ask(gateway, "left-late", stream=True)
    async with asyncio.timeout(30):
        await script.reached.wait()
        async for piece in _begun(exchange):
            if b'"!"' in piece:
                break
    exchange.close()
    row = await gateway.call("left-late")
    assert (row["status"], row["input_tokens"], row["output_tokens"]) == (499, 11, 3)


async def _begun(exchange: Exchange) -> AsyncIterator[bytes]:
    await exchange.read_head()
    async for piece in exchange.pieces():
        yield piece


async def test_a_client_that_leaves_before_the_first_byte_is_not_answered_by_a_second_target(gateway, upstream, second):
    upstream.script = script = Leaving(stream=False)
    exchange = await ask(gateway, "left-early", model="pair")
    async with asyncio.timeout(30):
        await script.reached.wait()
        exchange.close()
        await script.left.wait()
    assert (await gateway.call("left-early"))["status"] == 499
    assert second.requests == []


# --- one target after the other


async def fail(talk: Talk) -> None:
    await talk.answer({"error": {"message": "broken"}}, status=500)


async def refuse(talk: Talk) -> None:
    await talk.answer({"error": {"message": "slow down"}}, status=429, headers=[("retry-after", "1")])


async def hang(talk: Talk) -> None:
    await talk.left.wait()


async def hang_up(talk: Talk) -> None:
    talk.cut()


async def send_an_empty_stream(talk: Talk) -> None:
    await talk.start_stream()
    await talk.finish_stream(done=False)


async def send_nonsense(talk: Talk) -> None:
    await talk.answer(b"<html>It works!</html>", content_type="text/html")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("script", [fail, refuse, hang, hang_up, send_an_empty_stream, send_nonsense])
async def test_the_second_target_answers_when_the_first_one_has_not(gateway, upstream, second, script, stream):
    upstream.script = script
    request_id = f"{script.__name__}-{stream}"
    # Who is not waited for for long would often be too late on a busy machine.
    model = "hasty-pair" if script is hang else "pair"
    answer = await (await ask(gateway, request_id, model=model, stream=stream)).read()
    assert answer.status == 200
    assert b"[DONE]" in answer.body if stream else answer.json["choices"][0]["message"]["content"] == "Hello"
    assert len(second.requests) == 1
    row = await gateway.call(request_id)
    assert (row["status"], row["error"], row["provider"], row["attempts"]) == (200, None, "second", 2)


async def test_the_second_target_answers_when_the_first_one_cannot_be_reached(gateway, second):
    answer = await (await ask(gateway, "unreachable", model="unreachable-first")).read()
    assert answer.status == 200
    assert (await gateway.call("unreachable"))["provider"] == "second"


async def test_there_is_no_second_target_after_the_first_byte(gateway, upstream, second):
    async def script(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Hel"))
        talk.cut()

    upstream.script = script
    answer = await (await ask(gateway, "no-second", model="pair", stream=True)).read()
    assert "error" in json.loads(answer.events[-1])
    assert second.requests == []
    assert (await gateway.call("no-second"))["attempts"] == 1


async def test_a_wrong_request_is_not_tried_at_a_second_target(gateway, upstream, second):
    async def script(talk: Talk) -> None:
        await talk.answer({"error": {"message": "temperature is wrong", "param": "temperature"}}, status=400)

    upstream.script = script
    answer = await (await ask(gateway, "wrong", model="pair")).read()
    assert (answer.status, answer.error["message"]) == (400, "temperature is wrong")
    assert second.requests == []


async def test_two_dead_targets_are_an_honest_error_and_one_row(gateway, upstream, second):
    upstream.script = second.script = fail
    answer = await (await ask(gateway, "all-dead", model="pair", stream=True)).read()
    assert (answer.status, answer.error["type"]) == (502, "upstream_error")
    row = await gateway.call("all-dead")
    assert (row["status"], row["attempts"], row["provider"]) == (502, 2, "second")


# --- a thousand at once


STREAMS, WORDS = 1000, 8


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def test_of_a_thousand_concurrent_streams_none_is_lost_and_none_reordered(gateway, second):
    _allow_many_files()
    everybody_here = asyncio.Event()

    async def script(talk: Talk) -> None:
        name = talk.request.json["messages"][0]["content"]
        if len(second.requests) == STREAMS:
            everybody_here.set()
        await everybody_here.wait()
        await talk.start_stream()
        for number in range(WORDS):
            await talk.event(chunk(f"{name}:{number} "))
            await asyncio.sleep(0)
        await talk.event(chunk(finish="stop"))
        await talk.event(usage_chunk(output=WORDS))
        await talk.finish_stream()

    second.script = script
    door = asyncio.Semaphore(64)

    async def one(number: int) -> str:
        body = {**hello("second/up", stream=True), "messages": [{"role": "user", "content": f"stream-{number}"}]}
        async with door:
            exchange = await begin(gateway.port, ADMIN_KEY, body, x_request_id=f"thousand-{number}")
        answer = await exchange.read()
        *words, finish, done = answer.events
        assert (answer.status, done) == (200, "[DONE]")
        assert json.loads(finish)["choices"][0]["finish_reason"] == "stop"
        return "".join(json.loads(word)["choices"][0]["delta"]["content"] for word in words)

    async with asyncio.timeout(120):
        texts = await asyncio.gather(*(one(number) for number in range(STREAMS)))
    wanted = ["".join(f"stream-{number}:{word} " for word in range(WORDS)) for number in range(STREAMS)]
    assert texts == wanted

    def stored() -> list:
        rows = [row for row in gateway.calls() if row["id"].startswith("thousand-")]
        return rows if len(rows) == STREAMS else []

    rows = await wait_until(stored)
    assert {(row["status"], row["error"], row["output_tokens"]) for row in rows} == {(200, None, WORDS)}


# --- a slow client


async def test_an_upstream_is_held_back_while_the_client_does_not_read(gateway, upstream):
    sent = 0
    held_back, go_on = asyncio.Event(), asyncio.Event()
    text = "x" * 16_000

    async def script(talk: Talk) -> None:
        nonlocal sent
        await talk.start_stream()
        while not go_on.is_set():
            sending = asyncio.ensure_future(talk.event(chunk(text)))
            done, _ = await asyncio.wait({sending}, timeout=1.0)
            if not done:
                held_back.set()
                await sending
                await go_on.wait()
            sent += 1
        await talk.event(chunk(finish="stop"))
        await talk.finish_stream()

    upstream.script = script
    before = gateway.resident_bytes
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("127.0.0.1", gateway.port))
    body = json.dumps(hello(stream=True)).encode()
    await loop.sock_sendall(slow, write_request("POST", CHAT, body, {"Authorization": f"Bearer {ADMIN_KEY}"}))
    async with asyncio.timeout(60):
        await held_back.wait()
    assert gateway.resident_bytes - before < 16 << 20
    assert sent * len(text) < 64 << 20
    go_on.set()
    reader, writer = await asyncio.open_connection(sock=slow, limit=1 << 20)
    answer = await Exchange(reader, writer).read()
    writer.transport.abort()
    assert answer.events[-1] == "[DONE]"
    assert len(answer.events) == sent + 2
