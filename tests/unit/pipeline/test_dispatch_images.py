import asyncio
import json

import pytest

from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import BadRequest, RateLimited, Unavailable, UpstreamError
from stellwerk.http.egress import EgressAnswer
from stellwerk.limits.gate import Gate, GateSettings
from stellwerk.pipeline.images import Images, ImageSettings
from stellwerk.routing.breaker import BreakerSettings, Probe
from tests.port_fakes import Pause

URL = "https://pictures.example.com/cat.png"
PNG = b"\x89PNG\r\n\x1a\n"


class Elsewhere:
    """What stands at every address: images, exceptions and Pauses before one."""

    def __init__(self):
        self.plays = []
        self.asked = []

    async def send(self, method, url, headers, body=b"", *, seconds, most_bytes, redirects):
        self.asked.append(url)
        play = self.plays.pop(0) if self.plays else PNG
        if isinstance(play, Pause):
            await play.wait()
            play = self.plays.pop(0) if self.plays else PNG
        if isinstance(play, Exception):
            raise play
        return EgressAnswer(status=200, headers={}, body=play)


@pytest.fixture
def elsewhere():
    return Elsewhere()


@pytest.fixture
def images(line, elsewhere):
    """House b takes images as data alone."""
    line.houses["b"].images_as_data = True
    made = Images(elsewhere, ImageSettings(request_bytes=100_000), SystemClock(), lambda _: None)
    line.dispatch._images = made
    return made


def picture(line, url=URL):
    part = {"type": "image_url", "image_url": {"url": url}}
    return line.client(messages=[{"role": "user", "content": [part]}])


def shown(line, house):
    """The addresses that a house was sent; None where the body is the client's own."""
    bodies = [fields for _, _, fields in line.houses[house].sent]
    return [
        json.loads(bytes(body["messages"]))[0]["content"][0]["image_url"]["url"][:22] if "messages" in body else None
        for body in bodies
    ]


async def test_whoever_fetches_itself_is_sent_what_the_client_wrote(line, answer, elsewhere, images):
    line.play(a=answer(b"one"))
    await line.run(picture(line))
    assert (shown(line, "a"), elsewhere.asked) == ([None], [])


async def test_a_fallback_that_takes_no_addresses_is_sent_the_image(line, answer, elsewhere, images):
    line.play(a=UpstreamError("Down.", may_fall_back=True), b=answer(b"two"))
    client = await line.run(picture(line))
    assert (client.got, shown(line, "a"), shown(line, "b")) == ([b"two"], [None], ["data:image/png;base64,"])
    assert (elsewhere.asked, images.held) == ([URL], 0)


async def test_a_fallback_that_fetches_itself_is_sent_the_address_again(line, answer, images):
    line.targets = ("b", "a")
    line.play(b=UpstreamError("Down.", may_fall_back=True), a=answer(b"one"))
    client = await line.run(picture(line))
    assert (client.got, shown(line, "b"), shown(line, "a")) == ([b"one"], ["data:image/png;base64,"], [None])
    assert images.held == 0


async def test_an_image_that_cannot_be_fetched_ends_the_call_and_blames_no_upstream(line, elsewhere, images):
    line.targets = ("b", "a")
    elsewhere.plays = [b"<html>"]
    with pytest.raises(BadRequest):
        await line.run(picture(line))
    assert (shown(line, "a"), shown(line, "b"), line.outcome.status) == ([], [], 400)
    assert line.breakers.wait(line.plan(picture(line).call).targets[0]) == 0


@pytest.mark.parametrize("refusal", [{"admit_error": RateLimited("Slow.")}, {"plan_error": BadRequest("No.")}])
async def test_nothing_is_fetched_for_a_call_that_is_not_admitted(line, elsewhere, images, refusal):
    line.targets = ("b",)
    for name, error in refusal.items():
        setattr(line, name, error)
    with pytest.raises((RateLimited, BadRequest)):
        await line.run(picture(line))
    assert elsewhere.asked == []


async def test_a_slow_server_elsewhere_keeps_no_model_from_working(line, answer, elsewhere, images):
    gate = Gate("b", GateSettings(max_concurrent=1, max_waiting=1), line.clock)
    line.dispatch._gate = lambda target: gate
    line.targets = ("b",)
    line.play(b=[answer(b"text"), answer(b"image")])
    slow = Pause()
    elsewhere.plays = [slow]
    going = asyncio.ensure_future(line.run(picture(line)))
    await slow.reached.wait()
    assert gate.idle
    assert (await line.run()).got == [b"text"]
    slow.go_on.set()
    assert (await going).got == [b"image"]


def fail_before(line):
    """House b has been left alone for so long that one call may try it."""
    line.breakers.settings = BreakerSettings(failures=1)
    line.targets = ("b",)
    line.breakers.failed(line.plan(picture(line).call).targets[0], Probe())
    line.clock.seconds += line.breakers.settings.open_seconds


async def test_a_slow_server_elsewhere_keeps_nobody_from_finding_that_a_model_is_well_again(
    line, answer, elsewhere, images
):
    fail_before(line)
    line.play(b=[answer(b"text"), answer(b"image")])
    slow = Pause()
    elsewhere.plays = [slow]
    going = asyncio.ensure_future(line.run(picture(line)))
    await slow.reached.wait()
    assert (await line.run()).got == [b"text"]
    slow.go_on.set()
    assert (await going).got == [b"image"]


@pytest.mark.parametrize("found", [PNG, b"<html>"])
async def test_who_was_fetching_does_not_join_who_tries_a_model_meanwhile(line, answer, elsewhere, images, found):
    fail_before(line)
    trying, slow = Pause(), Pause()
    line.play(b=[trying, answer(b"text")])
    elsewhere.plays = [slow, found]
    fetching = asyncio.ensure_future(line.run(picture(line)))
    await slow.reached.wait()
    first = asyncio.ensure_future(line.run())
    async with asyncio.timeout(30):
        await trying.reached.wait()
    slow.go_on.set()
    with pytest.raises(Unavailable if found is PNG else BadRequest):
        await fetching
    assert (images.held, line.naps) == (0, [])
    with pytest.raises(Unavailable, match="left alone"):
        await line.run()
    trying.go_on.set()
    assert (await first).got == [b"text"]


async def test_the_memory_is_free_once_the_upstream_has_the_image(line, answer, images):
    line.targets = ("b",)
    sending, answering = Pause(), Pause()
    line.houses["b"].plays = [sending, answer(b"one", answering, b"two")]
    going = asyncio.ensure_future(line.run(picture(line)))
    await sending.reached.wait()
    assert images.held > 0
    sending.go_on.set()
    await answering.reached.wait()
    assert images.held == 0
    answering.go_on.set()
    assert (await going).got == [b"one", b"two"]


async def test_a_call_without_an_address_passes_as_it_is(line, answer, elsewhere, images):
    line.targets = ("b",)
    line.play(b=[answer(b"x"), answer(b"y")])
    await line.run()
    await line.run(picture(line, "data:image/png;base64,AAAA"))
    assert (shown(line, "b"), elsewhere.asked) == ([None, None], [])
