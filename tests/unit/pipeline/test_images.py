import asyncio
import base64
import gc
import json
import socket
import tracemalloc
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.core.plan import Model, Target
from stellwerk.core.principal import Principal, Role
from stellwerk.http.egress import Egress
from stellwerk.http.serving import bind_loopback
from stellwerk.pipeline.image_links import find_image_links
from stellwerk.pipeline.images import Images, ImageSettings, sniff_image
from tests.egress_urls import FORBIDDEN_NAMES, FORBIDDEN_URLS
from tests.gateway_process import wait_until
from tests.port_fakes import make_call
from tests.scripted_upstream import ScriptedUpstream

PICTURES = {
    "jpeg": b"\xff\xd8\xff\xe0 rest",
    "png": b"\x89PNG\r\n\x1a\n rest",
    "gif": b"GIF89a rest",
    "webp": b"RIFF\x10\x00\x00\x00WEBPVP8 rest",
    "bmp": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00 rest",
}
TARGET = Target(provider="local", model="seer")
MEBIBYTE = 1024 * 1024


def chat(*urls, deadline=1e12, user_id=0):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    call = make_call(messages=[{"role": "user", "content": parts}], deadline=deadline)
    caller = Principal(key_id=f"key_{user_id}", name="x", role=Role.USER, user_id=user_id)
    return msgspec.structs.replace(call, principal=caller)


def urls_in(fetched):
    return [part["image_url"]["url"] for part in json.loads(bytes(fetched.fields["messages"]))[0]["content"]]


class Shop:
    """A server of images by path; a path without one is told by `script`."""

    def __init__(self, server):
        self.server = server
        self.pictures = {f"/{kind}": data for kind, data in PICTURES.items()}
        self.script = None
        server.script = self.serve

    async def serve(self, talk):
        if talk.request.path in self.pictures:
            # What it says of itself is not believed.
            await talk.answer(self.pictures[talk.request.path], content_type="text/html")
        else:
            await self.script(talk)

    def url(self, path):
        return f"{self.origin}{path}"

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def asked(self):
        return [request.path for request in self.server.requests]


@pytest.fixture
async def shop():
    server = ScriptedUpstream()
    await server.start()
    yield Shop(server)
    await server.stop()


def images(shop, *, model=None, resolve=None, **settings):
    """Images that may come from the shop and from nowhere else on this machine."""
    settings = ImageSettings(**{"request_bytes": MEBIBYTE, **settings})
    return Images(Egress(lambda: (shop.origin,), resolve=resolve), settings, SystemClock(), lambda _: model)


async def fetch(images, call, target=TARGET):
    async with asyncio.timeout(60):
        return await images.fetch(call, target, find_image_links(call))


async def refusal(images, call):
    with pytest.raises(BadRequest) as caught:
        await fetch(images, call)
    assert images.held == 0
    return caught.value


@pytest.mark.parametrize("kind", PICTURES)
async def test_an_image_becomes_a_data_url_of_the_kind_that_its_bytes_are(shop, kind):
    fetched = await fetch(images(shop), chat(shop.url(f"/{kind}")))
    assert urls_in(fetched) == [f"data:image/{kind};base64,{base64.b64encode(PICTURES[kind]).decode()}"]


async def test_the_same_address_is_asked_once_and_stands_wherever_it_stood(shop):
    fetched = await fetch(images(shop), chat(shop.url("/png"), shop.url("/gif"), shop.url("/png")))
    first, second, third = urls_in(fetched)
    assert (first == third, second[:14]) == (True, "data:image/gif")
    assert sorted(shop.asked) == ["/gif", "/png"]


async def test_a_redirect_is_followed(shop):
    async def elsewhere(talk):
        await talk.answer(b"", 302, [("location", "/png")])

    shop.script = elsewhere
    assert urls_in(await fetch(images(shop), chat(shop.url("/moved"))))[0].startswith("data:image/png;")


class Canary:
    """Listens on the loopback addresses and accepts nothing, so whoever has connected stays in the queue."""

    def __init__(self):
        self.sockets = bind_loopback(0)
        for bound in self.sockets:
            bound.listen(8)
        self.port = self.sockets[0].getsockname()[1]

    @property
    def connections(self):
        count = 0
        for bound in self.sockets:
            try:
                bound.accept()[0].close()
            except BlockingIOError:
                continue
            count += 1
        return count

    def close(self):
        for bound in self.sockets:
            bound.close()


@pytest.fixture
def canary():
    made = Canary()
    yield made
    made.close()


async def resolve(host, port):
    addresses = FORBIDDEN_NAMES.get(host)
    if addresses is None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [where[0] for *_, where in found]
    return addresses


async def test_every_forbidden_address_is_refused_in_the_same_words_and_connects_to_nothing(shop, canary):
    guarded = images(shop, resolve=resolve)
    forms = [form for form in FORBIDDEN_URLS if form.lower().startswith(("http://", "https://"))]
    said = set()
    for form in [*forms, "http://no-such-name.example.com/x.png"]:
        error = await refusal(guarded, chat(form.replace("{port}", str(canary.port))))
        said.add((error.status, error.code, error.param, error.message))
    assert canary.connections == 0
    ((status, code, param, message),) = said
    assert (status, code, param) == (400, "invalid_image_url", "messages[0].content[0].image_url")
    assert message.startswith("Image 1 of the request")
    assert "data: URL" in message
    assert "egress.allowed_origins" in message


async def test_a_server_that_is_not_there_is_refused_in_the_words_of_a_forbidden_address(shop, canary):
    forbidden = await refusal(images(shop), chat(f"http://127.0.0.1:{canary.port}/"))
    gone = shop.url("/png")
    guarded = images(shop)
    await shop.server.stop()
    try:
        missing = await refusal(guarded, chat(gone))
    finally:
        await shop.server.start()
    assert (missing.message, missing.code) == (forbidden.message, forbidden.code)


async def test_a_redirect_to_a_forbidden_address_is_refused_like_the_address_itself(shop, canary):
    async def inwards(talk):
        await talk.answer(b"", 302, [("location", f"http://127.0.0.1:{canary.port}/png")])

    shop.script = inwards
    forbidden = await refusal(images(shop), chat(f"http://127.0.0.1:{canary.port}/"))
    error = await refusal(images(shop), chat(shop.url("/moved")))
    assert (error.message, error.code, canary.connections) == (forbidden.message, forbidden.code, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>BM GIF JFIF</html>", 200),
        (b"", 200),
        (b"BM is how this text begins", 200),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", 200),
        (b"%PDF-1.7", 200),
        (PICTURES["png"], 404),
        (PICTURES["png"], 401),
        (PICTURES["png"], 500),
        (PICTURES["png"], 304),
    ],
)
async def test_what_is_no_image_is_refused_whatever_it_says_of_itself(shop, body, status):
    async def answer(talk):
        await talk.answer(body, status, content_type="image/png")

    shop.script = answer
    error = await refusal(images(shop), chat(shop.url("/png"), shop.url("/x")))
    assert (error.code, error.param) == ("invalid_image_format", "messages[0].content[1].image_url")
    assert error.message.startswith("Image 2 of the request")
    assert str(status) not in error.message


async def test_a_server_that_loops_or_breaks_off_gives_no_image(shop):
    async def circle(talk):
        if talk.request.path == "/circle":
            await talk.answer(b"", 302, [("location", "/circle")])
        else:
            await talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + PICTURES["png"])
            talk.cut()

    shop.script = circle
    for path in ("/circle", "/broken"):
        assert (await refusal(images(shop), chat(shop.url(path)))).code == "invalid_image_format"


async def test_a_server_that_says_nothing_is_given_up_in_time(shop):
    gone = asyncio.Event()

    async def silent(talk):
        await talk.left.wait()
        gone.set()

    shop.script = silent
    error = await refusal(images(shop, seconds=0.2), chat("data:,", shop.url("/never"), shop.url("/png")))
    assert (error.code, error.param) == ("invalid_image_url", "messages[0].content[1].image_url")
    assert "in time" in error.message
    await wait_until(gone.is_set)


async def test_no_image_takes_longer_than_its_call_may(shop):
    async def silent(talk):
        await talk.left.wait()

    shop.script = silent
    call = chat(shop.url("/never"), deadline=SystemClock().monotonic() + 0.2)
    assert "in time" in (await refusal(images(shop, seconds=3600), call)).message


async def test_a_body_without_an_end_is_given_up_at_the_bound(shop):
    gone = asyncio.Event()

    async def endless(talk):
        await talk.send(b"HTTP/1.1 200 OK\r\n\r\n" + PICTURES["png"])
        try:
            while not talk.left.is_set():
                await talk.send(bytes(65536))
        finally:
            gone.set()

    shop.script = endless
    error = await refusal(images(shop, image_bytes=MEBIBYTE), chat(shop.url("/endless")))
    assert (error.code, error.param) == ("image_too_large", "messages[0].content[0].image_url")
    assert str(MEBIBYTE) in error.message
    await wait_until(gone.is_set)


async def test_too_many_images_are_refused_before_one_is_fetched(shop):
    error = await refusal(images(shop, images=2), chat(*[shop.url("/png")] * 3))
    assert (error.code, error.param, shop.asked) == ("too_many_images", "messages[0].content[2].image_url", [])


async def test_a_request_with_its_images_is_no_larger_than_a_body_may_be(shop):
    shop.pictures["/big"] = PICTURES["png"] + bytes(3000)
    error = await refusal(images(shop, request_bytes=10_000), chat(*[shop.url("/big")] * 3))
    assert (error.status, error.code) == (400, "images_too_large")
    assert "10000" in error.message
    fetched = await fetch(images(shop, request_bytes=10_000), chat(*[shop.url("/big")] * 2))
    assert len(bytes(fetched.fields["messages"])) <= 10_000


async def test_images_in_memory_are_counted_until_they_have_been_sent(shop):
    shop.pictures["/big"] = PICTURES["png"] + bytes(3000)
    guarded = images(shop, request_bytes=5_000, requests_held=2)
    held = [await fetch(guarded, chat(shop.url("/big"))) for _ in range(2)]
    assert 8_000 < guarded.held < 10_000
    with pytest.raises(Unavailable) as caught:
        await fetch(guarded, chat(shop.url("/big")))
    assert (caught.value.status, caught.value.may_fall_back) == (503, True)
    assert caught.value.retry_after
    held.pop().release()
    last = await fetch(guarded, chat(shop.url("/big")))
    for each in (*held, last, last):
        each.release()
    assert guarded.held == 0


async def test_an_image_that_waits_for_its_model_is_in_memory_once(shop):
    shop.pictures["/large"] = PICTURES["png"] + bytes(3 * MEBIBYTE)
    guarded, call = images(shop, request_bytes=8 * MEBIBYTE), chat(shop.url("/large"))
    gc.collect()
    tracemalloc.start()
    try:
        fetched = await fetch(guarded, call)
        assert guarded.held > 4 * MEBIBYTE
        gc.collect()
        await wait_until(lambda: tracemalloc.get_traced_memory()[0] < 2 * guarded.held)
    finally:
        tracemalloc.stop()
    fetched.release()


async def test_the_images_of_one_user_leave_room_for_those_of_others(shop):
    shop.pictures["/big"] = PICTURES["png"] + bytes(3000)
    guarded = images(shop, request_bytes=5_000, requests_held=2, requests_held_of_user=1)
    held = await fetch(guarded, chat(shop.url("/big"), user_id=7))
    with pytest.raises(Unavailable):
        await fetch(guarded, chat(shop.url("/big"), user_id=7))
    (await fetch(guarded, chat(shop.url("/big"), user_id=8))).release()
    held.release()
    (await fetch(guarded, chat(shop.url("/big"), user_id=7))).release()
    assert guarded.held == 0


async def test_whoever_runs_the_gateway_reads_in_the_log_what_the_client_is_not_told(shop, canary, caplog):
    caplog.set_level("INFO", "stellwerk.pipeline")
    error = await refusal(images(shop), chat(f"http://user@127.0.0.1:{canary.port}/"))
    assert "has a user name or a password" in caplog.text
    assert "has a user name" not in error.message


@pytest.mark.parametrize(
    ("body", "settings", "code"),
    [
        (b"<html>" + bytes(4 * MEBIBYTE), {"request_bytes": 10 * MEBIBYTE}, "invalid_image_format"),
        (PICTURES["png"] + bytes(4 * MEBIBYTE), {"request_bytes": 5 * MEBIBYTE}, "images_too_large"),
        (PICTURES["png"] + bytes(4 * MEBIBYTE), {"image_bytes": 3 * MEBIBYTE}, "image_too_large"),
    ],
)
async def test_an_error_keeps_nothing_of_the_images_that_it_is_about(shop, body, settings, code):
    shop.pictures["/big"] = body
    guarded, call = images(shop, **{"request_bytes": 9 * MEBIBYTE, **settings}), chat(shop.url("/big"))
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        error = await refusal(guarded, call)
        await wait_until(lambda: tracemalloc.get_traced_memory()[0] < MEBIBYTE)
    finally:
        tracemalloc.stop()
        gc.enable()
    assert error.code == code


async def test_a_client_that_leaves_ends_the_fetching_and_keeps_no_memory(shop):
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def silent(talk):
        arrived.set()
        await talk.left.wait()
        gone.set()

    shop.script = silent
    guarded = images(shop)
    going = asyncio.ensure_future(fetch(guarded, chat(shop.url("/png"), shop.url("/never"))))
    await wait_until(arrived.is_set)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    await wait_until(gone.is_set)
    assert guarded.held == 0


@asynccontextmanager
async def waiting(guarded, shop, user_id, count):
    """`count` images of a user whose server does not answer."""
    call = chat(*(shop.url(f"/{user_id}/{number}") for number in range(count)), user_id=user_id)
    going = asyncio.ensure_future(fetch(guarded, call))
    try:
        yield
    finally:
        going.cancel()
        await asyncio.wait({going})


async def test_slow_servers_of_one_user_hold_up_no_other(shop):
    async def silent(talk):
        await talk.left.wait()

    shop.script = silent
    guarded = images(shop, at_once=3, at_once_of_user=2)
    async with waiting(guarded, shop, 7, 5):
        await wait_until(lambda: len(shop.asked) == 2)
        assert urls_in(await fetch(guarded, chat(shop.url("/png"), user_id=8)))
        async with waiting(guarded, shop, 9, 1):
            await wait_until(lambda: "/9/0" in shop.asked)
            assert [path for path in shop.asked if path.startswith("/7/")] == ["/7/0", "/7/1"]


@pytest.mark.parametrize("certain", [True, False])
async def test_a_model_that_is_known_to_take_no_images_is_not_fetched_for(shop, certain):
    model = Model(provider="local", name="seer", id="seer", certain=certain)
    if not certain:
        assert urls_in(await fetch(images(shop, model=model), chat(shop.url("/png"))))
        return
    error = await refusal(images(shop, model=model), chat(shop.url("/png")))
    assert "takes no image input" in error.message
    assert shop.asked == []


@given(st.text(st.characters(min_codepoint=9, exclude_categories=("Cs",)), max_size=40).map(str.encode))
def test_text_is_no_image(data):
    assert sniff_image(b"BM, " + data) is None
    assert sniff_image(b"<" + data) is None
