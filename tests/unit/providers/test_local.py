import asyncio
import json
from contextlib import suppress

import msgspec
import pytest

from stellwerk.core.call import Operation
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, GatewayError, Unavailable, UpstreamBroken, UpstreamError
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import EngineAddress
from stellwerk.providers.local import Local, check_abilities, check_fields
from tests.port_fakes import make_call
from tests.scripted_upstream import ScriptedUpstream, completion

TARGET = Target(provider="local", model="tiny")
TINY = Model(provider="local", name="tiny", id="tiny", local=True)
DATA = "data:image/png;base64,AAAA"


class Lease:
    def __init__(self, address) -> None:
        self.address = address
        self.released = 0
        self.doubts = 0

    def doubt(self) -> None:
        assert not self.released
        self.doubts += 1

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

    async def acquire(self, model, *, deadline):
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
    def make(*addresses):
        slots = Slots(*addresses)
        return Local(slots, pools.pool, SystemClock()), slots

    return make


async def send(local, call=None):
    call = call or make_call()
    async with asyncio.timeout(5):
        return await local.send(call, TARGET, local.wire(call.operation, call.wire), call.fields)


async def read(answer):
    async with asyncio.timeout(5):
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
    with pytest.raises(UpstreamError):
        await send(local)
    assert len(slots.leases) == 2
    assert slots.released == [1, 1]


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
    async with asyncio.timeout(5):
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
    async with asyncio.timeout(5):
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


async def test_a_cancelled_request_frees_the_model(start, upstream):
    reached = asyncio.Event()

    async def script(talk):
        reached.set()
        with suppress(ConnectionError):
            await talk.left.wait()

    upstream.script = script
    local, slots = start(address_of(upstream))
    going = asyncio.ensure_future(send(local))
    async with asyncio.timeout(5):
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
    ],
)
async def test_fields_that_reach_into_the_engine_are_refused_before_it_is_loaded(start, upstream, name):
    local, slots = start(address_of(upstream))
    with pytest.raises(BadRequest) as caught:
        await send(local, make_call(**{name: 1}))
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    assert slots.asked == []


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], ["a", [1]], [1, "a"]])
def test_several_prompts_are_refused_because_the_engine_counts_only_the_first(prompt):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(Operation.COMPLETION, prompt=prompt).fields)
    assert (caught.value.param, caught.value.code) == ("prompt", "unsupported_parameter")


@pytest.mark.parametrize("prompt", ["a", "[1, 2]", ["a, b"], [1, 2], [[1, 2]], []])
def test_one_prompt_is_taken_in_every_form(prompt):
    check_fields(make_call(Operation.COMPLETION, prompt=prompt).fields)


def test_a_number_of_dimensions_is_refused_and_null_is_none():
    check_fields(make_call(Operation.EMBEDDING, dimensions=None).fields)
    with pytest.raises(BadRequest, match="dimensions"):
        check_fields(make_call(Operation.EMBEDDING, dimensions=256).fields)


def picture(url, *, kind="image_url"):
    return [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": kind, kind: url}]}]


def messages(raw: bytes):
    return {"messages": msgspec.Raw(raw)}


@pytest.mark.parametrize("kind", ["image_url", "video_url", "audio_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/a.png",
        "HTTPS://example.com/a.png",
        "file:///etc/passwd",
        "//example.com/a.png",
        "/etc/passwd",
        " data:image/png;base64,AAAA",
        "",
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_an_engine_is_never_sent_to_fetch_something(kind, url, bare):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(messages=picture(url if bare else {"url": url}, kind=kind)).fields)
    assert (caught.value.param, caught.value.code) == ("messages[0].content", "unsupported_value")


@pytest.mark.parametrize(
    "part",
    [
        rb'{"type":"image\u005furl","image\u005furl":{"url":"http://a/"}}',
        rb'{"type":"image_url","\u0069mage_url":{"\u0075rl":"http://a/"}}',
        rb'{"type":"image_url","image_url":{"url":"data:x"},"image_url":{"url":"http://a/"}}',
        rb'{"type":"image_url","image_url":{"url":"data:x","url":"http:\/\/a\/"}}',
    ],
)
def test_no_spelling_hides_a_link(part):
    with pytest.raises(BadRequest, match="not from the network"):
        check_fields(messages(b'[{"role":"user","content":[%b]}]' % part))


def test_pictures_in_the_request_itself_and_talk_about_links_pass():
    check_fields(make_call(messages=picture({"url": DATA, "detail": "low"})).fields)
    check_fields(make_call(messages=picture(DATA)).fields)
    check_fields(make_call(messages=[{"role": "user", "content": '"image_url": "http://a/" Grüße'}]).fields)


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\u12"', b"[" * 100_000])
def test_messages_that_cannot_be_read_are_refused(text):
    with pytest.raises(BadRequest) as caught:
        check_fields(messages(rb'[{"content":[{"image_url":"data:","text":"\u0041","x":%b}]}]' % text))
    assert caught.value.param == "messages"


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


def test_a_model_that_can_is_let():
    able = Model(provider="local", name="m", id="m", parameters=("tools",), input_modalities=("text", "image"))
    fields = make_call(messages=picture(DATA), tool_choice="required").fields
    check_abilities(fields, able)
    with pytest.raises(BadRequest, match="takes no image input"):
        check_abilities(make_call(messages=picture(DATA)).fields, TINY)


async def test_it_offers_what_the_engines_offer(start, upstream):
    local, slots = start(address_of(upstream))
    assert await local.models() == [TINY]
    slots.offered = []
    assert await local.models() == []


@pytest.mark.parametrize("name", ["n", "best_of"])
def test_several_answers_are_refused_because_the_engine_counts_only_one(name):
    with pytest.raises(BadRequest) as caught:
        check_fields(make_call(**{name: 2}).fields)
    assert caught.value.param == name
    check_fields(make_call(**{name: 1}).fields)
    check_fields(make_call(**{name: None}).fields)
