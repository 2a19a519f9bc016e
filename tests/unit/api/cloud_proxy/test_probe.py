import asyncio

import pytest

from stellwerk.api.cloud_proxy.probe import GOOD_FOR, CloudProbe
from stellwerk.core.errors import UpstreamError
from tests.port_fakes import StillClock


class Cloud:
    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (200, "reachable"),
        (404, "reachable"),
        (401, "reachable"),
        (500, "error"),
        (503, "error"),
        (UpstreamError("No."), "unreachable"),
        (OSError(), "unreachable"),
        (TimeoutError(), "unreachable"),
    ],
)
async def test_what_the_cloud_answers_says_whether_it_is_there(answer, state):
    assert await CloudProbe(Cloud(answer), StillClock()).state() == state


async def test_an_answer_counts_for_some_seconds_and_not_longer():
    clock, cloud = StillClock(), Cloud(200, 500)
    probe = CloudProbe(cloud, clock)
    assert await probe.state() == await probe.state() == "reachable"
    assert cloud.asked == 1
    clock.seconds += GOOD_FOR
    assert await probe.state() == "error"


async def test_many_who_want_to_know_at_once_ask_once():
    cloud = Cloud(200)
    probe = CloudProbe(cloud, StillClock())
    assert set(await asyncio.gather(*(probe.state() for _ in range(50)))) == {"reachable"}
    assert cloud.asked == 1


async def test_who_leaves_while_he_waits_takes_the_answer_from_nobody_else():
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        begun.set()
        await go_on.wait()
        return 200

    probe = CloudProbe(slow, StillClock())
    first, second = (asyncio.ensure_future(probe.state()) for _ in range(2))
    await begun.wait()
    first.cancel()
    go_on.set()
    assert await second == "reachable"
