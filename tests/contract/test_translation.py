"""Golden files for every pair of wires that is translated.

tests/golden/<client's wire>-<upstream's wire>/<case>/ holds what the client asks (request.json), what the upstream must
get (upstream-request.json), what it says (upstream-answer.*) and what the client must get (answer.*). `.sse` and
`.ndjson` are streams.
"""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from stellwerk.api._errors import render_error
from stellwerk.api._guard import Request
from stellwerk.api.ollama import errors as ollama_errors
from stellwerk.api.ollama import requests as ollama
from stellwerk.api.ollama.openai_requests import Abilities
from stellwerk.api.ollama.reply import OllamaReply
from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.requests import ChatBody, CompletionBody, read_body
from stellwerk.api.openai.responses import ResponsesAPI
from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import GatewayError
from stellwerk.core.plan import Plan, Target
from stellwerk.http.pool import parse_base_url
from stellwerk.pipeline.dispatch import Dispatch
from stellwerk.pipeline.estimate import estimate
from stellwerk.pipeline.meter import CallMeter
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings
from stellwerk.routing.breaker import Breakers, BreakerSettings
from tests.port_fakes import ALICE, RecordedExchange, StillClock

GOLDEN = Path(__file__).parents[1] / "golden"
RESPONSES = "openai.responses"
"""No wire of the line: a chat is asked in its place, and its answer is what is translated."""
PAIRS = {
    (RESPONSES, Wire.OPENAI_CHAT),
    (Wire.OPENAI_COMPLETION, Wire.OPENAI_CHAT),
    (Wire.OLLAMA_CHAT, Wire.OPENAI_CHAT),
    (Wire.OLLAMA_GENERATE, Wire.OPENAI_CHAT),
    (Wire.OLLAMA_EMBED, Wire.OPENAI_EMBEDDING),
}
CASES = sorted(GOLDEN.glob("*/*/request.json"))
CHAT, COMPLETION = msgspec.json.Decoder(ChatBody), msgspec.json.Decoder(CompletionBody)
OLLAMA = {
    Wire.OLLAMA_CHAT: (Operation.CHAT, msgspec.json.Decoder(ollama.ChatBody)),
    Wire.OLLAMA_GENERATE: (Operation.CHAT, msgspec.json.Decoder(ollama.GenerateBody)),
    Wire.OLLAMA_EMBED: (Operation.EMBEDDING, msgspec.json.Decoder(ollama.EmbedBody)),
}


class Watch:
    def fell_back(self) -> None: ...

    def retried(self) -> None: ...


def make_call(operation: Operation, wire: Wire, body, fields, *, stream: bool, wants_usage: bool = False) -> Call:
    return Call(
        id="req_1",
        operation=operation,
        wire=wire,
        model=body.model,
        fields=fields,
        principal=ALICE,
        received=0.0,
        deadline=1e12,
        stream=stream,
        wants_usage=wants_usage,
    )


def read_request(wire: Wire, request: bytes, exchange: RecordedExchange):
    """The call, the reply, and how errors are rendered that come before it."""
    if wire is Wire.OPENAI_COMPLETION:
        body, fields = read_body(request, b"application/json", COMPLETION)
        call = make_call(
            Operation.COMPLETION, wire, body, fields, stream=bool(body.stream), wants_usage=body.wants_usage
        )
        return call, OpenAIReply(call, exchange), render_error
    operation, decoder = OLLAMA[wire]
    body, fields = ollama.read_call(request, b"application/json", decoder)
    call = make_call(operation, wire, body, fields, stream=getattr(body, "streams", False))
    reply = OllamaReply(call, exchange, body, abilities=Abilities(thinks=True), clock=StillClock())
    return call, reply, ollama_errors.render_error


async def ask(call: Call, reply, upstream, pools) -> None:
    """Sends the call to a vendor that only chats and embeds. Raises what the client has not been told."""
    settings = ProviderSettings(name="vendor", base_url=upstream.url, completions=False)
    provider = OpenAICompatible(settings, pools.pool(parse_base_url(upstream.url)[0]), SystemClock())
    plan = Plan(name=call.model, targets=(Target(provider="vendor", model=call.model.partition("/")[2]),))
    try:
        async with asyncio.timeout(30):
            clock = SystemClock()
            meter = CallMeter(call, clock, estimate(call))
            dispatch = Dispatch({"vendor": provider}, Watch(), 1, Breakers(BreakerSettings(), clock), clock)
            await dispatch.run(call, plan, reply, meter)
    except GatewayError:
        if not reply.started:
            raise


async def respond(request: bytes, exchange: RecordedExchange, upstream, pools) -> None:
    """Answers as POST /v1/responses does."""
    handlers = {}

    async def chat(inner: Request) -> None:
        body, fields = read_body(inner.exchange.body, None, CHAT)
        call = make_call(
            Operation.CHAT, Wire.OPENAI_CHAT, body, fields, stream=bool(body.stream), wants_usage=body.wants_usage
        )
        await ask(call, OpenAIReply(call, inner.exchange), upstream, pools)

    def add(method, path, _access, handler) -> None:
        handlers[method, path] = handler

    api = ResponsesAPI(None, SimpleNamespace(accepted={}), handlers, None, StillClock(), lambda: False)
    api.register(SimpleNamespace(add=add))
    handlers["POST", "/v1/chat/completions"] = chat
    exchange.body = request
    await handlers["POST", "/v1/responses"](Request(exchange, "req_1", ALICE))


async def translate(wire: Wire | str, request: bytes, upstream, pools) -> str:
    """What the client gets for `request`."""
    exchange = RecordedExchange()
    render = render_error
    try:
        if wire == RESPONSES:
            await respond(request, exchange, upstream, pools)
        else:
            call, reply, render = read_request(wire, request, exchange)
            await ask(call, reply, upstream, pools)
    except GatewayError as error:
        exchange.respond(*render(error, exchange.path))
    assert exchange.finished == 1
    # The ids and the times are new in every answer.
    written = re.sub(r'"id":"cmpl-[0-9a-f]{24}"', '"id":"cmpl-0"', exchange.written.decode())
    written = re.sub(r'"((?:item_)?id)":"(resp|msg|rs|fc)_[0-9a-f]{32,48}"', r'"\1":"\2_0"', written)
    written = re.sub(r'"id":"call_[0-9a-z]{8}"', '"id":"call_0"', written)
    written = re.sub(r'"(\w+_duration)":\d+', r'"\1":0', written)
    return re.sub(r'"created":\d+', '"created":0', written)


def playing(path: Path):
    data = path.read_bytes()

    async def script(talk):
        if path.suffix == ".json":
            await talk.answer(data)
            return
        await talk.start_stream()
        # Piece by piece: the network owes nobody whole events.
        for start in range(0, len(data), 100):
            await talk.chunk(data[start : start + 100])
        await talk.finish_stream(done=False)

    return script


def the_file(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"{name}.*")
    return found


@pytest.mark.parametrize("request_file", CASES, ids=lambda path: f"{path.parts[-3]}/{path.parts[-2]}")
async def test_a_translation_is_what_its_golden_file_says(request_file, upstream, pools):
    folder = request_file.parent
    upstream.script = playing(the_file(folder, "upstream-answer"))
    wire = next(client for client, vendor in PAIRS if folder.parent.name == f"{client}-{vendor}")
    answer = await translate(wire, request_file.read_bytes(), upstream, pools)
    (sent,) = upstream.requests
    assert sent.json == json.loads((folder / "upstream-request.json").read_bytes())
    expected = the_file(folder, "answer")
    if expected.suffix == ".json":
        assert json.loads(answer) == json.loads(expected.read_bytes())
    else:
        assert answer == expected.read_text(encoding="utf-8")


def test_every_pair_of_wires_has_its_golden_files():
    assert {path.parts[-3] for path in CASES} == {f"{client}-{vendor}" for client, vendor in PAIRS}
