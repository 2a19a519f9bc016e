"""Golden files for every pair of wires that is translated.

tests/golden/<client's wire>-<upstream's wire>/<case>/ holds what the client asks (request.json), what the upstream must
get (upstream-request.json), what it says (upstream-answer.*) and what the client must get (answer.*). `.sse` is a
stream.
"""

import asyncio
import json
import re
from pathlib import Path

import msgspec
import pytest

from stellwerk.api._errors import render_error
from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.requests import CompletionBody, read_body
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
from tests.port_fakes import ALICE, RecordedExchange

GOLDEN = Path(__file__).parents[1] / "golden"
PAIRS = {(Wire.OPENAI_COMPLETION, Wire.OPENAI_CHAT)}
CASES = sorted(GOLDEN.glob("*/*/request.json"))
COMPLETION = msgspec.json.Decoder(CompletionBody)


class Watch:
    def fell_back(self) -> None: ...

    def retried(self) -> None: ...


def read_call(request: bytes) -> Call:
    body, fields = read_body(request, b"application/json", COMPLETION)
    return Call(
        id="req_1",
        operation=Operation.COMPLETION,
        wire=Wire.OPENAI_COMPLETION,
        model=body.model,
        fields=fields,
        principal=ALICE,
        received=0.0,
        deadline=1e12,
        stream=bool(body.stream),
        wants_usage=body.wants_usage,
    )


async def translate(request: bytes, upstream, pools) -> str:
    """What the client gets for `request` from a vendor that only chats."""
    call, exchange = read_call(request), RecordedExchange()
    settings = ProviderSettings(name="vendor", base_url=upstream.url, completions=False)
    provider = OpenAICompatible(settings, pools.pool(parse_base_url(upstream.url)[0]), SystemClock())
    plan = Plan(name=call.model, targets=(Target(provider="vendor", model=call.model.partition("/")[2]),))
    reply = OpenAIReply(call, exchange)
    try:
        async with asyncio.timeout(5):
            clock = SystemClock()
            meter = CallMeter(call, clock, estimate(call))
            dispatch = Dispatch({"vendor": provider}, Watch(), 1, Breakers(BreakerSettings(), clock), clock)
            await dispatch.run(call, plan, reply, meter)
    except GatewayError as error:
        if not reply.started:
            exchange.respond(*render_error(error, exchange.path))
    assert exchange.finished == 1
    # The id and the time are new in every answer.
    written = re.sub(r'"id":"cmpl-[0-9a-f]{24}"', '"id":"cmpl-0"', exchange.written.decode())
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
    answer = await translate(request_file.read_bytes(), upstream, pools)
    (sent,) = upstream.requests
    assert sent.json == json.loads((folder / "upstream-request.json").read_bytes())
    expected = the_file(folder, "answer")
    if expected.suffix == ".json":
        assert json.loads(answer) == json.loads(expected.read_bytes())
    else:
        assert answer == expected.read_text(encoding="utf-8")


def test_every_pair_of_wires_has_its_golden_files():
    assert {path.parts[-3] for path in CASES} == {f"{client}-{vendor}" for client, vendor in PAIRS}
