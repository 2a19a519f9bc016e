import asyncio

import msgspec
import pytest

from stellwerk.api.openai.reply import OpenAIReply
from stellwerk.api.openai.waiting import Waiting
from stellwerk.core.call import Operation, Place
from stellwerk.core.errors import Unavailable, UpstreamError
from stellwerk.core.events import Finished, Text
from stellwerk.core.plan import Target
from tests.port_fakes import CountingMeter, PlayedAnswer, RecordedExchange, StillClock, make_call, sse
from tests.scripted_upstream import chunk, completion

TARGET = Target(provider="house", model="up")
FULL = Unavailable("Too many requests are waiting.", code="queue_full", may_fall_back=True)


def test_nothing_is_said_before_ten_seconds_and_then_whatever_is_new():
    waiting = Waiting(100.0, 10.0)
    said = [waiting.comment(place, now) for place, now in [(3, 100.0), (3, 109.9), (3, 110.0), (3, 110.1), (2, 110.2)]]
    assert said == [None, None, b": waiting, place 3\n\n", None, b": waiting, place 2\n\n"]


def test_an_unchanged_place_is_said_again_when_it_is_told_every_five_seconds():
    waiting = Waiting(0.0, 10.0)
    told = (0.0, 5.0, 10.0, 15.0, 19.99, 20.5)
    assert [at for at in told if waiting.comment(1, at) is not None] == [10.0, 15.0, 19.99]


class Talk:
    """One reply whose call waits in a line."""

    def __init__(self, operation=Operation.CHAT, *, stream=True) -> None:
        self.clock, self.exchange, self.meter, self.place = StillClock(), RecordedExchange(), CountingMeter(), Place()
        call = msgspec.structs.replace(make_call(operation, stream=stream), place=self.place)
        self.reply = OpenAIReply(call, self.exchange, patience=10.0, monotonic=self.clock.monotonic)
        self.reply.admit(((b"x-ratelimit-limit-requests", b"60"),))

    def wait(self, *places) -> None:
        """Ten seconds at each of them."""
        for number in places:
            self.place.take(number)
            self.clock.seconds += 10.0

    async def relay(self, *pieces) -> None:
        async with asyncio.timeout(30):
            await self.reply.relay(PlayedAnswer(*pieces), TARGET, self.meter)

    async def render(self, *events) -> None:
        async def play():
            for event in events:
                yield event

        async with asyncio.timeout(30):
            await self.reply.render(play(), PlayedAnswer(), TARGET, self.meter)


async def test_a_stream_that_waits_for_long_is_opened_and_goes_on_with_its_answer():
    talk = Talk()
    talk.wait(3)
    assert not talk.exchange.started
    talk.wait(2, 1)
    assert (talk.exchange.status, talk.reply.started) == (200, False)
    assert talk.exchange.written == b": waiting, place 2\n\n: waiting, place 1\n\n"
    assert talk.exchange.header("x-stellwerk-queue-position") == "3"
    assert talk.exchange.header("x-ratelimit-limit-requests") == "60"
    assert talk.exchange.header("content-type") == "text/event-stream; charset=utf-8"
    await talk.relay(sse(chunk("Hi")), sse(chunk(finish="stop"), "[DONE]"))
    answer = [chunk("Hi", model="house/up"), chunk(finish="stop", model="house/up"), "[DONE]"]
    assert talk.exchange.events == answer
    assert (talk.reply.started, talk.exchange.finished, talk.meter.begun) == (True, 1, 1)


async def test_a_rendered_stream_goes_on_after_its_wait_too():
    talk = Talk(Operation.COMPLETION)
    talk.wait(2, 1)
    await talk.render(Text(index=0, text="Hi"), Finished(index=0, reason="stop"))
    assert talk.exchange.events[0]["choices"][0]["text"] == "Hi"
    assert (talk.exchange.events[-1], talk.exchange.finished) == ("[DONE]", 1)


async def test_another_target_may_still_answer_a_stream_that_was_opened_while_it_waited():
    talk = Talk()
    talk.wait(2, 1)
    with pytest.raises(UpstreamError):
        await talk.relay(sse({"error": {"message": "no"}}))
    assert not talk.reply.started
    await talk.relay(sse(chunk("Hi"), "[DONE]"))
    assert talk.exchange.events == [chunk("Hi", model="house/up"), "[DONE]"]


def test_a_failure_after_the_wait_is_told_inside_the_stream():
    talk = Talk()
    talk.wait(2, 1)
    assert talk.reply.tell(FULL)
    assert [event["error"]["code"] for event in talk.exchange.events] == ["queue_full"]
    assert (talk.exchange.finished, talk.exchange.broken) == (1, False)


def test_a_failure_before_that_is_left_to_the_status():
    talk = Talk()
    talk.wait(2)
    assert not talk.reply.tell(FULL)
    assert not talk.exchange.started


async def test_places_are_not_said_once_the_answer_has_begun():
    talk = Talk()
    talk.wait(2)
    await talk.relay(sse(chunk("Hi"), "[DONE]"))
    before = talk.exchange.written
    talk.wait(1, 1)
    assert talk.exchange.written == before
    assert talk.exchange.header("x-stellwerk-queue-position") == "2"
    assert talk.exchange.header("x-stellwerk-model") == "house/up"


async def test_an_answer_in_one_piece_is_not_opened_and_says_its_wait_in_a_header():
    talk = Talk(stream=False)
    talk.wait(4, 3, 2)
    assert not talk.exchange.started
    await talk.relay(msgspec.json.encode(completion("Hi")))
    assert talk.exchange.header("x-stellwerk-queue-position") == "4"
    assert talk.exchange.header("x-stellwerk-model") == "house/up"
