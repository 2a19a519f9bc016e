"""Raw bytes from an upstream: only an answer or an UpstreamError comes of them, and the pool serves on."""

import asyncio
from dataclasses import dataclass, field

import pytest

from stellwerk.core.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
from tests.fuzz.mutations import mutations
from tests.fuzz.raw_answers import BROKEN, ENDLESS, REFUSED, UNTIL_CLOSED, WHOLE
from tests.upstream_calls import Calls, Line, RawUpstream, answer

AT_ONCE = 50
LONGER_THAN_ANY_DEADLINE = 1000


@dataclass
class Repeater:
    """An upstream that answers `GET /<n>` with the n-th of its texts and then closes, or waits for the next request."""

    texts: list[bytes] = field(default_factory=list)
    closes: bool = True

    async def talk(self, line: Line) -> None:
        while head := await line.request():
            name = head.split()[1][1:]
            if name == b"canary":
                await line.say(answer(b"canary"))
                continue
            await line.say(self.texts[int(name)])
            if self.closes:
                return


@pytest.fixture
async def calls():
    made = Calls()
    yield made
    await made.close()


@pytest.fixture
async def repeater():
    made = Repeater()
    async with RawUpstream.running(made.talk) as upstream:
        made.port = upstream.port
        yield made


def get(name) -> bytes:
    return f"GET /{name} HTTP/1.1\r\nhost: upstream\r\n\r\n".encode()


async def take(calls, pool, number):
    """Status and body of an answer read in one of three ways."""
    reply = await calls.send(pool, get(number))
    if number % 3 == 0:
        return reply.status, await reply.read()
    got = []
    if number % 3 == 1:
        await reply.pour(got.append)
    else:
        while piece := await reply.next():
            got.append(piece)
    return reply.status, b"".join(got)


async def play(calls, repeater, texts, *, time_passes=False):
    """What comes of each text: status and body, or the error. Only where time passes can a deadline be the end."""
    repeater.texts = texts
    pool = calls.pool(repeater.port)
    asking = [asyncio.ensure_future(take(calls, pool, number)) for number in range(len(texts))]
    async with asyncio.timeout(30):
        while waiting := [task for task in asking if not task.done()]:
            # What an upstream has said is read in the loop's next rounds; when nothing comes any more, time passes.
            pause = 0.02 if time_passes else None
            done, _ = await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                calls.advance(LONGER_THAN_ANY_DEADLINE)
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    for _ in range(10):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        assert await (await calls.send(pool, get("canary"))).read() == b"canary"
    return outcomes


@pytest.mark.parametrize("closes", [True, False], ids=["closing", "staying"])
async def test_whole_answers_arrive(calls, repeater, closes):
    repeater.closes = closes
    cases = list(WHOLE.items())
    # Three times, so that each is read in each of the ways.
    for _ in range(3):
        outcomes = await play(calls, repeater, [data for _, (data, _, _) in cases])
        for (name, (_, status, body)), outcome in zip(cases, outcomes, strict=True):
            assert outcome == (status, body), name
        cases.append(cases.pop(0))


async def test_answers_without_length_end_with_their_connection(calls, repeater):
    outcomes = await play(calls, repeater, [data for data, _, _ in UNTIL_CLOSED.values()])
    assert outcomes == [(status, body) for _, status, body in UNTIL_CLOSED.values()]


@pytest.mark.parametrize("table", [BROKEN, REFUSED], ids=["broken off", "not understood"])
async def test_what_is_no_whole_answer_is_an_upstream_error(calls, repeater, table):
    outcomes = await play(calls, repeater, list(table.values()))
    for name, outcome in zip(table, outcomes, strict=True):
        assert isinstance(outcome, UpstreamError), (name, outcome)
        assert not isinstance(outcome, UpstreamTimeout), name


async def test_what_cannot_be_understood_needs_no_deadline(calls, repeater):
    repeater.closes = False
    outcomes = await play(calls, repeater, list(REFUSED.values()))
    for name, outcome in zip(REFUSED, outcomes, strict=True):
        assert isinstance(outcome, UpstreamBroken), (name, outcome)


async def test_what_never_ends_runs_into_its_deadline(calls, repeater):
    repeater.closes = False
    texts = {**BROKEN, **{name: data for name, (data, _, _) in UNTIL_CLOSED.items()}}
    outcomes = await play(calls, repeater, list(texts.values()), time_passes=True)
    for name, outcome in zip(texts, outcomes, strict=True):
        assert isinstance(outcome, UpstreamTimeout), (name, outcome)


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_has_no_end_is_cut_before_it_fills_the_memory(calls, name):
    first, again = ENDLESS[name]
    said = 0

    async def talk(line):
        nonlocal said
        await line.request()
        await line.say(first)
        while True:
            await line.say(again)
            said += len(again)

    async with RawUpstream.running(talk) as upstream:
        pool = calls.pool(upstream.port, response_bytes=1_000_000)
        async with asyncio.timeout(30):
            with pytest.raises(UpstreamBroken):
                await (await calls.send(pool)).read()
    # What the two sockets hold on top of what was read.
    assert said < 20_000_000


async def campaign(calls, repeater, count, seed):
    seeds = [data for data, _, _ in [*WHOLE.values(), *UNTIL_CLOSED.values()]]
    seeds += [data for data in [*BROKEN.values(), *REFUSED.values()] if len(data) < 20_000]
    inputs = mutations(seeds, count, seed)
    for start in range(0, count, AT_ONCE):
        repeater.closes = start % (4 * AT_ONCE) != 0
        texts = [next(inputs) for _ in range(AT_ONCE)]
        for text, outcome in zip(texts, await play(calls, repeater, texts, time_passes=True), strict=True):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, UpstreamError), (text, outcome)
            else:
                assert len(outcome[1]) <= len(text)
                assert outcome[0] >= 200


async def test_mutated_answers_do_no_harm(calls, repeater):
    await campaign(calls, repeater, 2_000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
async def test_many_mutated_answers_do_no_harm(calls, repeater, seed):
    await campaign(calls, repeater, 5_000, seed)
