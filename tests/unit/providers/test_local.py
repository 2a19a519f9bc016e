import asyncio
import json
from contextlib import suppress

import pytest

from stellwerk.api.jobs.performer import failed
from stellwerk.core.call import Operation
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, GatewayError, Unavailable, UpstreamBroken, UpstreamError, UpstreamTimeout
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import EngineAddress
from stellwerk.http.pool import parse_base_url
from stellwerk.http.upstream import UpstreamSettings
from stellwerk.pipeline.dispatch import is_transient
from stellwerk.providers.local import Local
from tests.port_fakes import StillClock, make_call
from tests.scripted_upstream import ScriptedUpstream, completion

TARGET = Target(provider="local", model="tiny")
TINY = Model(provider="local", name="tiny", id="tiny", local=True)


class Lease:
    def __init__(self, address) -> None:
        self.address = address
        self.released = 0
        self.doubts = 0
        self.suspicions = 0
        self.answers = 0

    def doubt(self) -> None:
        assert not self.released
        self.doubts += 1

    def suspect(self) -> None:
        assert not self.released
        self.suspicions += 1

    def note_answer(self) -> None:
        assert not self.released
        self.answers += 1

    def release(self) -> None:
        self.released += 1


class Slots:
    """Engines at the port: gives out the addresses in turn, the last one again and again."""

    def __init__(self, *addresses) -> None:
        self._addresses = list(addresses)
        self.leases = []
        self.asked = []
        self.offered = [TINY]

    def models(self):
        return self.offered

    async def acquire(self, model, *, deadline, request_id="", place=None):
        self.asked.append((model, deadline))
        address = self._addresses.pop(0) if len(self._addresses) > 1 else self._addresses[0]
        if isinstance(address, Exception):
            raise address
        self.leases.append(Lease(address))
        return self.leases[-1]

    @property
    def released(self):
        return [lease.released for lease in self.leases]


def address_of(server, key="engine-key"):
    return EngineAddress(host="127.0.0.1", port=server.port, key=key)


@pytest.fixture
async def dead():
    """The address of an engine that has gone."""
    server = ScriptedUpstream()
    await server.start()
    await server.stop()
    return address_of(server)


@pytest.fixture
def start(pools):
    def make(*addresses, clock=None):
        slots = Slots(*addresses)
        return Local(slots, pools.pool, clock or SystemClock()), slots

    return make


async def send(local, call=None):
    call = call or make_call()
    async with asyncio.timeout(30):
        return await local.send(call, TARGET, local.wire(call.operation, call.wire), call.fields)


async def read(answer):
    async with asyncio.timeout(30):
        return await answer.read()


def failing(status):
    async def script(talk):
        await talk.answer({"error": {"message": "No."}}, status)

    return script


async def test_a_loaded_model_answers_with_the_key_of_its_start(start, upstream):
    local, slots = start(address_of(upstream))
    answer = await send(local, make_call(deadline=1e9))
    assert json.loads(await read(answer)) == completion(model="tiny")
    assert upstream.requests[0].headers["authorization"] == "Bearer engine-key"
    assert upstream.requests[0].path == "/v1/chat/completions"
    assert slots.asked == [("tiny", 1e9)]
    assert slots.released == [1]


async def test_an_engine_that_was_started_again_on_its_port_gets_its_new_key(start, upstream):
    local, slots = start(address_of(upstream, "old"), address_of(upstream, "new"))
    for _ in range(3):
        await read(await send(local))
    assert [one.headers["authorization"] for one in upstream.requests] == ["Bearer old", "Bearer new", "Bearer new"]
    assert slots.released == [1, 1, 1]


async def test_a_dead_engine_is_doubted_and_its_successor_gets_the_request(start, upstream, dead):
    local, slots = start(dead, address_of(upstream))
    assert json.loads(await read(await send(local))) == completion(model="tiny")
    assert [lease.doubts for lease in slots.leases] == [1, 0]
    assert slots.released == [1, 1]


async def test_an_engine_that_dies_over_a_request_is_replaced_once(start, upstream):
    async def script(talk):
        talk.cut()

    upstream.script = script
    local, slots = start(address_of(upstream))
    with pytest.raises(UpstreamError) as caught:
        await send(local)
    assert len(slots.leases) == 2
    assert slots.released == [1, 1]
    # Another model may answer it; nobody brings a third engine of this one down with it.
    assert (caught.value.code, caught.value.may_fall_back) == ("engine_died", True)
    assert not is_transient(caught.value)
    assert (b"x-should-retry", b"false") in caught.value.headers
    assert not failed(caught.value).retry


async def test_two_dead_engines_are_enough(start, dead):
    local, slots = start(dead)
    with pytest.raises(UpstreamError) as caught:
        await send(local)
    assert caught.value.may_fall_back
    assert slots.released == [1, 1]


@pytest.mark.parametrize("status", [400, 404, 429, 503])
async def test_a_living_engine_that_refuses_is_not_asked_again(start, upstream, status):
    upstream.script = failing(status)
    local, slots = start(address_of(upstream))
    with pytest.raises(GatewayError):
        await send(local)
    assert len(upstream.requests) == 1
    assert [(lease.released, lease.doubts) for lease in slots.leases] == [(1, 0)]


async def test_a_model_that_cannot_be_loaded_is_told_as_it_is(start):
    loading = Unavailable("The model is loading.", code="model_loading", retry_after=5)
    local, slots = start(loading)
    with pytest.raises(Unavailable) as caught:
        await send(local)
    assert caught.value is loading
    assert slots.leases == []


class Streaming:
    """An engine that sends one event and then what the test lets it."""

    def __init__(self) -> None:
        self.sent, self.go_on, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.cuts = False

    async def __call__(self, talk):
        await talk.start_stream()
        await talk.chunk(b"data: {}\n\n")
        self.sent.set()
        await self.go_on.wait()
        if self.cuts:
            talk.cut()
            return
        await talk.finish_stream()
        with suppress(ConnectionError):
            await talk.left.wait()
        self.left.set()


@pytest.fixture
async def streaming(upstream):
    upstream.script = engine = Streaming()
    yield engine
    engine.go_on.set()


async def test_the_model_stays_loaded_until_its_answer_is_complete(start, upstream, streaming):
    local, slots = start(address_of(upstream))
    answer = await send(local, make_call(stream=True))
    async with asyncio.timeout(30):
        await streaming.sent.wait()
        assert await answer.next()
    assert slots.released == [0]
    streaming.go_on.set()
    await read(answer)
    assert slots.released == [1]
    answer.abort()
    assert slots.released == [1]


async def test_an_answer_that_is_given_up_frees_the_model(start, upstream, streaming):
    local, slots = start(address_of(upstream))
    answer = await send(local, make_call(stream=True))
    answer.abort()
    answer.abort()
    assert slots.released == [1]
    streaming.go_on.set()
    async with asyncio.timeout(30):
        await streaming.left.wait()


async def test_an_answer_that_fails_frees_the_model(start, upstream, streaming):
    local, slots = start(address_of(upstream))
    answer = await send(local, make_call(stream=True))
    answer.fail(UpstreamError("An error inside."))
    assert slots.released == [1]


async def test_an_engine_that_breaks_off_frees_the_model(start, upstream, streaming):
    streaming.cuts = True
    local, slots = start(address_of(upstream))
    answer = await send(local, make_call(stream=True))
    streaming.go_on.set()
    with pytest.raises(UpstreamBroken):
        await read(answer)
    assert slots.released == [1]


async def test_every_piece_of_an_answer_proves_that_the_engine_computes(start, upstream, streaming):
    local, slots = start(address_of(upstream))
    answer = await send(local, make_call(stream=True))
    async with asyncio.timeout(30):
        await answer.next()
    before = slots.leases[0].answers
    assert before >= 1
    streaming.go_on.set()
    await read(answer)
    assert slots.leases[0].answers > before
    assert slots.leases[0].suspicions == 0


async def test_a_short_answer_that_came_with_its_head_is_a_proof_too(start, upstream):
    local, slots = start(address_of(upstream))
    await read(await send(local))
    assert (slots.leases[0].answers, slots.leases[0].suspicions) == (1, 0)


class Silent:
    """An engine that takes a request and gives nothing, not even a head unless it `starts`."""

    def __init__(self, *, starts=False) -> None:
        self.reached = asyncio.Event()
        self.starts = starts

    async def __call__(self, talk):
        if self.starts:
            await talk.start_stream()
        self.reached.set()
        with suppress(ConnectionError):
            await talk.left.wait()


async def test_an_engine_that_gave_no_head_in_time_is_suspected(upstream, pools):
    upstream.script = silent = Silent()
    impatient = UpstreamSettings(first_byte_seconds=0.0)
    slots = Slots(address_of(upstream))
    pool = pools.pool(parse_base_url(upstream.url)[0], impatient)
    going = asyncio.ensure_future(send(Local(slots, lambda _: pool, SystemClock())))
    async with asyncio.timeout(30):
        await silent.reached.wait()
        for now in (1.0, 2.0):
            pool.sweep(now)
        with pytest.raises(UpstreamTimeout):
            await going
    assert [(lease.suspicions, lease.doubts, lease.released) for lease in slots.leases] == [(1, 0, 1)]


@pytest.mark.parametrize(("seconds", "suspicions"), [(5.0, 0), (31.0, 1)])
@pytest.mark.parametrize("starts", [False, True])
async def test_a_client_that_leaves_without_a_byte_says_something_of_the_engine_once_it_waited_long(
    start, upstream, seconds, suspicions, starts
):
    upstream.script = silent = Silent(starts=starts)
    clock = StillClock()
    local, slots = start(address_of(upstream), clock=clock)
    going = asyncio.ensure_future(send(local, make_call(stream=True)))
    async with asyncio.timeout(30):
        await silent.reached.wait()
        clock.seconds += seconds
        if starts:
            (await going).abort()
        else:
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
    assert [(lease.suspicions, lease.released) for lease in slots.leases] == [(suspicions, 1)]


async def test_a_cancelled_request_frees_the_model(start, upstream):
    reached = asyncio.Event()

    async def script(talk):
        reached.set()
        with suppress(ConnectionError):
            await talk.left.wait()

    upstream.script = script
    local, slots = start(address_of(upstream))
    going = asyncio.ensure_future(send(local))
    async with asyncio.timeout(30):
        await reached.wait()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
    assert [(lease.released, lease.doubts) for lease in slots.leases] == [(1, 0)]


@pytest.mark.parametrize(
    "name",
    [
        "chat_template",
        "chat_template_file",
        "id_slot",
        "slot_id",
        "lora",
        "n_cmpl",
        "n_keep",
        "n_discard",
        "t_max_predict_ms",
        "grammar",
        "grammar_triggers",
        "guided_regex",
        "structured_outputs",
    ],
)
async def test_fields_that_reach_into_the_engine_are_refused_before_it_is_loaded(start, upstream, name):
    local, slots = start(address_of(upstream))
    with pytest.raises(BadRequest) as caught:
        await send(local, make_call(**{name: 1}))
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    assert slots.asked == []


@pytest.mark.parametrize(
    ("choice", "refused"), [(None, False), ("auto", False), ("none", False), ("required", True), ({"type": "x"}, True)]
)
async def test_a_model_without_tools_cannot_be_made_to_call_one(start, upstream, choice, refused):
    local, slots = start(address_of(upstream))
    call = make_call(tool_choice=choice)
    if refused:
        with pytest.raises(BadRequest) as caught:
            await send(local, call)
        assert (caught.value.param, slots.asked) == ("tool_choice", [])
    else:
        await read(await send(local, call))


async def test_it_offers_what_the_engines_offer(start, upstream):
    local, slots = start(address_of(upstream))
    assert await local.models() == [TINY]
    slots.offered = []
    assert await local.models() == []


def vectors(*rows):
    async def script(talk):
        data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        await talk.answer({"object": "list", "model": "tiny", "data": data, "usage": usage})

    return script


async def test_dimensions_are_cut_here_because_the_engine_passes_over_them(start, upstream):
    upstream.script = vectors([0.6, 0.8, 0.0], [3.0, 4.0, 12.0])
    local, slots = start(address_of(upstream))
    call = make_call(Operation.EMBEDDING, dimensions=2, encoding_format="base64")
    answer = await send(local, call)
    assert slots.released == [1]
    assert json.loads(upstream.requests[0].body) == {"model": "tiny", "input": "Hi", "encoding_format": "float"}
    body = json.loads(await read(answer))
    assert [row["embedding"] for row in body["data"]] == [[0.6, 0.8], [0.6, 0.8]]
    assert (body["data"][1]["index"], body["usage"]["prompt_tokens"], answer.status) == (1, 3, 200)


async def test_more_dimensions_than_a_model_has_are_refused(start, upstream):
    upstream.script = vectors([1.0, 0.0, 0.0])
    local, slots = start(address_of(upstream))
    with pytest.raises(BadRequest, match="have 3 dimensions") as caught:
        await send(local, make_call(Operation.EMBEDDING, dimensions=4))
    assert caught.value.param == "dimensions"
    assert slots.released == [1]


@pytest.mark.parametrize("dimensions", [0, -1, 1.5, "2", True, 10**20])
async def test_dimensions_that_are_no_number_are_refused_before_a_model_is_loaded(start, upstream, dimensions):
    local, slots = start(address_of(upstream))
    with pytest.raises(BadRequest) as caught:
        await send(local, make_call(Operation.EMBEDDING, dimensions=dimensions))
    assert (caught.value.param, slots.asked) == ("dimensions", [])


async def test_an_answer_whose_vectors_cannot_be_read_is_the_engines_fault(start, upstream):
    async def script(talk):
        await talk.answer({"data": [{"embedding": "AAAA"}]})

    upstream.script = script
    local, slots = start(address_of(upstream))
    with pytest.raises(UpstreamBroken):
        await send(local, make_call(Operation.EMBEDDING, dimensions=2))
    assert slots.released == [1]


async def test_a_text_that_is_too_long_to_embed_is_the_clients_fault(start, upstream):
    async def script(talk):
        message = "input (3002 tokens) is too large to process. increase the physical batch size"
        await talk.answer({"error": {"code": 500, "message": message, "type": "server_error"}}, 500)

    upstream.script = script
    local, _ = start(address_of(upstream))
    with pytest.raises(BadRequest, match="3002 tokens") as caught:
        await send(local, make_call(Operation.EMBEDDING))
    assert caught.value.code == "context_length_exceeded"
