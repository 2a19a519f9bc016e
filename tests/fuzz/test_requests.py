"""Raw bytes against a running listener: whatever comes, it answers well, refuses or closes, and serves on."""

import asyncio
import contextlib

import pytest
import pytest_asyncio

from tests.fuzz.mutations import mutations
from tests.fuzz.raw_requests import ANSWERED, ENDED, REFUSED
from tests.http_answers import split_answers
from tests.running_listener import listening

pytestmark = pytest.mark.asyncio(loop_scope="module")
CANARY = b"GET /echo?canary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LONGER_THAN_ANY_DEADLINE = 100
AT_ONCE = 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    async with listening() as listener:
        yield listener


async def expect_canary(running):
    async with asyncio.timeout(30):
        [answer] = split_answers(await ask(running, CANARY))
    assert (answer.status, b"canary" in answer.body) == (200, True)


async def ask(running, data, cut=0):
    """Sends `data`, at `cut` in two pieces, and returns what comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    got = b""
    with contextlib.suppress(ConnectionError):
        if cut:
            writer.write(data[:cut])
            for _ in range(4):
                await asyncio.sleep(0)
        writer.write(data[cut:])
        while part := await reader.read(65536):
            got += part
    writer.transport.abort()
    return got


async def play(running, inputs, cuts=None):
    """What comes back for each of the inputs once everything that has a deadline has met it."""
    asking = [
        asyncio.ensure_future(ask(running, data, cut))
        for data, cut in zip(inputs, cuts or [0] * len(inputs), strict=True)
    ]
    # Whoever is answered after those before has been read after them.
    await expect_canary(running)
    await expect_canary(running)
    async with asyncio.timeout(30):
        while not all(task.done() for task in asking):
            running.advance(LONGER_THAN_ANY_DEADLINE)
            await asyncio.wait(asking, timeout=0.01)
    return [task.result() for task in asking]


def check(data, got):
    """What holds for every input: no server error, nothing after a closing answer, not more answers than requests."""
    answers = split_answers(got)
    assert all(200 <= answer.status < 500 for answer in answers), answers
    assert all("close" not in answer.headers.get("connection", "") for answer in answers[:-1])
    assert len(answers) <= data.count(b"HTTP/1") + 1
    return answers


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_request_gets_its_answer_and_no_other(running, name):
    data, statuses = ANSWERED[name]
    [got] = await play(running, [data])
    if name == "head":
        [answer] = split_answers(got, head=True)
        assert answer.status == 200
        return
    assert [answer.status for answer in check(data, got)] == statuses
    assert b"/things/hidden" not in got or data.count(b"POST")


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_trusted_is_refused_once_and_the_connection_ends(running, name):
    data = REFUSED[name]
    [got] = await play(running, [data])
    [answer] = check(data, got)
    assert 400 <= answer.status < 500
    assert answer.headers["connection"] == "close"
    assert answer.status != 408


@pytest.mark.parametrize("name", ENDED)
async def test_what_never_ends_is_ended(running, name):
    data = ENDED[name]
    [got] = await play(running, [data])
    assert [answer.status for answer in check(data, got)] in ([], [408])


async def test_it_does_not_matter_where_the_network_cuts(running):
    """Every input, cut in two at every tenth place: the statuses are those of the whole."""
    cases = [(data, statuses) for data, statuses in ANSWERED.values() if len(data) < 400]
    cases += [(data, None) for data in REFUSED.values() if len(data) < 400]
    pieces = [(data, statuses, cut) for data, statuses in cases for cut in range(1, len(data), 10)]
    for start in range(0, len(pieces), AT_ONCE):
        batch = pieces[start : start + AT_ONCE]
        results = await play(running, [data for data, _, _ in batch], [cut for _, _, cut in batch])
        for (data, statuses, cut), got in zip(batch, results, strict=True):
            if data.startswith(b"HEAD"):
                continue
            found = [answer.status for answer in check(data, got)]
            if statuses is None:
                assert len(found) <= 1, (data, cut, got)
                assert not found or 400 <= found[0] < 500, (data, cut, got)
            else:
                # Behind a chunked body the next request may come in one piece with it, and is then not answered.
                assert found[: len(statuses)] == statuses, (data, cut, got)
                assert len(found) == len(statuses) or b"chunked" in data, (data, cut, got)


async def campaign(running, count, seed):
    seeds = [data for data, _ in ANSWERED.values() if not data.startswith(b"HEAD")]
    seeds += [data for data in [*REFUSED.values(), *ENDED.values()] if len(data) < 20_000]
    inputs = mutations(seeds, count, seed)
    for start in range(0, count, AT_ONCE):
        batch = [next(inputs) for _ in range(min(AT_ONCE, count - start))]
        for data, got in zip(batch, await play(running, batch), strict=True):
            if b"HEAD" in data:
                continue
            try:
                check(data, got)
            except (AssertionError, ValueError) as error:
                raise AssertionError(f"{data!r} was answered {got!r}") from error
    await expect_canary(running)
    assert len(running.listener.connections) <= 2


async def test_mutated_requests_do_no_harm(running):
    await campaign(running, 2_000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
async def test_many_mutated_requests_do_no_harm(running, seed):
    await campaign(running, 5_000, seed)
